"""The labelled images that methods are compared on, and how episodes are drawn from them."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.data_digest import digest_files
from refsam_qgis.engine.evaluation.episodes import Episode, draw_episodes
from refsam_qgis.engine.image_folder import ImageFolder, Sample, labelled_files, scan_folder

from .generated import write_scenes

GENERATED = "generated"
FOLDERS = {
    GENERATED: None,
    "dubai": "train/dubai",
    "pools_cannes": "eval/pools_cannes",
    "epfl_roads": "eval/epfl_roads",
    "spacenet_rio": "eval/spacenet_rio",
}
"""Where each data set lies in the data folder; generated scenes are written when they are needed."""
REAL = tuple(name for name in FOLDERS if name != GENERATED)


@dataclass(frozen=True)
class Fold:
    """A scene and a class of a training set that training went without.

    Attributes:
        scene: Beginning of the file names, up to the first underscore.
        name: Of the class.
    """

    scene: str
    name: str

    def __str__(self) -> str:
        return f"{self.scene}_{self.name}"


FOLDS = {"dubai": (Fold("tile7", "building"), Fold("tile2", "vegetation"), Fold("tile5", "water"))}
"""Folds of the data sets that the bundled model was trained on; between them are three scenes and three classes."""


class DataSets:
    """The data sets by their names.

    Args:
        data: Folder of ``train`` and ``eval``.
        scratch: Folder for the generated scenes.
    """

    def __init__(self, data: Path, scratch: Path) -> None:
        self._data = data
        self._scratch = scratch

    def folder(self, name: str) -> Path:
        """Return the folder of a data set, one of `FOLDERS`."""
        place = FOLDERS[name]
        if place is not None:
            return self._data / place
        folder = self._scratch / name
        if not folder.exists():
            write_scenes(folder)
        return folder

    def scan(self, name: str) -> ImageFolder:
        """List the images of a data set.

        Raises:
            RefSAMError: With code ``input`` if it is not there.
        """
        return _scan(self.folder(name))

    def digest(self, name: str) -> str:
        """SHA-256 of a data set's images, masks and names of classes, as `digest_files` makes it."""
        return digest_folder(self.folder(name))


@contextmanager
def open_data_sets(data: Path) -> Iterator[DataSets]:
    """Give the data sets of a folder; what a person can mend ends the program with its one sentence."""
    try:
        with tempfile.TemporaryDirectory(prefix="refsam-scenes-") as scratch:
            yield DataSets(data, Path(scratch))
    except RefSAMError as error:
        sys.exit(str(error))


@lru_cache
def _scan(folder: Path) -> ImageFolder:
    return scan_folder(folder)


@lru_cache
def digest_folder(folder: Path) -> str:
    """SHA-256 of a folder's images, masks and names of classes, as hexadecimal digits."""
    return digest_files(folder, labelled_files(folder))


def draw_fold(folder: ImageFolder, fold: Fold | None, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw the episodes of a fold: its class is sought in its scene only, by references of any other image.

    Args:
        folder: The labelled images.
        fold: Scene and class; ``None`` seeks every class everywhere.
        shots: References per episode.
        count: Number of episodes.
        seed: Equal seeds give equal lists.

    Raises:
        RefSAMError: With code ``input`` if there are too few images.
    """
    if fold is None:
        return draw_episodes(folder, shots, count, seed)
    class_id = next((class_id for class_id, name in folder.names.items() if name == fold.name), None)
    showing = [i for i, sample in enumerate(folder.samples) if class_id in sample.classes]
    targets = {i for i in showing if scene(folder.samples[i]) == fold.scene}
    if class_id is None or not targets:
        where = folder.samples[0].image.parent
        raise RefSAMError("input", f"No image of scene '{fold.scene}' in '{where}' shows {fold.name}; add one.")
    # Each walk through the images comes by every target once.
    walks = math.ceil(count / len(targets))
    drawn = draw_episodes(folder, shots, walks * len(showing), seed, [class_id])
    return [episode for episode in drawn if episode.query in targets][:count]


def scene(sample: Sample) -> str:
    """Return the scene that an image is a part of."""
    return sample.image.stem.split("_")[0]
