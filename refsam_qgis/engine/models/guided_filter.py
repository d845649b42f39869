"""Smooths maps along the edges of the image that they are of (He, Sun and Tang, Guided Image Filtering, 2013).

A map of single pixels is grainy, and its objects end where the filters behind it do. In every small window the map is
replaced by the linear function of the window's colours that comes closest to it, so it becomes even where the image is
even, and steps where the image steps. As in the fast guided filter (He and Sun 2015) the functions are found on half of
the rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EVERY = 2
"""Rows and columns that share one linear function."""
RADIUS = 2
"""Of a window, in those shared places: it is ``2 * RADIUS + 1`` of them wide."""
EVENNESS = 1e-3
"""Variance of colours, which are 0..1, from which on an edge is kept rather than smoothed over."""


class GuidedFilter:
    """Smooths maps of B images, any number of maps after one look at the images.

    Args:
        colours: ``(B, 3, h, w)`` in 0..1; h and w are even.
        inside: ``(B, h, w)`` bool; False where there is no image. All of it by default.
    """

    def __init__(self, colours: Tensor, inside: Tensor | None = None) -> None:
        self._colours = colours
        everywhere = torch.ones_like(colours[:, 0]) if inside is None else inside.to(colours.dtype)
        self._weight = _shrink(everywhere[:, None])
        self._share = _window_mean(self._weight).clamp_min(1e-6)
        guide = _shrink(colours)
        products = guide[:, :, None] * guide[:, None]
        moments = self._weighted_mean(torch.cat([guide, products.flatten(1, 2)], dim=1))
        self._guide, self._mean = guide, moments[:, :3]
        covariance = moments[:, 3:].reshape_as(products) - self._mean[:, :, None] * self._mean[:, None]
        steady = EVENNESS * torch.eye(3, device=colours.device, dtype=colours.dtype)
        self._inverse = _inverse(covariance + steady[:, :, None, None])

    def smooth(self, values: Tensor) -> Tensor:
        """Smooth maps ``(B, h, w)``; what lies where there is no image has no influence."""
        shrunk = _shrink(values[:, None])
        moments = self._weighted_mean(torch.cat([shrunk, self._guide * shrunk], dim=1))
        mean, covariance = moments[:, :1], moments[:, 1:] - self._mean * moments[:, :1]
        slope = (self._inverse * covariance[:, None]).sum(2)
        offset = mean - (slope * self._mean).sum(1, keepdim=True)
        functions = self._weighted_mean(torch.cat([slope, offset], dim=1))
        functions = F.interpolate(functions, size=values.shape[-2:], mode="bilinear", align_corners=False)
        smoothed: Tensor = (functions[:, :3] * self._colours).sum(1) + functions[:, 3]
        return smoothed

    def _weighted_mean(self, values: Tensor) -> Tensor:
        """Mean of ``(B, C, h, w)`` over as much of the window around each place as has an image."""
        return _window_mean(values * self._weight) / self._share


def _shrink(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, EVERY)


def _window_mean(values: Tensor) -> Tensor:
    """Mean over the window around each place of ``(B, C, h, w)``; beyond the map there are zeros."""
    side = 2 * RADIUS + 1
    rows = F.avg_pool2d(values, (side, 1), stride=1, padding=(RADIUS, 0))
    return F.avg_pool2d(rows, (1, side), stride=1, padding=(0, RADIUS))


def _inverse(matrices: Tensor) -> Tensor:
    """Inverse of symmetric matrices ``(B, 3, 3, h, w)``: cross products of their rows, by the determinant."""
    first, second, third = matrices.unbind(1)
    crossed = [torch.linalg.cross(*pair, dim=1) for pair in ((second, third), (third, first), (first, second))]
    determinant = (first * crossed[0]).sum(1)
    inverse: Tensor = torch.stack(crossed, dim=1) / determinant[:, None, None]
    return inverse
