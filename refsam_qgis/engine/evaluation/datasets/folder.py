"""Anyone's images with masks, as a protocol."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import RefSAMError
from ...events import Reporter
from ...image_folder import (
    CLASSES,
    CROP,
    IGNORE_ID,
    MIN_PIXELS,
    ImageFolder,
    is_ignored,
    read_classes,
    scan_folder,
)
from .dataset import Benchmark

BACKGROUND_NAMES = frozenset({"background", "bg", "other", "others", "none", "rest"})
"""What class 0 is called where it is no class to be found."""


def _scan(folder: Path, min_pixels: int, reporter: Reporter) -> ImageFolder:
    scanned = scan_folder(folder, min_pixels=min_pixels)
    twice = [name for name, count in Counter(scanned.names.values()).items() if count > 1]
    if twice:  # figures are told by name
        raise RefSAMError(
            "input", f"'{folder / CLASSES}' calls several classes '{twice[0]}'; give each a name of its own."
        )
    if not any(sample.classes for sample in scanned.samples):
        raise RefSAMError(
            "input",
            f"No mask in '{folder}' shows {min_pixels} pixels of {', '.join(scanned.names.values())}; write the ids of "
            f"{CLASSES} into the masks, where 255 is what nobody labelled, or ask for fewer pixels.",
        )
    _tell_unsought(read_classes(folder / CLASSES), reporter)
    return scanned


def _tell_unsought(names: dict[int, str], reporter: Reporter) -> None:
    """Tell of ids that have a meaning of their own, where their names are those of classes."""
    for class_id, meaning, usual in ((0, "background", BACKGROUND_NAMES), (IGNORE_ID, "what nobody labelled", ())):
        name = names.get(class_id, meaning)
        if name != meaning and not is_ignored(name) and name.strip().strip("_").lower() not in usual:
            reporter.log(
                f"Class {class_id}, '{name}', is {meaning} and not sought; give it another id if it should be."
            )


BENCHMARK = Benchmark(_scan, (), MIN_PIXELS, CROP, CLASSES)
"""Images with masks in files, and folders of them: ``NAME.jpg|png|tif``, ``NAME_mask.png`` and ``classes.json``."""
