"""What the raster path, the evaluation and the baselines ask of a reference-guided segmenter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Encoding = TypeVar("Encoding")

BACKGROUND = 0
"""Mask value of pixels known not to be of the class."""
FOREGROUND = 1
"""Mask value of pixels marked as the class."""
UNMARKED = 254
"""Mask value of pixels nobody looked at: background unless they look like the class (partial annotation)."""
IGNORE = 255
"""Mask value of pixels that count neither as class nor as background."""


@dataclass(frozen=True)
class Shots:
    """K reference chips of one class.

    Attributes:
        images: ``(K, 3, S, S)`` uint8 RGB.
        masks: ``(K, S, S)`` uint8 of `BACKGROUND`, `FOREGROUND`, `UNMARKED` or `IGNORE`.
        valid: ``(K, S, S)`` bool; False where there is no image (nodata, beyond the raster). `masks` is `IGNORE` there.
    """

    images: Tensor
    masks: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        k, channels, height, width = self.images.shape
        if channels != 3 or self.masks.shape != (k, height, width) or self.valid.shape != self.masks.shape:
            raise ValueError("images must be (K, 3, S, S), masks and valid (K, S, S)")
        if self.images.dtype != torch.uint8 or self.masks.dtype != torch.uint8 or self.valid.dtype != torch.bool:
            raise TypeError("images and masks must be uint8, valid bool")


def encode_each(
    encode: Callable[[Tensor, Tensor], Encoding], shots: Shots, encodings: Sequence[Encoding] = ()
) -> Iterator[Encoding]:
    """Yield the encoding of each chip, one by one: who keeps only a part of each never has all of them in memory.

    Args:
        encode: As `ReferenceSegmenter.encode`.
        shots: The chips.
        encodings: Those of the chips, where the caller has them already.
    """
    if encodings:
        yield from encodings
    else:
        for image, valid in zip(shots.images, shots.valid, strict=True):
            yield encode(image[None], valid[None])


class ReferenceSegmenter(Protocol):
    """Finds the class of reference chips in target tiles.

    The frozen encoding of a target is the same for every class, so it is computed once and passed to `segment`
    for each of them.
    """

    @property
    def device(self) -> torch.device:
        """Where the model runs."""

    def describe(self, shots: Shots, encodings: Sequence[Any] = ()) -> Any:
        """Condense the reference chips of one class (of any side; they are scaled to the model's input).

        Args:
            shots: The chips.
            encodings: What `encode` returned for each chip alone, where the caller has them already.
        """

    def encode(self, images: Tensor, valid: Tensor) -> Any:
        """Encode target tiles with the frozen encoder.

        Args:
            images: ``(B, 3, T, T)`` uint8 RGB of any side T; scaled to the model's input.
            valid: ``(B, T, T)`` bool; False pixels enter the network as SAM's padding does.
        """

    def segment(self, encoding: Any, reference: Any) -> Tensor:
        """Return the logits of one described class on encoded targets.

        Returns:
            ``(B, h, w)`` float32 on the CPU at the model's own resolution; `resize_logits` brings them to the tile's.
        """


def resize_logits(logits: Tensor, side: int) -> Tensor:
    """Scale logits (never labels) to the side of their tile.

    Args:
        logits: ``(B, h, w)`` float of square tiles.
        side: Side T in pixels.

    Returns:
        ``(B, T, T)`` float32 on the CPU.
    """
    own = logits.float().cpu()
    if own.shape[-2:] == (side, side):
        return own
    return F.interpolate(own[:, None], size=(side, side), mode="bilinear", align_corners=False)[:, 0]
