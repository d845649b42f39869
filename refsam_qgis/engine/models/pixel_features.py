"""Features of single pixels: colour, texture, edges and lines at several scales.

SAM's image embedding has one vector for 16 x 16 pixels of its input, of which a reference holds few. These features
have one for 4 x 4, which is one for each pixel of a tile of 256: fine enough for small objects, and enough of them to
fit a classifier to a single reference (`fitted_prior`). Nothing in them is learnt, so they serve any checkpoint and any
sensor alike. They are the filters of trainable pixel classifiers (as in ilastik and Weka), on a Gaussian pyramid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

STRIDE = 4
"""Side of one feature in pixels of SAM's input; that of SAM's mask prompt."""
LEVELS = 4
"""Pyramid levels; the filters of level i are 2^(i+1) pixels of SAM's input wide (standard deviation)."""
LINES = 3
"""Levels at which the direction of edges is looked at: coarser ones blur objects together."""
FEATURES = 3 + LEVELS * 12 + LINES
COLOURS = slice(0, 3)
"""Those features that are the colours themselves, 0..1."""

_DARK = 0.05
"""Keeps colour shares finite in shadows."""


def pixel_features(colours: Tensor) -> Tensor:
    """Compute colour; and at each scale smoothed colour, colour shares, standard deviation and gradient; and coherence.

    Args:
        colours: ``(B, 3, S, S)`` SAM's input, in 0..1, without its normalisation; S is a multiple of 32.

    Returns:
        ``(B, FEATURES, S/4, S/4)``.
    """
    # A tile is mostly scaled up to fill SAM's input, so nothing is lost at half its size.
    values = F.avg_pool2d(colours, 2)
    squares = values * values
    size = (values.shape[-2] // 2, values.shape[-1] // 2)
    features = [F.avg_pool2d(values, 2)]
    for level in range(LEVELS):
        if level:
            values, squares = F.avg_pool2d(values, 2), F.avg_pool2d(squares, 2)
        features += [_resize(feature, size) for feature in _filters(values, squares, lines=level < LINES)]
    return torch.cat(features, dim=1)


def _filters(values: Tensor, squares: Tensor, lines: bool) -> list[Tensor]:
    smooth = _blur(values)
    shares = smooth / (smooth.mean(1, keepdim=True) + _DARK)
    # Rounding can bring the variance of a flat area just below zero.
    deviation = (_blur(squares) - smooth * smooth).clamp_min(0).sqrt()
    down, across = _gradient(smooth)
    found = [smooth, shares, deviation, (down.square() + across.square()).sqrt()]
    if lines:
        found.append(_coherence(*_gradient(smooth.mean(1, keepdim=True))))
    return found


def _coherence(down: Tensor, across: Tensor) -> Tensor:
    """How far the edges around a pixel share one direction, 0..1; of the structure tensor (Bigün and Granlund 1987)."""
    tensor = torch.cat([down * down, across * across, down * across], dim=1)
    for _ in range(4):
        tensor = _blur(tensor)
    rows, columns, mixed = tensor[:, :1], tensor[:, 1:2], tensor[:, 2:]
    coherence: Tensor = ((rows - columns).square() + 4 * mixed.square()).sqrt() / (rows + columns + 1e-6)
    return coherence


def _blur(values: Tensor) -> Tensor:
    """Binomial filter of 5 x 5 pixels, standard deviation 1; the edge repeats."""
    padded = F.pad(values, (2, 2, 2, 2), mode="replicate")
    rows = _binomial([padded[..., i : i + values.shape[-2], :] for i in range(5)])
    return _binomial([rows[..., i : i + values.shape[-1]] for i in range(5)]).mul_(1 / 256)


def _binomial(five: Sequence[Tensor]) -> Tensor:
    """Sum of five shifted maps, 1, 4, 6, 4 and 1 times; in place, since passes over memory are what takes the time."""
    first, second, middle, fourth, last = five
    return (first + last).add_(second, alpha=4).add_(fourth, alpha=4).add_(middle, alpha=6)


def _gradient(values: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences down and across, for one pixel; the edge repeats."""
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    return down, across


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    if values.shape[-2] > size[0]:
        return F.avg_pool2d(values, values.shape[-2] // size[0])
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)
