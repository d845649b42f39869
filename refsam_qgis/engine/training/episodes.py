"""Few-shot episodes for stage 2: K annotated references of a class, and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..annotation import partial, scribble
from ..errors import RefSAMError
from ..models.sam import GRID, INPUT_SIZE, PATCH
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE
from .sources import STYLE_CLASSES, Place, generated_classes, generated_place
from .views import LabelledImage, augment

T = TypeVar("T")

LEAST_SHARE = 0.002
"""Smallest part of a reference that its class may cover."""
CLOSEST = 4
"""Most input pixels along a side that a pixel of an image is drawn as."""
MOST_DRAWS = 2000
"""Draws of an episode that may hold too little of their class before the search is given up."""


@dataclass(frozen=True)
class EpisodeConfig:
    """How episodes are drawn.

    Attributes:
        steps: Batches.
        batch: Episodes in a batch.
        window: Side of the views in input pixels.
        shots: Numbers of references, one drawn for each batch.
        real_share: Share of episodes from real images, where there are some.
        other_place_share: Share of generated episodes whose references come from another place.
        without_focus_share: Share of targets drawn without regard to the class; many hold none of it.
        partial_share: Share of references of which only some objects are marked.
        scribble_share: Share of references that are scribbled on.
        recolour: Share of the usual change of colour, by which reference and target come to differ.
        seed: Seed of every random draw.
    """

    steps: int = 2000
    batch: int = 4
    window: int = 512
    shots: tuple[int, ...] = (1, 1, 1, 2, 3)
    real_share: float = 0.25
    other_place_share: float = 0.2
    without_focus_share: float = 0.15
    partial_share: float = 0.15
    scribble_share: float = 0.2
    recolour: float = 1.0
    seed: int = 0


class Episodes(Dataset[dict[str, Any]]):
    """Item i is the i-th batch of episodes; equal for equal configuration and index."""

    def __init__(
        self,
        config: EpisodeConfig,
        real: Sequence[Place],
        classes: Sequence[str] | None = None,
        stream: int = 2,
        support: Sequence[Place] = (),
    ) -> None:
        """Set what is drawn from.

        Args:
            config: Shares and sizes.
            real: Places of real images.
            classes: Generated classes that are asked for; ``None`` for those of training.
            stream: Keeps training and development draws apart.
            support: When given, the classes of `real` take turns, and references are never of the target's own place:
                they are of other ones in `real` that show the class, or else of these, which show them all.
        """
        self._config = config
        self._real = list(real)
        self._classes = tuple(classes) if classes is not None else generated_classes()
        self._stream = stream
        self._support = list(support)

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self._config.seed, self._stream, index])
        shots = int(rng.choice(self._config.shots))
        episodes = [self._episode(rng, index, slot, shots) for slot in range(self._config.batch)]
        free = GRID - self._config.window // PATCH
        batch: dict[str, Any] = {
            key: torch.from_numpy(np.stack([episode[key] for episode in episodes]))
            for key in ("references", "reference_masks", "target", "mask", "counted")
        }
        batch["classes"] = [episode["class"] for episode in episodes]
        batch["origin"] = (int(rng.integers(free + 1)), int(rng.integers(free + 1)))
        return batch

    def _episode(self, rng: np.random.Generator, index: int, slot: int, shots: int) -> dict[str, Any]:
        config = self._config
        for _ in range(MOST_DRAWS):
            place, other, wanted = self.places(rng, index, slot)
            native = round(config.window * CLOSEST ** -rng.uniform(0, 1))
            references = [self._reference(other, wanted, native, rng) for _ in range(shots)]
            found = [reference for reference in references if reference is not None]
            if len(found) == shots:
                break
        else:
            raise RefSAMError(
                "input", f"Objects of class '{wanted}' are too small or too hidden to learn from; leave the class out."
            )
        focus = None if rng.random() < config.without_focus_share else wanted
        target = augment(place.draw(rng, native, focus), rng, config.window, config.recolour)
        return {
            "references": np.stack([image for image, _ in found]),
            "reference_masks": np.stack([mask for _, mask in found]),
            "target": target.image.transpose(2, 0, 1),
            "mask": target.classes == place.class_id(wanted),
            "counted": target.classes != target.ignore,
            "class": wanted,
        }

    def places(self, rng: np.random.Generator, index: int, slot: int) -> tuple[Place, Place, str]:
        """Where the target and the references of an episode of a batch are drawn, and the class."""
        config = self._config
        if self._real and rng.random() < config.real_share:
            return self._real_places(rng, index * config.batch + slot)
        name = f"generated/{index}/{slot}"
        place = generated_place(rng, name, self._classes)
        wanted = self._classes[int(rng.integers(len(self._classes)))]
        elsewhere = wanted not in STYLE_CLASSES and rng.random() < config.other_place_share
        return place, generated_place(rng, name + "/other", self._classes) if elsewhere else place, wanted

    def _real_places(self, rng: np.random.Generator, turn: int) -> tuple[Place, Place, str]:
        if not self._support:
            place = _pick(self._real, rng)
            wanted = _pick(place.class_names(), rng)
            return place, _pick(_showing(self._real, wanted), rng), wanted
        every = sorted({name for place in self._real for name in place.class_names()})
        wanted = every[turn % len(every)]
        showing = _showing(self._real, wanted)
        place = _pick(showing, rng)
        elsewhere = [other for other in showing if other is not place]
        return place, _pick(elsewhere or _showing(self._support, wanted), rng), wanted

    def _reference(
        self, place: Place, wanted: str, native: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """An annotated view of a class, or ``None`` when the draw holds too little of it."""
        # References are seldom taken at exactly the target's scale.
        side = round(native * 2.0 ** rng.uniform(-0.3, 0.3))
        view = augment(place.draw(rng, max(side, 64), wanted), rng, self._config.window, self._config.recolour)
        target = view.classes == place.class_id(wanted)
        if target.mean() < LEAST_SHARE:
            return None
        return view.image.transpose(2, 0, 1), self._annotate(view, target, rng)

    def _annotate(self, view: LabelledImage, target: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.uint8]:
        label = np.where(target, FOREGROUND, BACKGROUND).astype(np.uint8)
        label[view.classes == view.ignore] = IGNORE
        draw = rng.random()
        if draw < self._config.partial_share:
            return partial(label, view.instances, rng)
        if draw < self._config.partial_share + self._config.scribble_share:
            return scribble(label, rng, INPUT_SIZE)
        return label


def _showing(places: Sequence[Place], wanted: str) -> list[Place]:
    return [place for place in places if wanted in place.class_names()]


def _pick(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]
