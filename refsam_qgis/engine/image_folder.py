"""Images with masks in files, and folders of them: ``NAME.jpg|png|tif``, ``NAME_mask.png`` and ``classes.json``."""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from .errors import RefSAMError
from .models.segmenter import BACKGROUND, FOREGROUND, IGNORE

CROP = 1024
"""Largest side in pixels of an image used whole: SAM's input side, beyond which an image would be shrunk."""
MIN_PIXELS = 64
"""Pixels from which a class counts as present.

The literature asks for 2·32·32 = 2048 on iSAID patches (DMNet), which would leave out most pools and vehicles at a
ground sample distance of half a metre; 8 x 8 pixels is where a label stops being mostly edge.
"""

CLASSES = "classes.json"
"""File in a folder that names the classes."""
_MASK_SUFFIX = "_mask.png"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_IGNORE_NAMES = frozenset({"unlabelled", "unlabeled", "ignore", "ignored", "void", "nodata"})
IGNORE_ID = 255
"""Class id of pixels that nobody labelled, whatever the mask calls them."""


@dataclass(frozen=True)
class Sample:
    """One image, or one part of an image larger than the crop.

    Attributes:
        image: Path of the whole image.
        mask: Path of the file that holds its labels.
        box: ``(left, top, right, bottom)`` of the part in pixels.
        classes: Ids of the classes present in it, background and ignored ones left out.
        source: Samples of one source never refer to each other.
    """

    image: Path
    mask: Path
    box: tuple[int, int, int, int]
    classes: tuple[int, ...]
    source: str


Decoder = Callable[[Image.Image], NDArray[np.uint8]]
"""Turns a mask as it is stored into class ids ``(H, W)`` uint8, `IGNORE_ID` where nobody labelled."""


@dataclass(frozen=True)
class ImageFolder:
    """Images with a mask in a file beside each.

    Attributes:
        names: Name of each class that can be sought, by its id.
        samples: In the order of their file names.
        decode: Reads class ids out of a mask.
        unlabelled: Images that lie there without a mask of their own, in the order of their paths; no samples.
    """

    names: dict[int, str]
    samples: tuple[Sample, ...]
    decode: Decoder
    unlabelled: tuple[Path, ...] = ()

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the pixels ``(H, W, 3)`` uint8 RGB of a sample."""
        with open_image(sample.image) as image:
            return np.asarray(image.crop(sample.box).convert("RGB"))

    def read_ids(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the class ids ``(H, W)`` uint8 of a sample, 255 where nobody labelled."""
        with open_image(sample.mask) as image:
            return self.decode(image.crop(sample.box))

    def read_label(self, sample: Sample, class_id: int) -> NDArray[np.uint8]:
        """Return the label ``(H, W)`` uint8 of one class: `FOREGROUND`, `BACKGROUND` or `IGNORE`."""
        ids = self.read_ids(sample)
        label = np.where(ids == class_id, FOREGROUND, BACKGROUND).astype(np.uint8)
        label[ids == IGNORE_ID] = IGNORE
        return label


def scan_folder(folder: Path, crop: int = CROP, min_pixels: int = MIN_PIXELS) -> ImageFolder:
    """List the labelled images of a folder and the classes present in each.

    Class 0 is background unless ``classes.json`` names it as unlabelled; 255 is never counted.

    Args:
        folder: The folder; sub-folders are not searched.
        crop: Images with a longer side are cut into the fewest equal parts that do not exceed it.
        min_pixels: Pixels from which a class counts as present in a sample.

    Raises:
        RefSAMError: With code ``input`` if the folder, its ``classes.json`` or one of its pairs is missing or invalid.
    """
    names = read_classes(folder / CLASSES)
    ignored = frozenset({IGNORE_ID} | {i for i, name in names.items() if is_ignored(name)})
    wanted = {i: name for i, name in names.items() if i != 0 and i not in ignored}
    if not wanted:
        raise RefSAMError(
            "input",
            f"'{folder / CLASSES}' names no class beside background (0) and what nobody labelled (255); "
            "give each class another id, there and in the masks.",
        )
    masks = find_files(folder, _MASK_SUFFIX)
    if not masks:
        raise RefSAMError("input", f"'{folder}' holds no NAME{_MASK_SUFFIX}; put one beside each image.")
    known = [value in names or value in ignored for value in range(256)]
    table = np.array([IGNORE_ID if value in ignored else value for value in range(256)], np.uint8)

    def decode(image: Image.Image) -> NDArray[np.uint8]:
        decoded: NDArray[np.uint8] = table[np.asarray(image, dtype=np.uint8)]
        return decoded

    def decode_checked(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
        _check_mask(image, np.array(known))
        return decode(image)

    samples: list[Sample] = []
    for mask in masks:
        samples += cut_samples(_find_image(mask), mask, decode_checked, wanted, crop, min_pixels)
    images = (path for path in find_files(folder, _IMAGE_SUFFIXES) if not path.name.lower().endswith(_MASK_SUFFIX))
    return ImageFolder(wanted, tuple(samples), decode, without_mask(images, samples))


def labelled_files(folder: Path) -> list[Path]:
    """Return the files of a folder that `scan_folder` reads, in the order of their names.

    Raises:
        RefSAMError: With code ``input`` if a mask has no image.
    """
    masks = find_files(folder, _MASK_SUFFIX)
    return sorted([folder / CLASSES, *masks, *map(_find_image, masks)])


def cut_samples(
    image: Path,
    mask: Path,
    decode: Callable[[ImageFile.ImageFile], NDArray[np.uint8]],
    wanted: Iterable[int],
    crop: int,
    min_pixels: int,
    parts_refer: bool = False,
) -> list[Sample]:
    """Cut one image and its mask into samples.

    Args:
        image: The image.
        mask: Its mask.
        decode: Reads class ids out of the mask.
        wanted: Ids of the classes that can be sought.
        crop: Longest side of a sample in pixels.
        min_pixels: Pixels from which a class counts as present.
        parts_refer: Whether parts of one image may refer to each other.

    Raises:
        RefSAMError: With code ``input`` if one of the two cannot be read, they differ in size, or the image has more
            than 8 bits a band.
    """
    with open_image(image) as opened:
        _check_depth(image, opened)
        size = opened.size
    with open_image(mask) as opened:
        ids = decode(opened)
    height, width = ids.shape
    if size != (width, height):
        raise RefSAMError(
            "input", f"'{mask}' is {width}x{height} but its image is {size[0]}x{size[1]}; make them equal."
        )
    samples = []
    file = os.path.realpath(image)  # links to one image are one source
    for top, bottom in _equal_parts(height, crop):
        for left, right in _equal_parts(width, crop):
            counts = np.bincount(ids[top:bottom, left:right].ravel(), minlength=256)
            present = tuple(i for i in sorted(wanted) if counts[i] >= min_pixels)
            box = (left, top, right, bottom)
            samples.append(Sample(image, mask, box, present, f"{file}{box if parts_refer else ''}"))
    return samples


def is_ignored(name: str) -> bool:
    """Whether a class of that name is what nobody labelled."""
    return name.strip().lower() in _IGNORE_NAMES


def read_classes(path: Path) -> dict[int, str]:
    """Return the name of each class id in a ``classes.json``, background and ignored ones included.

    Raises:
        RefSAMError: With code ``input`` if it is missing or invalid.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors begin with a mark
        names = {int(key): str(name) for key, name in document.items()}
    except OSError as error:
        raise RefSAMError("input", f"'{path}' cannot be read; put it there with the names of the classes.") from error
    except (ValueError, AttributeError) as error:
        raise RefSAMError("input", f"'{path}' is no JSON object of class ids and names; write it as such.") from error
    if beyond := [i for i in names if not 0 <= i <= IGNORE_ID]:
        raise RefSAMError(
            "input", f"'{path}' names the class id {beyond[0]}, which no 8-bit mask can hold; use 0 to {IGNORE_ID}."
        )
    return names


def _check_mask(mask: ImageFile.ImageFile, known: NDArray[np.bool_]) -> None:
    """Check that a mask is a band of class ids that are all ``known`` ``(256,)``."""
    name = os.fsdecode(mask.filename)
    if mask.mode not in ("1", "L", "P"):
        raise RefSAMError("input", f"'{name}' is not a single band of 8-bit class ids; save it as such.")
    strange = np.flatnonzero(np.bincount(np.asarray(mask, dtype=np.uint8).ravel(), minlength=256) * ~known)
    if len(strange):
        raise RefSAMError("input", f"'{name}' holds the value {strange[0]}, which {CLASSES} does not name; add it.")


def _check_depth(path: Path, image: ImageFile.ImageFile) -> None:
    """Check that an image has 8 bits a band: Pillow would make others all white or all black."""
    # Of 16 bits in several bands Pillow tells no more than how they are packed.
    if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
        raise RefSAMError(
            "input", f"'{path}' has more than 8 bits a band; stretch its contrast and export it as 8-bit."
        )


def without_mask(images: Iterable[Path], samples: Iterable[Sample]) -> tuple[Path, ...]:
    """Return the images that no sample comes from, in the order given; capitals in names do not matter."""
    labelled = {str(sample.image).casefold() for sample in samples}  # there are disks that do not tell them apart
    return tuple(image for image in images if str(image).casefold() not in labelled)


def find_files(folder: Path, ending: str | tuple[str, ...]) -> list[Path]:
    """Return the files of a folder whose names end in one of `ending` (lower case), in capitals or not, sorted.

    Hidden ones are left out, such as those that a Mac lays beside every file of another system's disk.
    """
    return sorted(path for path in folder.glob("[!.]*") if path.name.lower().endswith(ending))


def _find_image(mask: Path) -> Path:
    stem = mask.name[: -len(_MASK_SUFFIX)]
    for suffix in (*_IMAGE_SUFFIXES, *map(str.upper, _IMAGE_SUFFIXES)):
        image = mask.with_name(stem + suffix)
        if image.exists():
            return image
    raise RefSAMError(
        "input", f"'{mask}' has no image '{stem}.jpg', .png or .tif beside it; add it or remove the mask."
    )


@contextmanager
def open_image(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image.

    Raises:
        RefSAMError: With code ``input`` if it is not there, no image or larger than Pillow opens.
    """
    try:
        with _open(path) as image:
            yield image
    except (OSError, SyntaxError) as error:  # the latter is Pillow's word for damaged PNGs
        raise RefSAMError("input", f"'{path}' cannot be read as an image; replace or remove it.") from error
    except Image.DecompressionBombError as error:
        raise RefSAMError(
            "input", f"'{path}' has more pixels than can be opened at once; cut image and mask into parts."
        ) from error


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only at twice that size it is too large
            return Image.open(path)
    except ValueError as error:  # what Pillow makes of some damaged headers
        raise OSError(str(error)) from error


def _equal_parts(length: int, longest: int) -> list[tuple[int, int]]:
    """Cut a length into the fewest equal parts (to the pixel) that are no longer than `longest`."""
    count = math.ceil(length / longest)
    edges = [round(i * length / count) for i in range(count + 1)]
    return list(itertools.pairwise(edges))
