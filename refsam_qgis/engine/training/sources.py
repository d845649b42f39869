"""Where training images come from: generated scenes, and folders of real images with masks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..image_folder import IGNORE_ID, ImageFolder, Sample, scan_folder
from .scenes import CLASS_ID, CLASSES, SceneStyle, render_scene, sample_style
from .views import LabelledImage

TEST_CLASSES = frozenset({"plane", "storage_tank", "swimming_pool", "sports_court"})
"""Generated classes that no training label ever names; they are kept to test with."""
CALIBRATION_CLASSES = frozenset({"field", "ship", "solar_panel", "paved", "railway"})
"""Generated classes that the learned embedding is never asked for: what it is worth is found out with what it was not
taught, as the classes of users are."""
STYLE_CLASSES = frozenset({"novel_object", "novel_ground"})
"""Classes that mean something only within one style."""


NOWHERE = -1
"""Id of a class that a place does not know; no pixel has it."""


class Place(Protocol):
    """One sensor over one place: everything drawn from it shows each class in the same way."""

    def class_names(self) -> Sequence[str]:
        """Names of the classes that may be asked for."""

    def draw(self, rng: np.random.Generator, side: int, focus: str | None) -> LabelledImage:
        """Cut or render a square of `side` pixels, if possible with the class `focus` in it."""

    def class_id(self, name: str) -> int:
        """Id of a class in the class maps that `draw` returns; `NOWHERE` where the place does not know it."""


class GeneratedPlace:
    """A style of the scene generator."""

    def __init__(self, style: SceneStyle, name: str, classes: Sequence[str]) -> None:
        self._style = style
        self._name = name
        self._classes = tuple(classes)

    def class_names(self) -> Sequence[str]:
        """Classes of the generator that this place was given."""
        return self._classes

    def draw(self, rng: np.random.Generator, side: int, focus: str | None) -> LabelledImage:
        """Render a scene of this style."""
        scene = render_scene(self._style, rng, side, focus)
        return LabelledImage(scene.image, scene.classes, scene.instances, ignore=-1, namespace=self._name)

    def class_id(self, name: str) -> int:
        """Index in the generator's class list."""
        return CLASS_ID.get(name, NOWHERE)


def generated_place(rng: np.random.Generator, name: str, classes: Sequence[str]) -> GeneratedPlace:
    """Draw a place of the generator's world."""
    return GeneratedPlace(sample_style(rng), name, classes)


def generated_classes(held_out: frozenset[str] = TEST_CLASSES) -> tuple[str, ...]:
    """Names of the generator's classes without the background and those held out."""
    return tuple(name for name in CLASSES[1:] if name not in held_out)


class FolderPlace:
    """Real images of one scene with their masks."""

    def __init__(self, folder: ImageFolder, samples: Sequence[Sample], name: str) -> None:
        self._pairs = [(folder.read_image(sample), folder.read_ids(sample)) for sample in samples]
        self._ids = {label: value for value, label in folder.names.items()}
        present = {value for sample in samples for value in sample.classes}
        self._present = tuple(label for label, value in self._ids.items() if value in present)
        self.name = name

    def class_names(self) -> Sequence[str]:
        """Classes of the folder that its images show."""
        return self._present

    def only(self, names: Collection[str]) -> FolderPlace:
        """The same scene with fewer classes that may be asked for; the others are background."""
        place = copy.copy(self)
        place._present = tuple(name for name in self._present if name in names)
        return place

    def draw(self, rng: np.random.Generator, side: int, focus: str | None) -> LabelledImage:
        """Cut a square of `side` pixels, around a pixel of the focus class where there is one."""
        wanted = self._ids.get(focus or "", -1)
        order = rng.permutation(len(self._pairs))
        index = next((i for i in order if wanted < 0 or (self._pairs[i][1] == wanted).any()), order[0])
        image, mask = self._pairs[index]
        side = min(side, *mask.shape)
        top, left = self._corner(mask, wanted, side, rng)
        classes = mask[top : top + side, left : left + side]
        return LabelledImage(
            image=image[top : top + side, left : left + side],
            classes=classes,
            instances=_seed_regions(classes, rng),
            ignore=IGNORE_ID,
            namespace=self.name,
        )

    def class_id(self, name: str) -> int:
        """Value in the masks."""
        return self._ids.get(name, NOWHERE)

    @staticmethod
    def _corner(mask: NDArray[np.uint8], wanted: int, side: int, rng: np.random.Generator) -> tuple[int, int]:
        rows, columns = mask.shape
        if wanted >= 0 and (mask == wanted).any():
            candidates = np.flatnonzero(mask == wanted)
            row, column = divmod(int(candidates[rng.integers(len(candidates))]), columns)
            row, column = row - int(rng.integers(side)), column - int(rng.integers(side))
        else:
            row, column = int(rng.integers(rows)), int(rng.integers(columns))
        return int(np.clip(row, 0, rows - side)), int(np.clip(column, 0, columns - side))


def _seed_regions(classes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Number a few connected regions of a class map, found from random seeds; the rest stays 0."""
    canvas = Image.fromarray(classes.astype(np.int32), mode="I")
    first = 1000
    for number in range(6):
        row, column = (int(rng.integers(n)) for n in classes.shape)
        if classes[row, column] != IGNORE_ID and canvas.getpixel((column, row)) < first:  # type: ignore[operator]
            ImageDraw.floodfill(canvas, (column, row), first + number)
    filled = np.asarray(canvas)
    return np.where(filled >= first, filled - first + 1, 0).astype(np.uint16)


def read_places(folder: Path) -> dict[str, FolderPlace]:
    """Read a folder of labelled images, one place a scene; the scene is the name up to its first underscore.

    Raises:
        RefSAMError: As `scan_folder`.
    """
    scanned = scan_folder(folder, crop=sys.maxsize)
    scenes: dict[str, list[Sample]] = {}
    for sample in scanned.samples:
        scenes.setdefault(sample.image.stem.split("_")[0], []).append(sample)
    return {scene: FolderPlace(scanned, samples, f"{folder.name}/{scene}") for scene, samples in scenes.items()}
