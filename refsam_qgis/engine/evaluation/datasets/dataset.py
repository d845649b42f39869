"""What the protocols ask of a labelled data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...events import Reporter
from ...image_folder import Sample


class Dataset(Protocol):
    """Labelled images that are read when they are needed."""

    @property
    def names(self) -> dict[int, str]:
        """Name of each class that can be sought, by its id."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All samples, always in the same order."""

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the pixels ``(H, W, 3)`` uint8 RGB of a sample."""

    def read_label(self, sample: Sample, class_id: int) -> NDArray[np.uint8]:
        """Return the label ``(H, W)`` uint8 of one class: `FOREGROUND`, `BACKGROUND` or `IGNORE`."""


class PublishedDataset(Dataset, Protocol):
    """A data set as it lies in a folder."""

    @property
    def unlabelled(self) -> tuple[Path, ...]:
        """Images that lie there without a label, from which no sample comes."""


@dataclass(frozen=True)
class Benchmark:
    """How a protocol uses a data set.

    Attributes:
        scan: Lists the samples of a folder; takes the folder, the fewest pixels of a class that is present, and who is
            asked for cancellation.
        folds: Ids of the classes sought in each fold; empty where all classes are one fold.
        min_pixels: Fewest pixels of a class that is present, unless the job says otherwise.
        crop: Longest side of a sample in pixels; ``None`` where images are used whole.
        names: File in the folder that names the classes; ``None`` where the protocol itself does.
    """

    scan: Callable[[Path, int, Reporter], PublishedDataset]
    folds: tuple[tuple[int, ...], ...]
    min_pixels: int
    crop: int | None
    names: str | None = None
