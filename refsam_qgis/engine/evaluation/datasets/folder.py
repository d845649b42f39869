"""Anyone's images with masks, as a protocol."""

from __future__ import annotations

from pathlib import Path

from ...events import Reporter
from ...image_folder import CROP, MIN_PIXELS, ImageFolder, scan_folder
from .dataset import Benchmark


def _scan(folder: Path, min_pixels: int, reporter: Reporter) -> ImageFolder:
    return scan_folder(folder, min_pixels=min_pixels)


BENCHMARK = Benchmark(_scan, (), MIN_PIXELS, CROP)
