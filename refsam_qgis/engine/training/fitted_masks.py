"""Pseudo-masks as a prior gives them that was fitted to another view of the same place."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.fitted_prior import FittedPrior
from ..models.pixel_features import pixel_features
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE
from .episodes import LEAST_SHARE
from .views import LabelledImage


class FittedMasks:
    """Fits a prior to one view, class by class, and asks it about the other.

    Args:
        prior: Fits, on the CPU.
        target: The view that is asked about.
        reference: The view that is fitted to.
    """

    def __init__(self, prior: FittedPrior, target: LabelledImage, reference: LabelledImage) -> None:
        self._prior = prior
        self._target = target
        self._reference = reference

    def __call__(self, class_id: int) -> NDArray[np.float32] | None:
        """Logits ``(S/4, S/4)`` of a class; ``None`` where the reference holds too little of it."""
        classes = self._reference.classes
        mask = np.where(classes == class_id, FOREGROUND, BACKGROUND).astype(np.uint8)
        mask[classes == self._reference.ignore] = IGNORE
        if (mask == FOREGROUND).mean() < LEAST_SHARE:
            return None
        head = self._prior.fit(self._of_reference, torch.from_numpy(mask)[None])
        said: NDArray[np.float32] = self._prior.logits(self._of_target, head)[0].numpy()
        return said

    @cached_property
    def _of_target(self) -> Tensor:
        return _features(self._target)

    @cached_property
    def _of_reference(self) -> Tensor:
        return _features(self._reference)


def _features(view: LabelledImage) -> Tensor:
    return pixel_features(torch.from_numpy(view.image.transpose(2, 0, 1).copy())[None].float() / 255)
