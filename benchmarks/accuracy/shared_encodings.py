"""Frozen encodings that several methods have in common, so that a table of methods encodes each image once."""

from __future__ import annotations

from typing import Any

from refsam_qgis.engine.evaluation.baselines.static_prompts import StaticPromptsSegmenter
from refsam_qgis.engine.evaluation.search import DerivedEncodings, Encodings
from refsam_qgis.engine.image_folder import ImageFolder
from refsam_qgis.engine.models.fitted import FittedSegmenter
from refsam_qgis.engine.models.segmenter import ReferenceSegmenter
from refsam_qgis.engine.models.training_free import TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import FrozenEncoding, ViRefSAM, ViRefSAMSegmenter


class SharedEncodings:
    """Gives methods that look through the same SAM at the same images the same encodings.

    One of RefSAM's methods encodes for those that follow it; only the encodings of the last data set are kept.
    """

    def __init__(self) -> None:
        self._base: Encodings | None = None
        self._seen: tuple[Any, ...] = ()

    def of(self, segmenter: ReferenceSegmenter, dataset: ImageFolder, sam: str | None) -> Encodings:
        """Return encodings for a method.

        Args:
            segmenter: Behind the method.
            dataset: The images.
            sam: Digest of its SAM's weights; ``None`` where it has none.
        """
        if isinstance(segmenter, (ViRefSAMSegmenter, FittedSegmenter)):
            model = segmenter.model
            derive = segmenter.detail if isinstance(segmenter, FittedSegmenter) else _as_it_is
            return DerivedEncodings(self._of_model(model, dataset, sam), segmenter, derive)
        if self._base is not None and self._seen[:3] == (id(dataset), sam, True):
            if isinstance(segmenter, TrainingFreeSegmenter):
                return DerivedEncodings(self._base, segmenter, _as_it_is)
            if isinstance(segmenter, StaticPromptsSegmenter):
                return DerivedEncodings(self._base, segmenter, _embedding)
        encodings = Encodings(segmenter, dataset)
        if isinstance(segmenter, TrainingFreeSegmenter):
            self._base, self._seen = encodings, (id(dataset), sam, True)
        return encodings

    def _of_model(self, model: ViRefSAM, dataset: ImageFolder, sam: str | None) -> Encodings:
        seen = (id(dataset), sam, model.feature_depth == model.depth, model.feature_depth, model.prefix_depth)
        if self._base is None or self._seen != seen:
            self._base, self._seen = Encodings(ViRefSAMSegmenter(model), dataset), seen
        return self._base


def _as_it_is(frozen: FrozenEncoding) -> FrozenEncoding:
    return frozen


def _embedding(frozen: FrozenEncoding) -> Any:
    return frozen.features
