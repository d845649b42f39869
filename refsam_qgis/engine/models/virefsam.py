"""ViRefSAM: a frozen SAM, the VCP encoder and the DTA adapters put together (method A1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .config import ViRefSAMConfig
from .decoder import decode
from .dta import DTAAdapters
from .encoder import encode
from .prototypes import Prototypes, compute_prototypes
from .pseudo_mask import PseudoMask, geometric_prompts
from .sam import GRID, freeze, normalise
from .segmenter import Shots
from .vcp import VCPEncoder


@dataclass(frozen=True)
class FrozenEncoding:
    """What the frozen encoder says of B tiles; the same for every class.

    Attributes:
        pixels: ``(B, 3, S, S)`` normalised input.
        features: ``(B, 256, h, w)`` frozen image embedding.
    """

    pixels: Tensor
    features: Tensor


class ViRefSAM(nn.Module):
    """Segments the class of reference prototypes in target tiles.

    Only `vcp` and `dta` hold trainable weights; SAM is frozen.
    """

    def __init__(self, sam: Any, config: ViRefSAMConfig | None = None) -> None:
        super().__init__()
        self.config = config or ViRefSAMConfig()
        self.sam: Any = freeze(sam)
        self.vcp = VCPEncoder(self.config)
        encoder = sam.image_encoder
        token_width = encoder.patch_embed.proj.out_channels
        self.dta = DTAAdapters(token_width, len(encoder.blocks), self.config.adapter_width)

    def train(self, mode: bool = True) -> ViRefSAM:
        """Switch the trainable parts to training; SAM stays in evaluation mode."""
        super().train(mode)
        self.sam.eval()
        return self

    def trainable_state(self) -> dict[str, Tensor]:
        """Weights of the prompt encoder and the adapters, without SAM."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("sam.")}

    def forward(
        self, encoding: FrozenEncoding, prototypes: Prototypes, origin: tuple[int, int] = (0, 0)
    ) -> tuple[Tensor, PseudoMask, Tensor]:
        """Segment B targets, each by its own prototypes.

        Args:
            encoding: Frozen encoding of the targets.
            prototypes: Prototypes of each episode.
            origin: Row and column, in tokens, of a training window inside the full frame.

        Returns:
            Logits ``(B, 4h, 4w)``, the pseudo-mask, and the object-aware embeddings ``(B, N_q, 256)``.
        """
        features = encoding.features
        rows, columns = features.shape[-2:]
        position = self.dense_position((rows, columns), origin)
        refined, pseudo, embeddings = self.vcp(features, position, prototypes)
        sparse, dense = geometric_prompts(
            self.sam, pseudo.logits, self.config.positive_points, self.config.negative_points, origin
        )
        adapted = encode(
            self.sam.image_encoder,
            encoding.pixels,
            self.dta.bind(refined.vectors, pseudo.assignment),
            origin,
            checkpointing=self.training and encoding.pixels.shape[-1] > 512,
        )
        # Geometry first, learned tokens last (VRP-SAM's order).
        logits, _ = decode(self.sam, adapted, position, torch.cat([sparse, embeddings], dim=1), dense)
        return logits[:, 0], pseudo, embeddings

    def dense_position(self, size: tuple[int, int], origin: tuple[int, int]) -> Tensor:
        """SAM's positional encoding ``(1, 256, h, w)`` of a window of the grid."""
        top, left = origin
        full: Tensor = self.sam.prompt_encoder.get_dense_pe()
        return full[..., top : top + size[0], left : left + size[1]]


class ViRefSAMSegmenter:
    """`ReferenceSegmenter` that runs ViRefSAM."""

    def __init__(self, model: ViRefSAM) -> None:
        self.model = model.eval()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.vcp.queries.device

    @torch.inference_mode()
    def describe(self, shots: Shots, encodings: Sequence[FrozenEncoding] = ()) -> Prototypes:
        """Prototypes of one class, shape ``(1, 1 + K*N_b, 256)``."""
        features, masks = encode_shots(self.model.sam, shots, self.device, encodings)
        return compute_prototypes(features[None], masks[None], self.model.config.background_cells)

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Encode target tiles ``(B, 3, T, T)`` without adapters."""
        return encode_tiles(self.model.sam, images, valid, self.device)

    @torch.inference_mode()
    def segment(self, encoding: FrozenEncoding, reference: Prototypes) -> Tensor:
        """Logits ``(B, 4h, 4w)`` of one class."""
        logits: Tensor = self.model(encoding, reference.expand(encoding.features.shape[0]))[0]
        return logits.float().cpu()

    def dump_reference(self, reference: Prototypes) -> dict[str, Tensor]:
        """Return the prototypes as tensors to store."""
        return reference.dump()

    def restore_reference(self, tensors: dict[str, Tensor]) -> Prototypes:
        """Return stored prototypes."""
        return Prototypes.restore(tensors, self.device)


def encode_shots(
    sam: Any, shots: Shots, device: torch.device, encodings: Sequence[FrozenEncoding] = ()
) -> tuple[Tensor, Tensor]:
    """Encode the reference chips one by one; features ``(K, 256, h, w)`` and masks no smaller than their grid."""
    encodings = encodings or [
        encode_tiles(sam, shots.images[k : k + 1], shots.valid[k : k + 1], device) for k in range(shots.images.shape[0])
    ]
    return torch.cat([encoding.features for encoding in encodings]), _grid_masks(shots.masks).to(device)


def encode_tiles(sam: Any, images: Tensor, valid: Tensor, device: torch.device) -> FrozenEncoding:
    """Scale, normalise and pad tiles as SAM does, and run its frozen encoder."""
    pixels = normalise(images.to(device), valid.to(device), sam)
    return FrozenEncoding(pixels, encode(sam.image_encoder, pixels))


def _grid_masks(masks: Tensor) -> Tensor:
    """Repeat the pixels of masks ``(..., S, S)`` smaller than the feature grid, so that cell averages are defined."""
    factor = -(-GRID // masks.shape[-1])
    return masks.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2) if factor > 1 else masks
