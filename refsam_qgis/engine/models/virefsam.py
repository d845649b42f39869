"""ViRefSAM: a frozen SAM, the VCP encoder and the DTA adapters put together (method A1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RefSAMError
from .blend import PriorBlend
from .config import ViRefSAMConfig
from .decoder import decode, dense_position
from .dta import DTAAdapters, adapted_blocks
from .embedding import PixelEmbedding
from .encoder import attend_tokens, embed_patches, encode, project, run_blocks
from .fitted_prior import FittedMap
from .prototypes import Prototypes, compute_prototypes
from .pseudo_mask import PseudoMask, geometric_prompts
from .sam import GRID, freeze, normalise
from .segmenter import Shots, encode_each
from .vcp import VCPEncoder


@dataclass(frozen=True)
class FrozenEncoding:
    """What the frozen encoder says of B tiles; the same for every class.

    Attributes:
        pixels: ``(B, 3, S, S)`` normalised input.
        features: ``(B, 256, h, w)`` frozen image embedding, or the inner features that a model looks at in its place.
        prefix: ``(B, h, w, d)`` tokens that enter the model's first adapted block; ``None`` where nobody kept them.
        attended: ``(B, h, w, d)`` what that block's attention makes of them, on which the class has no influence yet;
            ``None`` where there is no such block, or nobody kept it.
    """

    pixels: Tensor
    features: Tensor
    prefix: Tensor | None = None
    attended: Tensor | None = None

    def dump(self) -> dict[str, Tensor]:
        """Return what the encoder computed as tensors to store."""
        kept = {"features": self.features, "prefix": self.prefix, "attended": self.attended}
        return {name: tensor.cpu() for name, tensor in kept.items() if tensor is not None}

    @classmethod
    def restore(cls, tensors: dict[str, Tensor], pixels: Tensor) -> FrozenEncoding:
        """Return a stored encoding of normalised pixels ``(B, 3, S, S)``, on their device.

        Raises:
            ValueError: If the tensors are those of something else.
        """
        if "features" not in tensors or len(tensors["features"]) != len(pixels):
            raise ValueError("the tensors hold no features of as many tiles")
        kept = {name: value.to(pixels.device) for name, value in tensors.items() if name in ("prefix", "attended")}
        # As the encoder leaves them: sums over another order in memory round in another way.
        features = tensors["features"].to(pixels.device).contiguous(memory_format=torch.channels_last)
        return cls(pixels, features, **kept)


class ViRefSAM(nn.Module):
    """Segments the class of reference prototypes in target tiles.

    Only `vcp`, `dta` and `blend` hold trainable weights; SAM is frozen.

    Raises:
        RefSAMError: With code ``checkpoint`` when the configuration names blocks that the encoder does not have.
    """

    def __init__(self, sam: Any, config: ViRefSAMConfig | None = None) -> None:
        super().__init__()
        self.config = config or ViRefSAMConfig()
        self.sam: Any = freeze(sam)
        self.vcp = VCPEncoder(self.config)
        self.blend = PriorBlend()
        # Learned by a training of its own, whatever SAM it stands beside.
        self.embedding = PixelEmbedding(self.config.embedding).requires_grad_(False) if self.config.embedding else None
        encoder = sam.image_encoder
        self.depth = len(encoder.blocks)
        adapted = adapted_blocks(encoder, self.config.adapted_blocks)
        token_width = encoder.patch_embed.proj.out_channels
        self.dta = DTAAdapters(token_width, adapted, self.config.adapter_width, self.config.position_code)
        # Blocks that lie behind the frozen features, and behind the tokens that the second pass starts from.
        self.feature_depth = _feature_depth(self.config.feature_block, self.depth)
        self.prefix_depth = adapted[0] if adapted else self.depth

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        device: torch.device = self.sam.device
        return device

    def take_embedding(self, embedding: PixelEmbedding) -> None:
        """Use a learned embedding of pixel features, whatever it was learned beside."""
        self.embedding = embedding.requires_grad_(False).to(self.device)
        self.config = replace(self.config, embedding=embedding.width)

    def train(self, mode: bool = True) -> ViRefSAM:
        """Switch the trainable parts to training; SAM stays in evaluation mode."""
        super().train(mode)
        self.sam.eval()
        return self

    def trainable_state(self) -> dict[str, Tensor]:
        """Weights of the prompt encoder and the adapters, without SAM."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("sam.")}

    def encode(self, pixels: Tensor, origin: tuple[int, int] = (0, 0), only_features: bool = False) -> FrozenEncoding:
        """Run the encoder without adapters, no further than features and second pass need it.

        Args:
            pixels: ``(B, 3, S, S)`` normalised input.
            origin: As for `forward`.
            only_features: Leave out what only a target needs; a reference is not segmented.
        """
        encoder, checkpointing = self.sam.image_encoder, self._checkpoints(pixels)
        tokens = embed_patches(encoder, pixels, origin)
        reached = {0: tokens}
        # What enters block 0 is sooner computed again than kept with every encoding.
        prefix_depth = 0 if only_features else self.prefix_depth
        for depth in sorted({self.feature_depth, prefix_depth} - {0}):
            tokens = run_blocks(encoder, tokens, range(max(reached), depth), checkpointing=checkpointing)
            reached[depth] = tokens
        features = project(encoder, reached[self.feature_depth])
        if not prefix_depth:
            return FrozenEncoding(pixels, features)
        prefix = reached[prefix_depth]
        attended = attend_tokens(encoder.blocks[prefix_depth], prefix) if prefix_depth < self.depth else None
        return FrozenEncoding(pixels, features, prefix, attended)

    def forward(
        self,
        encoding: FrozenEncoding,
        prototypes: Prototypes,
        origin: tuple[int, int] = (0, 0),
        prior: FittedMap | None = None,
    ) -> tuple[Tensor, PseudoMask, Tensor]:
        """Segment B targets, each by its own prototypes.

        Args:
            encoding: What `encode` says of the targets.
            prototypes: Prototypes of each episode.
            origin: Row and column, in tokens, of a training window inside the full frame.
            prior: A class map ``(B, 4h, 4w)`` fitted to the references. It stands in the place of the prototypes'
                cosine (Eq. 3): its cell averages are the pseudo-mask, and it is itself the mask prompt; and it is
                blended with what SAM's decoder draws and what the prototypes say.

        Returns:
            Logits ``(B, 4h, 4w)``, the pseudo-mask, and the object-aware embeddings ``(B, N_q, 256)``, of
            which there are none where the configuration leaves them out.
        """
        features = encoding.features
        rows, columns = features.shape[-2:]
        if prior is not None:
            prior = self._calibrated(prior)
        mask = None if prior is None else prior.values
        position = self.dense_position((rows, columns), origin)
        refined, pseudo, embeddings = self.vcp(features, position, prototypes, mask)
        sparse, dense = geometric_prompts(
            self.sam, pseudo.logits, self.config.positive_points, self.config.negative_points, origin, mask
        )
        adapted = self._adapt(encoding, refined.vectors, pseudo.assignment, origin)
        # Geometry first, learned tokens last (VRP-SAM's order).
        decoded, _ = decode(self.sam, adapted, position, torch.cat([sparse, embeddings], dim=1), dense)
        logits = decoded[:, 0]
        if prior is not None:
            logits = self.blend(logits, prior, pseudo)
        return logits, pseudo, embeddings

    def compare(self, encoding: FrozenEncoding, prototypes: Prototypes, prior: FittedMap) -> Tensor:
        """Logits ``(B, 4h, 4w)`` where SAM's decoder has no say: what `forward` answers then, without asking it.

        Arguments as for `forward`; of the encoding, the features are enough.
        """
        prior = self._calibrated(prior)
        _, pseudo = self.vcp.compare(encoding.features, prototypes, prior.values)
        logits: Tensor = self.blend(None, prior, pseudo)
        return logits

    def _calibrated(self, prior: FittedMap) -> FittedMap:
        return replace(prior, values=self.blend.calibrate(prior.values))

    def _adapt(
        self, encoding: FrozenEncoding, prototypes: Tensor, assignment: Tensor, origin: tuple[int, int]
    ) -> Tensor:
        """Run the second encoder pass, from the first adapted block on: ``(B, 256, h, w)``."""
        if self.prefix_depth == self.feature_depth == self.depth:
            return encoding.features
        encoder, checkpointing = self.sam.image_encoder, self._checkpoints(encoding.pixels)
        tokens = encoding.prefix
        if tokens is None:
            tokens = embed_patches(encoder, encoding.pixels, origin)
            tokens = run_blocks(encoder, tokens, range(self.prefix_depth), checkpointing=checkpointing)
        adapters = self.dta.bind(prototypes, assignment)
        blocks = range(self.prefix_depth, self.depth)
        tokens = run_blocks(encoder, tokens, blocks, adapters, checkpointing, encoding.attended)
        return project(encoder, tokens)

    def _checkpoints(self, pixels: Tensor) -> bool:
        """Whether blocks are recomputed in the backward pass: large windows would keep too much."""
        return self.training and torch.is_grad_enabled() and pixels.shape[-1] > 512

    def dense_position(self, size: tuple[int, int], origin: tuple[int, int]) -> Tensor:
        """SAM's positional encoding ``(1, 256, h, w)`` of a window of the grid."""
        return dense_position(self.sam, size, origin)


class ViRefSAMSegmenter:
    """`ReferenceSegmenter` that runs ViRefSAM."""

    def __init__(self, model: ViRefSAM) -> None:
        self.model = model.eval()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    @torch.inference_mode()
    def describe(self, shots: Shots, encodings: Sequence[FrozenEncoding] = ()) -> Prototypes:
        """Prototypes of one class, shape ``(1, 1 + K*N_b, 256)``."""
        features, masks = encode_shots(self.encode_reference, shots, self.device, encodings)
        return self.pool(features, masks)

    def pool(self, features: Tensor, masks: Tensor) -> Prototypes:
        """Prototypes of features ``(K, 256, h, w)`` and masks ``(K, H, W)`` no smaller than their grid."""
        return compute_prototypes(features[None], masks[None], self.model.config.background_cells)

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Encode target tiles ``(B, 3, T, T)`` without adapters."""
        return self.model.encode(self._normalise(images, valid))

    @torch.inference_mode()
    def encode_reference(self, images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Encode reference chips ``(B, 3, T, T)``, as far as describing them needs it."""
        return self.model.encode(self._normalise(images, valid), only_features=True)

    @torch.inference_mode()
    def segment(self, encoding: FrozenEncoding, reference: Prototypes) -> Tensor:
        """Logits ``(B, 4h, 4w)`` of one class."""
        logits: Tensor = self.model(encoding, reference.expand(encoding.features.shape[0]))[0]
        return logits.float().cpu()

    def encoding_kind(self, only_features: bool = False) -> list[Any]:
        """Return how many blocks stored features and tokens have behind them.

        Args:
            only_features: As for `ViRefSAM.encode`.
        """
        features = ["features", self.model.feature_depth]
        if only_features:
            return features
        attended = ["attended"] if 0 < self.model.prefix_depth < self.model.depth else []
        return [*features, "prefix", self.model.prefix_depth, *attended]

    def dump_encoding(self, encoding: FrozenEncoding) -> dict[str, Tensor]:
        """Return what the encoder computed as tensors to store."""
        return encoding.dump()

    @torch.inference_mode()
    def restore_encoding(self, tensors: dict[str, Tensor], images: Tensor, valid: Tensor) -> FrozenEncoding:
        """Return the stored encoding of tiles ``(B, 3, T, T)``."""
        return FrozenEncoding.restore(tensors, self._normalise(images, valid))

    def dump_reference(self, reference: Prototypes) -> dict[str, Tensor]:
        """Return the prototypes as tensors to store."""
        return reference.dump()

    def restore_reference(self, tensors: dict[str, Tensor]) -> Prototypes:
        """Return stored prototypes."""
        return Prototypes.restore(tensors, self.device)

    def _normalise(self, images: Tensor, valid: Tensor) -> Tensor:
        return normalise(images.to(self.device), valid.to(self.device), self.model.sam)


def encode_shots(
    encode_one: Callable[[Tensor, Tensor], FrozenEncoding],
    shots: Shots,
    device: torch.device,
    encodings: Sequence[FrozenEncoding] = (),
) -> tuple[Tensor, Tensor]:
    """Encode the reference chips one by one; features ``(K, 256, h, w)`` and masks no smaller than their grid."""
    features = [encoding.features for encoding in encode_each(encode_one, shots, encodings)]
    return torch.cat(features), grid_masks(shots.masks).to(device)


def encode_tiles(sam: Any, images: Tensor, valid: Tensor, device: torch.device) -> FrozenEncoding:
    """Scale, normalise and pad tiles as SAM does, and run its frozen encoder."""
    pixels = normalise(images.to(device), valid.to(device), sam)
    return FrozenEncoding(pixels, encode(sam.image_encoder, pixels))


def _feature_depth(block: int | None, depth: int) -> int:
    """Blocks that the features have behind them."""
    if block is None:
        return depth
    if not 0 <= block < depth:
        raise RefSAMError("checkpoint", f"Features of block {block} do not exist in an encoder of {depth} blocks.")
    return block + 1


def grid_masks(masks: Tensor) -> Tensor:
    """Repeat the pixels of masks ``(..., S, S)`` smaller than the feature grid, so that cell averages are defined."""
    factor = -(-GRID // masks.shape[-1])
    return masks.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2) if factor > 1 else masks
