"""LoveDA-2i: aerial images of six kinds of land cover in three folds (Wang et al. 2021; folds of DMNet)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import RefSAMError
from ...events import Reporter, check_cancelled
from ...image_folder import IGNORE_ID, ImageFolder, Sample, cut_samples, find_files, without_mask
from .dataset import Benchmark

CLASSES = {2: "building", 3: "road", 4: "water", 5: "barren", 6: "forest", 7: "agriculture"}
"""In the masks 1 is background and 0 no data."""
FOLDS = ((2, 3), (4, 5), (6, 7))
CROP = 512
"""Side of the crops of DMNet; an image has four."""
MIN_PIXELS = 2 * 32 * 32
"""DMNet's filter."""


def scan_loveda(folder: Path, min_pixels: int, reporter: Reporter) -> ImageFolder:
    """List the crops of the validation images.

    As in the literature, crops of one image may refer to each other.

    Args:
        folder: Folder with ``Val/{Urban,Rural}/{images_png,masks_png}`` in it.
        min_pixels: Pixels from which a class counts as present in a crop.
        reporter: Asked for cancellation before each image.

    Raises:
        RefSAMError: With code ``input`` if something is missing or invalid.
    """
    samples: list[Sample] = []
    images: list[Path] = []
    for area in ("Urban", "Rural"):
        place = folder / "Val" / area
        folder_of_masks = place / "masks_png"
        masks = find_files(folder_of_masks, ".png")
        if not masks:
            raise RefSAMError("input", f"'{folder_of_masks}' holds no masks; unpack LoveDA's Val.zip in '{folder}'.")
        images += find_files(place / "images_png", ".png")
        for mask in masks:
            check_cancelled(reporter)
            image = place / "images_png" / mask.name
            if not image.is_file():
                raise RefSAMError("input", f"'{mask}' has no image '{image}'; unpack LoveDA's Val.zip in '{folder}'.")
            samples += cut_samples(image, mask, read_ids, CLASSES, CROP, min_pixels, parts_refer=True)
    return ImageFolder(CLASSES, tuple(samples), read_ids, without_mask(images, samples))


def read_ids(mask: Image.Image) -> NDArray[np.uint8]:
    """Read class ids ``(H, W)`` uint8 out of a mask, in which 0 is no data.

    Raises:
        RefSAMError: With code ``input`` for a mask of anything but LoveDA's eight values in one band.
    """
    values = np.asarray(mask)
    if values.ndim != 2 or values.max(initial=0) > max(CLASSES):
        name = getattr(mask, "filename", "A mask")
        raise RefSAMError("input", f"'{name}' is not a single band of LoveDA's values 0 to 7; put the mask there.")
    return np.where(values == 0, np.uint8(IGNORE_ID), values.astype(np.uint8))


BENCHMARK = Benchmark(scan_loveda, FOLDS, MIN_PIXELS, CROP)
