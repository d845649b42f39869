"""Views that the learned embedding is taught by: pixel features and classes, drawn once and used in many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..models.fitted_prior import EVERY, thin
from ..models.pixel_features import STRIDE, pixel_features
from .sources import CALIBRATION_CLASSES, STYLE_CLASSES, TEST_CLASSES, Place, generated_classes, generated_place
from .views import LabelledImage, augment

SPACING = STRIDE * EVERY
"""Pixels from one place of a view to the next."""
UNKNOWN = 0
"""Number of a class that nobody may ask for: background of all others. What nobody labelled is `UNLABELLED`."""
UNLABELLED = -1


@dataclass(frozen=True)
class PoolConfig:
    """What is drawn.

    Attributes:
        generated: Generated places.
        real: Draws of real places, which take turns.
        views: Views of a draw, all at nearly one ground sample distance.
        window: Side of a view in input pixels.
        scales: Range of the ground sample distances of different draws, as a power of two.
        plain_share: Share of the views that keep their colours.
        seed: Of every draw.
    """

    generated: int = 700
    real: int = 150
    views: int = 4
    window: int = 512
    scales: float = 2.0
    plain_share: float = 1 / 3
    seed: int = 0


@dataclass(frozen=True)
class PlaceViews:
    """Views of one place.

    Attributes:
        features: ``(V, n, FEATURES)`` float16.
        classes: ``(V, n)`` int64 of names in `names`, `UNKNOWN` or `UNLABELLED`.
        names: Classes that may be asked for here.
        own: Those of them that no other place has.
    """

    features: Tensor
    classes: Tensor
    names: tuple[str, ...]
    own: frozenset[str]


class ViewPool(Dataset[PlaceViews]):
    """Item i is the i-th draw; equal for equal configuration and index. Generated places come first."""

    def __init__(self, config: PoolConfig, real: Sequence[Place]) -> None:
        self._config = config
        self._real = list(real)

    def __len__(self) -> int:
        return self._config.generated + (self._config.real if self._real else 0)

    def __getitem__(self, index: int) -> PlaceViews:
        config = self._config
        rng = np.random.default_rng([config.seed, index])
        generated = index < config.generated
        if generated:
            place: Place = generated_place(rng, f"generated/{index}", generated_classes())
            names = sorted(set(place.class_names()) - CALIBRATION_CLASSES - TEST_CLASSES)
        else:
            place = self._real[(index - config.generated) % len(self._real)]
            names = sorted(place.class_names())
        base = config.window * 2.0 ** -rng.uniform(0, config.scales)
        drawn = []
        for _ in range(config.views):
            focus = names[int(rng.integers(len(names)))]
            native = min(config.window, round(base * 2.0 ** rng.uniform(-0.3, 0.3)))
            recolour = float(rng.random() >= config.plain_share)
            drawn.append(augment(place.draw(rng, native, focus), rng, config.window, recolour))
        classes = torch.stack([_number(view, place, names) for view in drawn])
        styled = {name: f"{name} of {index}" for name in names if generated and name in STYLE_CLASSES}
        known = tuple(styled.get(name, name) for name in names)
        return PlaceViews(torch.stack([_features(view) for view in drawn]), classes, known, frozenset(styled.values()))


def draw_pool(config: PoolConfig, real: Sequence[Place], workers: int) -> list[PlaceViews]:
    """Draw all views, about 2 MB of memory a place."""
    loader = DataLoader(ViewPool(config, real), batch_size=None, num_workers=workers)
    # Copies: what a worker shares holds a file open each.
    return [replace(views, features=views.features.clone(), classes=views.classes.clone()) for views in loader]


def _features(view: LabelledImage) -> Tensor:
    colours = torch.from_numpy(np.ascontiguousarray(view.image.transpose(2, 0, 1)))[None].float() / 255
    return thin(pixel_features(colours))[0].flatten(0, 1).half()


def _number(view: LabelledImage, place: Place, names: Sequence[str]) -> Tensor:
    """Classes in the middles of the places, numbered from 1 as `names` lists them."""
    middle = view.classes[SPACING // 2 :: SPACING, SPACING // 2 :: SPACING].astype(np.int64)
    numbered = np.full_like(middle, UNKNOWN)
    for number, name in enumerate(names, start=1):
        numbered[middle == place.class_id(name)] = number
    numbered[middle == view.ignore] = UNLABELLED
    return torch.from_numpy(numbered.ravel())
