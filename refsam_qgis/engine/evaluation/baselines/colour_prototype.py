"""Nearest colour prototype: a pixel is of the class if its colour is nearer to the class's than to the background's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from ...models.segmenter import FOREGROUND, Shots, encode_each
from .marked_pixels import background_value, require_class

PROTOTYPES = 3
"""Colours of the class, and of background, at the most.

As many on either side: with more of one side some of them is always nearer, and the other side shrinks.
"""
MAX_PIXELS = 20_000
"""Pixels of class and of background each that prototypes are made of, drawn from every reference in equal number."""
UNIT = 5.0
"""Difference of the two distances, in CIE Lab (where 2.3 is just noticeable), that makes one logit."""
CERTAIN = 20.0
"""Logit of every pixel where the references hold no background to compare with."""

_TO_XYZ = torch.tensor(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB to CIE XYZ (IEC 61966-2-1)."""


@dataclass(frozen=True)
class ColourPrototypes:
    """Colours in CIE Lab.

    Attributes:
        of_class: ``(1..PROTOTYPES, 3)`` float32.
        others: ``(0..PROTOTYPES, 3)`` float32.
    """

    of_class: Tensor
    others: Tensor


class ColourPrototypeSegmenter:
    """A `ReferenceSegmenter` that compares colours; its encoding is the tile in CIE Lab.

    Args:
        seed: Seed of the pixel samples and of the clustering.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def describe(self, shots: Shots, encodings: Sequence[Tensor] = ()) -> ColourPrototypes:
        """Cluster the colours of the marked pixels.

        Raises:
            RefSAMError: With code ``reference`` if no pixel is marked as the class.
        """
        require_class(shots.masks)
        tiles = [encoding[0].permute(1, 2, 0).numpy() for encoding in encode_each(self.encode, shots, encodings)]
        masks = shots.masks.numpy()
        return ColourPrototypes(
            self._cluster(tiles, masks == FOREGROUND),
            self._cluster(tiles, masks == background_value(shots.masks)),
        )

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        """Turn tiles ``(B, 3, T, T)`` uint8 sRGB into CIE Lab, ``(B, 3, T, T)`` float32."""
        return srgb_to_lab(images.cpu())

    def segment(self, encoding: Tensor, reference: ColourPrototypes) -> Tensor:
        """Return how much nearer the class's colours are than the background's, ``(B, T, T)`` float32 in `UNIT`."""
        pixels = encoding.permute(0, 2, 3, 1)
        if not len(reference.others):
            return torch.full(pixels.shape[:3], CERTAIN)
        to_class, to_others = (_nearest(pixels, colours) for colours in (reference.of_class, reference.others))
        return (to_others - to_class) / UNIT

    def _cluster(self, tiles: Sequence[NDArray[np.float32]], chosen: NDArray[np.bool_]) -> Tensor:
        """Up to `PROTOTYPES` colours ``(N, 3)`` of the chosen pixels ``(K, S, S)`` of tiles ``(S, S, 3)``."""
        rng = np.random.default_rng(self._seed)
        quota = MAX_PIXELS // len(tiles)
        colours = np.concatenate(
            [
                tile[tuple(rng.permutation(np.argwhere(inside))[:quota].T)]
                for tile, inside in zip(tiles, chosen, strict=True)
            ]
        )
        distinct = min(PROTOTYPES, len(np.unique(colours, axis=0)))
        if not distinct:
            return torch.zeros(0, 3)
        means = KMeans(distinct, n_init=1, random_state=self._seed).fit(colours)
        return torch.from_numpy(means.cluster_centers_.astype(np.float32))


def srgb_to_lab(images: Tensor) -> Tensor:
    """Turn 8-bit sRGB into CIE 1976 L*a*b* under D65.

    Args:
        images: ``(B, 3, H, W)`` uint8.

    Returns:
        ``(B, 3, H, W)`` float32: L* in 0..100, a* and b* about -110..110.
    """
    coded = images.float() / 255
    linear = torch.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)
    white = _TO_XYZ.sum(1)
    x, y, z = (torch.einsum("ij,bjhw->bihw", _TO_XYZ / white[:, None], linear)).unbind(1)
    root_x, root_y, root_z = (_lab_root(value) for value in (x, y, z))
    return torch.stack([116 * root_y - 16, 500 * (root_x - root_y), 200 * (root_y - root_z)], dim=1)


def _lab_root(value: Tensor) -> Tensor:
    """Cube root, with CIE's straight line near black."""
    delta = 6 / 29
    return torch.where(value > delta**3, value.clamp_min(delta**3) ** (1 / 3), value / (3 * delta**2) + 4 / 29)


def _nearest(pixels: Tensor, colours: Tensor) -> Tensor:
    """Distance of pixels ``(..., 3)`` to the nearest of colours ``(N, 3)``."""
    each = torch.cdist(pixels.reshape(-1, 3), colours, compute_mode="donot_use_mm_for_euclid_dist")
    return each.amin(-1).reshape(pixels.shape[:-1])
