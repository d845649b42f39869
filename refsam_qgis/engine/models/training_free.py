"""Reference-guided segmentation with a stock SAM and no learned weights of ours (method B).

Prototype similarity gives a prior on the target; its threshold is calibrated on the references; each connected part of
it becomes one prompt set (point, box, mask) for SAM's decoder; masks that the prior supports are kept, and where SAM
finds none the prior itself stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .cells import average_cells
from .decoder import decode
from .prototypes import Prototypes, compute_prototypes
from .pseudo_mask import compute_pseudo_mask
from .sam import GRID, PATCH, freeze, normalise
from .segmenter import FOREGROUND, UNMARKED, Shots
from .virefsam import FrozenEncoding, encode_shots, encode_tiles


@dataclass(frozen=True)
class TrainingFreeConfig:
    """Rules of the training-free mode.

    Attributes:
        background_cells: Voronoi cells of the background per reference.
        sharpness: Factor from cosine difference to logit.
        max_components: Parts of the prior that are prompted, largest first.
        decode_batch: Prompt sets decoded together.
    """

    background_cells: int = 5
    sharpness: float = 20.0
    max_components: int = 48
    decode_batch: int = 16


@dataclass(frozen=True)
class CalibratedPrototypes:
    """Prototypes ``(1, M, 256)`` with the prior's threshold, in logits."""

    prototypes: Prototypes
    threshold: float


class TrainingFreeSegmenter:
    """`ReferenceSegmenter` that needs a SAM checkpoint and nothing else."""

    def __init__(self, sam: Any, config: TrainingFreeConfig | None = None) -> None:
        self.sam: Any = freeze(sam)
        self.config = config or TrainingFreeConfig()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.sam.device
        return device

    @torch.inference_mode()
    def describe(self, shots: Shots, encodings: Sequence[FrozenEncoding] = ()) -> CalibratedPrototypes:
        """Prototypes of one class and the threshold that marks it best on its own references."""
        features, masks = encode_shots(self.encode, shots, self.device, encodings)
        prototypes = compute_prototypes(features[None], masks[None], self.config.background_cells)
        prior = self._prior(features, prototypes)
        share, known, unmarked = (
            average_cells(chosen.float(), (GRID, GRID))
            for chosen in (masks == FOREGROUND, masks <= FOREGROUND, masks == UNMARKED)
        )
        # Where nobody looked, what is like the class may well be of it: it must not raise the threshold.
        counted = known + unmarked * (prior <= 0)
        return CalibratedPrototypes(prototypes, best_threshold(prior, share, counted))

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Encode target tiles ``(B, 3, T, T)``."""
        return encode_tiles(self.sam, images, valid, self.device)

    @torch.inference_mode()
    def segment(self, encoding: FrozenEncoding, reference: CalibratedPrototypes) -> Tensor:
        """Logits ``(B, 4h, 4w)`` of one class."""
        prior = self._prior(encoding.features, reference.prototypes) - reference.threshold
        fine = F.interpolate(prior[:, None], scale_factor=4, mode="bilinear", align_corners=False)[:, 0]
        return self.draw(encoding.features, prior, fine).float().cpu()

    def draw(self, features: Tensor, prior: Tensor, fine: Tensor) -> Tensor:
        """Let SAM's decoder draw the parts of a prior.

        Args:
            features: ``(B, 256, h, w)`` image embeddings.
            prior: ``(B, h, w)`` logits, above 0 where the class seems to be.
            fine: ``(B, 4h, 4w)`` the same in the decoder's resolution.

        Returns:
            ``(B, 4h, 4w)`` logits.
        """
        tiles = range(len(prior))
        return torch.stack([self._decode_components(features[i : i + 1], prior[i], fine[i]) for i in tiles])

    def encoding_kind(self) -> list[Any]:
        """Return how many blocks stored features and tokens have behind them."""
        return ["features", len(self.sam.image_encoder.blocks), "prefix", 0]

    def dump_encoding(self, encoding: FrozenEncoding) -> dict[str, Tensor]:
        """Return what the encoder computed as tensors to store."""
        return encoding.dump()

    @torch.inference_mode()
    def restore_encoding(self, tensors: dict[str, Tensor], images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Return the stored encoding of tiles ``(B, 3, T, T)``."""
        return FrozenEncoding.restore(tensors, normalise(images.to(self.device), valid.to(self.device), self.sam))

    def dump_reference(self, reference: CalibratedPrototypes) -> dict[str, Tensor]:
        """Return the prototypes and their threshold as tensors to store."""
        return {**reference.prototypes.dump(), "threshold": torch.tensor(reference.threshold, dtype=torch.float64)}

    def restore_reference(self, tensors: dict[str, Tensor]) -> CalibratedPrototypes:
        """Return stored prototypes with their threshold."""
        if "threshold" not in tensors:
            raise ValueError("the tensors hold no threshold")
        return CalibratedPrototypes(Prototypes.restore(tensors, self.device), float(tensors["threshold"]))

    def _prior(self, features: Tensor, prototypes: Prototypes) -> Tensor:
        return compute_pseudo_mask(features, prototypes.expand(features.shape[0]), self.config.sharpness).logits

    def _decode_components(self, features: Tensor, prior: Tensor, enlarged: Tensor) -> Tensor:
        """Masks of the prior's parts, joined: ``(4h, 4w)`` logits."""
        components = connected_components(prior > 0, self.config.max_components)
        prompted = components.any(0).repeat_interleave(4, 0).repeat_interleave(4, 1)
        # What is too small to be prompted stays as the prior has it.
        joined = torch.where(prompted, enlarged.clamp_max(0.0) - 1.0, enlarged)
        for start in range(0, len(components), self.config.decode_batch):
            chosen = components[start : start + self.config.decode_batch]
            sparse, dense = self._prompts(prior, chosen)
            repeated = features.expand(len(chosen), -1, -1, -1)
            masks, _ = decode(self.sam, repeated, self.sam.prompt_encoder.get_dense_pe(), sparse, dense)
            for mask, component in zip(masks[:, 0], chosen, strict=True):
                if _supported(mask > 0, enlarged):
                    joined = joined.maximum(mask)
                else:
                    part = component.repeat_interleave(4, 0).repeat_interleave(4, 1)
                    joined = torch.where(part, joined.maximum(enlarged), joined)
        return joined

    def _prompts(self, prior: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
        """A peak point, the box (one cell wider) and the mask logits of each part ``(N, h, w)``."""
        encoder = self.sam.prompt_encoder
        rows, columns = prior.shape
        own = torch.where(components, prior, torch.full_like(prior, -torch.inf))
        peak = own.flatten(1).argmax(1)
        points = torch.stack([peak % columns, peak // columns], dim=-1)[:, None]
        labels = torch.ones(points.shape[:2], device=prior.device)
        across, down = components.any(1), components.any(2)
        box = torch.stack(
            [
                across.int().argmax(1) - 1,
                down.int().argmax(1) - 1,
                columns - across.flip(1).int().argmax(1) + 1,
                rows - down.flip(1).int().argmax(1) + 1,
            ],
            dim=-1,
        )
        box = box.clamp(0, max(rows, columns))
        # Other parts of the prior are other objects: they are not this prompt's mask.
        logits = torch.where(components | (prior <= 0), prior, -prior)
        enlarged = F.interpolate(logits[:, None], scale_factor=4, mode="bilinear", align_corners=False)
        sparse, dense = encoder(
            points=((points + 0.5) * PATCH - 0.5, labels), boxes=box * float(PATCH) - 0.5, masks=enlarged
        )
        return sparse, dense


def best_threshold(prior: Tensor, share: Tensor, counted: Tensor) -> float:
    """Threshold on the prior that gives the best IoU with the references' own masks.

    Args:
        prior: ``(K, h, w)`` logits.
        share: ``(K, h, w)`` share of the class in each cell.
        counted: ``(K, h, w)`` share of each cell that counts.

    Returns:
        The threshold; 0 if no candidate marks the class at all.
    """
    order = prior.flatten().argsort(descending=True)
    inside = share.flatten()[order]
    outside = (counted.flatten()[order] - inside).clamp_min(0)
    iou = inside.cumsum(0) / (inside.sum() + outside.cumsum(0)).clamp_min(1e-6)
    best = int(iou.argmax())
    ranked = prior.flatten()[order]
    following = ranked[min(best + 1, len(ranked) - 1)]
    return float((ranked[best] + following) / 2) if float(iou[best]) > 0 else 0.0


def connected_components(mask: Tensor, limit: int) -> Tensor:
    """Split a mask ``(h, w)`` into its 8-connected parts, largest first: ``(N, h, w)`` bool with N <= limit."""
    rows, columns = mask.shape
    labels = torch.arange(1, rows * columns + 1, device=mask.device, dtype=torch.float32).view(1, 1, rows, columns)
    labels = labels * mask
    while True:
        spread = F.max_pool2d(labels, 3, stride=1, padding=1) * mask
        if bool((spread == labels).all()):
            break
        labels = spread
    ids, counts = torch.unique(labels[labels > 0], return_counts=True)
    largest = ids[counts.argsort(descending=True, stable=True)[:limit]]
    parts: Tensor = labels[0] == largest[:, None, None]
    return parts


def _supported(mask: Tensor, prior: Tensor) -> bool:
    """Whether the prior backs a mask: positive on average inside it (GF-SAM's gate)."""
    return bool(mask.any()) and float(prior[mask].mean()) > 0
