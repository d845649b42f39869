"""A frozen SAM asked by points and boxes, with the arithmetic of segment_anything's own predictor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..job import ModelOptions
from .decoder import decode
from .encoder import encode
from .sam import INPUT_SIZE, freeze, normalise, segment_anything_modules

STABILITY_OFFSET = 1.0
"""How far, in logits, the cutoff moves both ways when a mask's stability is measured."""


@dataclass(frozen=True)
class EncodedImage:
    """An image that SAM has seen.

    Attributes:
        features: ``(1, 256, h, w)`` image embedding.
        size: Height and width of the image.
        scaled: Height and width of the image inside SAM's square input.
    """

    features: Tensor
    size: tuple[int, int]
    scaled: tuple[int, int]


@dataclass(frozen=True)
class Prompts:
    """Prompts of B objects of one image.

    Coordinates are ``(x, y)`` in pixels of the image with the centre of its first pixel at (0, 0), as segment_anything
    takes them.

    Attributes:
        points: ``(B, N, 2)`` float32; ``None`` without points.
        labels: ``(B, N)``: 1 on the object, 0 beside it; ``None`` without points.
        boxes: ``(B, 4)`` float32 (x0, y0, x1, y1); ``None`` without boxes.
    """

    points: Tensor | None = None
    labels: Tensor | None = None
    boxes: Tensor | None = None


class PromptableSegmenter:
    """SAM itself: encodes an image once and answers prompts on it.

    Args:
        sam: segment_anything's ``Sam`` module.
    """

    def __init__(self, sam: Any) -> None:
        self.sam: Any = freeze(sam)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.sam.device
        return device

    @torch.inference_mode()
    def encode(self, image: Tensor, valid: Tensor) -> EncodedImage:
        """Encode an image, scaled so that its longer side fills SAM's input.

        Args:
            image: ``(3, h, w)`` uint8 RGB on the CPU, where torch scales 8-bit pixels as Pillow does.
            valid: ``(h, w)`` bool; nodata enters the network as SAM's padding does.
        """
        height, width = int(image.shape[1]), int(image.shape[2])
        scale = INPUT_SIZE / max(height, width)
        scaled = (int(height * scale + 0.5), int(width * scale + 0.5))
        inside = F.interpolate(valid[None, None].to(torch.uint8), size=scaled, mode="nearest")[0, 0].bool()
        pixels = F.interpolate(image[None], size=scaled, mode="bilinear", align_corners=False, antialias=True)[0]
        padding = (0, INPUT_SIZE - scaled[1], 0, INPUT_SIZE - scaled[0])
        square = normalise(
            F.pad(pixels, padding)[None].to(self.device), F.pad(inside, padding)[None].to(self.device), self.sam
        )
        return EncodedImage(encode(self.sam.image_encoder, square), (height, width), scaled)

    @torch.inference_mode()
    def predict(self, image: EncodedImage, prompts: Prompts, multimask: bool) -> tuple[Tensor, Tensor]:
        """Answer prompts at SAM's own resolution.

        Args:
            image: Where to look.
            prompts: What is asked.
            multimask: Whether SAM gives three alternatives an object, rather than one mask.

        Returns:
            Logits ``(B, 1 or 3, 256, 256)`` and predicted IoU ``(B, 1 or 3)``.
        """
        points = None
        if prompts.points is not None and prompts.labels is not None:
            points = self._scaled(prompts.points, image), prompts.labels.to(self.device)
        boxes = None
        if prompts.boxes is not None:
            boxes = self._scaled(prompts.boxes.reshape(-1, 2, 2), image).reshape(-1, 4)
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=None)
        features = image.features.expand(len(sparse), -1, -1, -1)
        return decode(self.sam, features, self.sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask)

    @torch.inference_mode()
    def enlarge(self, image: EncodedImage, logits: Tensor) -> Tensor:
        """Bring logits ``(M, 256, 256)`` to the image's own pixels, ``(M, h, w)``."""
        enlarged: Tensor = self.sam.postprocess_masks(logits[:, None], image.scaled, image.size)
        return enlarged[:, 0]

    def stability(self, logits: Tensor) -> Tensor:
        """IoU ``(M,)`` of each mask ``(M, h, w)`` at a higher and at a lower cutoff; NaN for an empty mask."""
        score: Tensor = segment_anything_modules().amg.calculate_stability_score(
            logits, self.sam.mask_threshold, STABILITY_OFFSET
        )
        return score

    def _scaled(self, points: Tensor, image: EncodedImage) -> Tensor:
        """Bring points ``(B, N, 2)`` into SAM's input, on its device."""
        across, down = image.scaled[1] / image.size[1], image.scaled[0] / image.size[0]
        # In double precision and rounded once, as segment_anything does.
        scaled = points.double() * torch.tensor([across, down], dtype=torch.float64)
        return scaled.float().to(self.device)


def load_promptable(options: ModelOptions, load: Callable[[ModelOptions], Any]) -> PromptableSegmenter:
    """Return the SAM of a job; adapters and method do not matter.

    Args:
        options: Network, weights and device.
        load: Gives the segmenter for its options, warm where it can.
    """
    return PromptableSegmenter(load(stock_options(options)).sam)


def stock_options(options: ModelOptions) -> ModelOptions:
    """Return the options of the stock SAM in a job's network, which the training-free method runs too."""
    return dataclasses.replace(options, method="training_free", adapters=None)
