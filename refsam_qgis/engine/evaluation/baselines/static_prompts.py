"""Static reuse: SAM is prompted on the target at the very places where the reference's object lies.

The row "static reuse of point/box" of ViRefSAM's ablation: SAM is frozen, nothing is learned, and nothing is known of
the target. It shows what prompts are worth that do not follow the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.config import ViRefSAMConfig
from ...models.decoder import decode
from ...models.encoder import encode
from ...models.sam import INPUT_SIZE, freeze, normalise
from ...models.segmenter import FOREGROUND, Shots
from .marked_pixels import require_class

POINTS = ViRefSAMConfig.positive_points
"""Points inside the reference's mask: as many as ViRefSAM sets on the target."""


@dataclass(frozen=True)
class StaticPrompts:
    """Prompts of the K references, in pixels ``(x, y)`` of SAM's input as segment_anything takes them.

    Attributes:
        points: ``(K, POINTS, 2)`` float32, each inside the mask.
        boxes: ``(K, 4)`` float32 (x0, y0, x1, y1) around all that is marked.
    """

    points: Tensor
    boxes: Tensor


class StaticPromptsSegmenter:
    """A `ReferenceSegmenter` that prompts a frozen SAM with the reference's own coordinates.

    With K references, SAM answers each one's prompts and the K logits are averaged. Its encoding is the image embedding
    ``(B, 256, h, w)``.

    Args:
        sam: segment_anything's ``Sam`` module.
        seed: Seed of the points.
    """

    def __init__(self, sam: Any, seed: int = 0) -> None:
        self.sam: Any = freeze(sam)
        self._seed = seed

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.sam.device
        return device

    def describe(self, shots: Shots, encodings: Sequence[Tensor] = ()) -> StaticPrompts:
        """Take points and box from each mask; encodings tell nothing of them.

        Raises:
            RefSAMError: With code ``reference`` if no pixel is marked as the class.
        """
        require_class(shots.masks)
        rng = np.random.default_rng(self._seed)
        points, boxes = [], []
        for mask in shots.masks.numpy():
            marked = np.argwhere(mask == FOREGROUND)[:, ::-1]
            if len(marked):
                points.append(rng.choice(marked, POINTS, replace=len(marked) < POINTS) + 0.5)
                boxes.append(np.concatenate([marked.min(0), marked.max(0) + 1]))
        # From edges of pixels; the prompt encoder adds the half pixel itself.
        scale = INPUT_SIZE / shots.masks.shape[-1]
        in_input = (torch.from_numpy(np.stack(part) * scale - 0.5).float().to(self.device) for part in (points, boxes))
        return StaticPrompts(*in_input)

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        """Encode target tiles ``(B, 3, T, T)``."""
        return encode(self.sam.image_encoder, normalise(images.to(self.device), valid.to(self.device), self.sam))

    @torch.inference_mode()
    def segment(self, encoding: Tensor, reference: StaticPrompts) -> Tensor:
        """Logits ``(B, 4h, 4w)``: the mean of SAM's answers to each reference's prompts."""
        encoder = self.sam.prompt_encoder
        labels = torch.ones(reference.points.shape[:2], device=encoding.device)
        sparse, dense = encoder(points=(reference.points, labels), boxes=reference.boxes, masks=None)
        tiles = len(encoding)
        answers = [
            decode(self.sam, encoding, encoder.get_dense_pe(), tokens.expand(tiles, -1, -1), maps)[0][:, 0]
            for tokens, maps in zip(sparse.split(1), dense.split(1), strict=True)
        ]
        return torch.stack(answers).mean(0).float().cpu()
