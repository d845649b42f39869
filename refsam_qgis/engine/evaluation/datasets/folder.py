"""Anyone's images with masks, as a protocol."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import RefSAMError
from ...events import Reporter
from ...image_folder import CLASSES, CROP, MIN_PIXELS, ImageFolder, scan_folder
from .dataset import Benchmark


def _scan(folder: Path, min_pixels: int, reporter: Reporter) -> ImageFolder:
    scanned = scan_folder(folder, min_pixels=min_pixels)
    twice = [name for name, count in Counter(scanned.names.values()).items() if count > 1]
    if twice:  # figures are told by name
        raise RefSAMError(
            "input", f"'{folder / CLASSES}' calls several classes '{twice[0]}'; give each a name of its own."
        )
    return scanned


BENCHMARK = Benchmark(_scan, (), MIN_PIXELS, CROP, CLASSES)
