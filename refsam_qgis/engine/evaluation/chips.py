"""Between images of any shape and the square chips that a segmenter takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.segmenter import IGNORE, Shots, resize_logits


def to_shots(images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.uint8]]) -> Shots:
    """Stack references of one class.

    All are padded on the right and at the bottom to the longest side, so that they keep one common scale.

    Args:
        images: K arrays ``(H, W, 3)`` uint8 RGB.
        masks: K arrays ``(H, W)`` uint8 of the mask values of `Shots`.
    """
    side = max(max(image.shape[:2]) for image in images)
    padded = [to_square(image, side) for image in images]
    return Shots(
        torch.cat([image for image, _ in padded]),
        torch.from_numpy(np.stack([_pad(mask, side, IGNORE) for mask in masks])),
        torch.cat([valid for _, valid in padded]),
    )


def to_square(image: NDArray[np.uint8], side: int) -> tuple[Tensor, Tensor]:
    """Pad one image on the right and at the bottom.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, no side longer than `side`.
        side: Side S of the square in pixels.

    Returns:
        The image ``(1, 3, S, S)`` uint8 and where it is valid ``(1, S, S)`` bool.
    """
    valid = np.ones(image.shape[:2], dtype=np.uint8)
    pixels = np.stack([_pad(image[..., channel], side, 0) for channel in range(3)])
    return torch.from_numpy(pixels)[None], torch.from_numpy(_pad(valid, side, 0).astype(bool))[None]


def from_square(logits: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Undo `to_square` on the logits of one tile.

    Args:
        logits: ``(T, T)`` float; T need not be the side that went in.
        height: Of the image before padding, in pixels.
        width: Of the image before padding, in pixels.

    Returns:
        ``(height, width)`` float32.
    """
    cropped: NDArray[np.float32] = resize_logits(logits[None], max(height, width))[0, :height, :width].numpy()
    return cropped


def _pad(band: NDArray[np.uint8], side: int, value: int) -> NDArray[np.uint8]:
    height, width = band.shape
    return np.pad(band, ((0, side - height), (0, side - width)), constant_values=value)
