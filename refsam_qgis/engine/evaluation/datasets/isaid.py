"""iSAID-5i: aerial images of 15 classes in three folds (Yao et al. 2022, "Scale-aware Detailed Matching").

Read as patches with class ids (``semantic_png`` of SDM), or as the full images of DOTA with the colours of iSAID's
devkit. Masks are called ``NAME_instance_color_RGB.png`` in both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import RefSAMError
from ...events import Reporter, check_cancelled
from ...image_folder import IGNORE_ID, ImageFolder, Sample, cut_samples, find_files, without_mask
from .dataset import Benchmark

CLASSES = {
    1: ("ship", (0, 0, 63)),
    2: ("storage_tank", (0, 63, 63)),
    3: ("baseball_diamond", (0, 63, 0)),
    4: ("tennis_court", (0, 63, 127)),
    5: ("basketball_court", (0, 63, 191)),
    6: ("ground_track_field", (0, 63, 255)),
    7: ("bridge", (0, 127, 63)),
    8: ("large_vehicle", (0, 127, 127)),
    9: ("small_vehicle", (0, 0, 127)),
    10: ("helicopter", (0, 0, 191)),
    11: ("swimming_pool", (0, 0, 255)),
    12: ("roundabout", (0, 191, 127)),
    13: ("soccer_ball_field", (0, 127, 191)),
    14: ("plane", (0, 127, 255)),
    15: ("harbor", (0, 100, 155)),
}
"""Name of each class and its colour in the devkit; black is 0, everything else."""
FOLDS = (tuple(range(1, 6)), tuple(range(6, 11)), tuple(range(11, 16)))
CROP = 256
"""Side of the patches of SDM, DMNet and AgMTR. Theirs overlap; full images are cut here into parts that do not."""
MIN_PIXELS = 2 * 32 * 32
"""DMNet's filter."""

_MASK_SUFFIX = "_instance_color_RGB.png"
_IMAGE_SUFFIX = ".png"
_UNKNOWN = 254


def scan_isaid(folder: Path, min_pixels: int, reporter: Reporter) -> ImageFolder:
    """List the patches of the validation images.

    As in the literature, patches of one image may refer to each other.

    Args:
        folder: Folder with ``val`` in it; images and masks lie in any folders below that.
        min_pixels: Pixels from which a class counts as present in a patch.
        reporter: Asked for cancellation before each image.

    Raises:
        RefSAMError: With code ``input`` if something is missing or invalid.
    """
    val = folder / "val"
    files = _files_below(val)
    masks = _by_stem((path for path in files if path.name.lower().endswith(_MASK_SUFFIX.lower())), _MASK_SUFFIX)
    if not masks:
        raise RefSAMError(
            "input", f"'{val}' holds no NAME{_MASK_SUFFIX}; unpack iSAID's validation masks, or SDM's patches, there."
        )
    images = _by_stem((path for path in files if "_instance_" not in path.name.lower()), _IMAGE_SUFFIX)
    samples: list[Sample] = []
    for stem, mask in masks.items():
        check_cancelled(reporter)
        if stem not in images:
            name = mask.name[: len(stem)] + _IMAGE_SUFFIX
            raise RefSAMError(
                "input", f"'{mask}' has no image '{name}' below '{val}'; put DOTA's images, or SDM's patches, there."
            )
        samples += cut_samples(images[stem], mask, read_ids, CLASSES, CROP, min_pixels, parts_refer=True)
    names = {i: name for i, (name, _) in CLASSES.items()}
    return ImageFolder(names, tuple(samples), read_ids, without_mask(images.values(), samples))


def _files_below(folder: Path) -> list[Path]:
    """Return the PNGs in a folder and in those below it, also where these are links, sorted; hidden ones left out."""
    files: list[Path] = []
    seen = set()
    for place, folders, _ in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:  # links may lead in a circle
            folders.clear()
            continue
        seen.add(real)
        files += find_files(Path(place), _IMAGE_SUFFIX)
    return sorted(files)


def _by_stem(files: Iterable[Path], suffix: str) -> dict[str, Path]:
    """Return files by what their names have before the suffix, in lower case.

    Raises:
        RefSAMError: With code ``input`` if two have the same name: one of them would be measured, nobody knows which.
    """
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(path.name[: -len(suffix)].lower(), path)
        if other != path:
            raise RefSAMError("input", f"'{other}' and '{path}' have the same name; leave only one of them there.")
    return by_stem


def read_ids(mask: Image.Image) -> NDArray[np.uint8]:
    """Read class ids ``(H, W)`` uint8 out of a mask of ids, in one band or in three equal ones, or of colours.

    A palette is read for its colours if these are those of classes, and for its indices otherwise.

    Raises:
        RefSAMError: With code ``input`` for a value that stands for no class.
    """
    pixels = np.asarray(mask.getchannel(0) if mask.mode == "LA" else mask)
    ids: NDArray[np.uint8]
    if mask.mode == "P":
        ids = _by_index(mask)[pixels]
    elif pixels.ndim == 2:
        ids = _by_value()[np.where((pixels >= 0) & (pixels < 256), pixels, _UNKNOWN).astype(np.uint8)]
    else:
        ids = _ids_of_colours(pixels)
    unknown = ids == _UNKNOWN
    if unknown.any():
        name = getattr(mask, "filename", "A mask")
        value = pixels[unknown][0].tolist()
        raise RefSAMError(
            "input", f"'{name}' holds the value {value}, which is no class of iSAID; put the semantic mask there."
        )
    return ids


def _ids_of_colours(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids ``(...)`` of colours ``(..., 3)`` or more bands, of which the first three count."""
    colours = pixels[..., 0].astype(np.uint32)
    for band in (1, 2):  # in place, as images of DOTA have up to a hundred million pixels
        colours <<= 8
        colours |= pixels[..., band]
    ids: NDArray[np.uint8] = _by_colour()[colours]
    return ids


def _by_index(mask: Image.Image) -> NDArray[np.uint8]:
    """Class id of each index ``(256,)`` of a mask with a palette."""
    palette = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
    ids = _ids_of_colours(palette)
    if (ids == _UNKNOWN).any() or not np.isin(ids, list(CLASSES)).any():
        return _by_value()
    padded: NDArray[np.uint8] = np.concatenate([ids, np.full(256 - len(ids), _UNKNOWN, np.uint8)])
    return padded


@cache
def _by_value() -> NDArray[np.uint8]:
    """Class id of each value ``(256,)`` of a mask of ids."""
    ids = np.full(256, _UNKNOWN, np.uint8)
    ids[[0, *CLASSES, IGNORE_ID]] = [0, *CLASSES, IGNORE_ID]
    return ids


@cache
def _by_colour() -> NDArray[np.uint8]:
    """Class id of each colour ``(2^24,)``: red, green and blue from the highest to the lowest byte."""
    ids = np.full(1 << 24, _UNKNOWN, np.uint8)
    ids[[value * 0x010101 for value in range(256)]] = _by_value()
    for i, (_, (red, green, blue)) in CLASSES.items():
        ids[(red << 16) | (green << 8) | blue] = i
    return ids


BENCHMARK = Benchmark(scan_isaid, FOLDS, MIN_PIXELS, CROP)
