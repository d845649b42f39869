"""SAM guided by a class map that is fitted to the references at run time: through ViRefSAM, or without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .fitted_prior import FittedHead, FittedMap, FittedPrior, thin
from .guided_filter import GuidedFilter
from .pixel_features import COLOURS, pixel_features
from .prototypes import Prototypes
from .pseudo_mask import MASK_SCALE
from .sam import normalise
from .segmenter import Shots, encode_each
from .training_free import TrainingFreeSegmenter
from .virefsam import FrozenEncoding, ViRefSAM, ViRefSAMSegmenter, grid_masks

Plain = TypeVar("Plain", bound=ViRefSAMSegmenter | TrainingFreeSegmenter)


@dataclass(frozen=True)
class DetailedEncoding:
    """What does not depend on the class.

    Attributes:
        frozen: Of SAM's encoder.
        details: ``(B, FEATURES, S/4, S/4)`` pixel features.
        inside: ``(B, S/4, S/4)`` bool; False where there is no image.
        prior: Embeds what heads are asked about.
    """

    frozen: FrozenEncoding
    details: Tensor
    inside: Tensor
    prior: FittedPrior

    @cached_property
    def samples(self) -> Tensor:
        """What heads are asked about."""
        return thin(self.details)

    @cached_property
    def embedded(self) -> Tensor | None:
        """The same in the learned embedding, where there is one that has a say."""
        return self.prior.embed(self.samples, self.inside)

    @cached_property
    def edges(self) -> GuidedFilter:
        """Smooths answers along the edges of the tiles."""
        return GuidedFilter(self.details[:, COLOURS], self.inside)


@dataclass(frozen=True)
class FittedReference:
    """Prototypes of one class, and the head that was fitted to its references."""

    prototypes: Prototypes
    head: FittedHead


class _DetailedSegmenter(Generic[Plain]):
    """What both segmenters share: pixel features beside what another segmenter's frozen encoder says.

    Args:
        plain: The other segmenter.
        sam: Its SAM.
        prior: Fits the class map.
    """

    def __init__(self, plain: Plain, sam: Any, prior: FittedPrior) -> None:
        self._plain = plain
        self._sam = sam
        self._prior = prior

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self._plain.device

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> DetailedEncoding:
        """Encode target tiles ``(B, 3, T, T)`` without adapters, and compute their pixel features."""
        return self.detail(self._plain.encode(images, valid))

    @torch.inference_mode()
    def detail(self, frozen: FrozenEncoding) -> DetailedEncoding:
        """Put the pixel features beside what the frozen encoder says of tiles."""
        # Of normalised pixels, only those that stand for nodata and padding are zero in all colours.
        inside = (frozen.pixels[..., ::MASK_SCALE, ::MASK_SCALE] != 0).any(1)
        return DetailedEncoding(frozen, pixel_features(_colours(frozen.pixels, self._sam)), inside, self._prior)

    def _ask(self, encoding: DetailedEncoding, head: FittedHead) -> FittedMap:
        return self._prior.map(encoding.details, head, encoding.inside, encoding.samples, encoding.embedded)

    def encoding_kind(self) -> list[Any]:
        """Return how many blocks stored features and tokens have behind them."""
        return self._plain.encoding_kind()

    def dump_encoding(self, encoding: DetailedEncoding) -> dict[str, Tensor]:
        """Return what the encoder computed as tensors to store; pixel features are sooner computed again."""
        return encoding.frozen.dump()

    @torch.inference_mode()
    def restore_encoding(self, tensors: dict[str, Tensor], images: Tensor, valid: Tensor) -> DetailedEncoding:
        """Return the stored encoding of tiles ``(B, 3, T, T)``, with their pixel features."""
        return self.detail(self._plain.restore_encoding(tensors, images, valid))


class FittedSegmenter(_DetailedSegmenter[ViRefSAMSegmenter]):
    """`ReferenceSegmenter` that runs ViRefSAM with a fitted prior in the place of Eq. 3.

    Where the decoder has no say in the answer, adapters and decoder do not run, and all classes share one pass.
    """

    def __init__(self, model: ViRefSAM) -> None:
        prior = FittedPrior(model.device, model.blend.rules, model.embedding)
        super().__init__(ViRefSAMSegmenter(model), model.sam, prior)
        self.model = model
        self._asks_decoder = model.blend.asks_decoder

    @torch.inference_mode()
    def encode(self, images: Tensor, valid: Tensor) -> DetailedEncoding:
        """Encode target tiles ``(B, 3, T, T)``, no further than is asked for, and compute their pixel features."""
        return super().encode(images, valid) if self._asks_decoder else self._encode_reference(images, valid)

    def encoding_kind(self) -> list[Any]:
        """Return how many blocks stored features and tokens have behind them."""
        return self._plain.encoding_kind(only_features=not self._asks_decoder)

    @torch.inference_mode()
    def describe(self, shots: Shots, encodings: Sequence[DetailedEncoding] = ()) -> FittedReference:
        """Pool prototypes from the chips of one class and fit the prior to their pixels."""
        features, details = [], []
        for encoding in encode_each(self._encode_reference, shots, encodings):
            features.append(encoding.frozen.features)
            details.append(encoding.details)
        prototypes = self._plain.pool(torch.cat(features), grid_masks(shots.masks).to(self.device))
        return FittedReference(prototypes, self._prior.fit(torch.cat(details), shots.masks))

    @torch.inference_mode()
    def segment(self, encoding: DetailedEncoding, reference: FittedReference) -> Tensor:
        """Logits ``(B, 4h, 4w)`` of one class."""
        prior = self._ask(encoding, reference.head)
        prototypes = reference.prototypes.expand(len(prior.values))
        if self._asks_decoder:
            logits: Tensor = self.model(encoding.frozen, prototypes, prior=prior)[0]
        else:
            logits = self.model.compare(encoding.frozen, prototypes, prior)
        return encoding.edges.smooth(logits.float()).cpu()

    def _encode_reference(self, images: Tensor, valid: Tensor) -> DetailedEncoding:
        return self.detail(self._plain.encode_reference(images, valid))

    def dump_reference(self, reference: FittedReference) -> dict[str, Tensor]:
        """Return prototypes and head as tensors to store."""
        return {**reference.prototypes.dump(), **reference.head.dump()}

    def restore_reference(self, tensors: dict[str, Tensor]) -> FittedReference:
        """Return stored prototypes and head."""
        return FittedReference(Prototypes.restore(tensors, self.device), FittedHead.restore(tensors, self.device))


class FittedStockSegmenter(_DetailedSegmenter[TrainingFreeSegmenter]):
    """`ReferenceSegmenter` for a SAM without adapters: its decoder draws the parts of the fitted map."""

    def __init__(self, sam: Any) -> None:
        plain = TrainingFreeSegmenter(sam)
        super().__init__(plain, sam, FittedPrior(plain.device))

    @torch.inference_mode()
    def describe(self, shots: Shots, encodings: Sequence[DetailedEncoding] = ()) -> FittedHead:
        """Fit the map to the chips of one class; SAM is not needed for that."""
        details = [encoding.details for encoding in encodings] or [
            pixel_features(_colours(normalise(image[None], valid[None], self._sam), self._sam))
            for image, valid in zip(shots.images.to(self.device), shots.valid.to(self.device), strict=True)
        ]
        return self._prior.fit(torch.cat(details), shots.masks)

    @torch.inference_mode()
    def segment(self, encoding: DetailedEncoding, reference: FittedHead) -> Tensor:
        """Logits ``(B, 4h, 4w)`` of one class."""
        fitted = self._ask(encoding, reference)
        fine = (fitted.values + fitted.votes) / 2 if len(reference.trees) else fitted.values
        coarse = F.max_pool2d(fine[:, None], MASK_SCALE)[:, 0]  # an object smaller than a cell is an object
        return self._plain.draw(encoding.frozen.features, coarse, fine).float().cpu()

    def dump_reference(self, reference: FittedHead) -> dict[str, Tensor]:
        """Return the head as tensors to store."""
        return reference.dump()

    def restore_reference(self, tensors: dict[str, Tensor]) -> FittedHead:
        """Return a stored head."""
        return FittedHead.restore(tensors, self.device)


def _colours(pixels: Tensor, sam: Any) -> Tensor:
    """Undo the normalisation of SAM's input: ``(B, 3, S, S)`` in 0..1."""
    colours: Tensor = (pixels * sam.pixel_std + sam.pixel_mean) / 255
    return colours
