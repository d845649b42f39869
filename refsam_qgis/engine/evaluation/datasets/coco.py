"""COCO-20i: photographs of 80 kinds of things in four folds (Nguyen and Todorovic 2019; Lin et al. 2014)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.features import rasterize

from ...errors import RefSAMError
from ...events import Reporter, check_cancelled
from ...image_folder import Sample, find_files, open_image
from ...models.segmenter import BACKGROUND, FOREGROUND, IGNORE
from .dataset import Benchmark
from .run_lengths import decode_mask

CLASSES = 80
FOLDS = tuple(tuple(range(fold + 1, CLASSES + 1, 4)) for fold in range(4))
"""Class number i, counted from 0 in the order of COCO's category ids, belongs to fold i modulo 4."""
MIN_PIXELS = 1
"""HSNet, whose lists VRP-SAM and Matcher use, leaves no image out that shows a class."""

ANNOTATIONS = "annotations/instances_val2014.json"
IMAGES = "val2014"


@dataclass(frozen=True)
class CocoImages:
    """The photographs with their things.

    Attributes:
        names: Name of each class by its number, from 1.
        samples: In the order of their file names.
        things: By file name and class, the shape of each thing (outlines, or COCO's run lengths) and whether it is a
            crowd.
        unlabelled: Images that lie there and that the annotations do not name.
    """

    names: dict[int, str]
    samples: tuple[Sample, ...]
    things: dict[str, dict[int, list[tuple[Any, bool]]]]
    unlabelled: tuple[Path, ...] = ()

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the pixels ``(H, W, 3)`` uint8 RGB of a sample."""
        with open_image(sample.image) as image:
            return np.asarray(image.convert("RGB"))

    def read_label(self, sample: Sample, class_id: int) -> NDArray[np.uint8]:
        """Return the label ``(H, W)`` uint8 of one class; a crowd, whose things are not outlined, is `IGNORE`."""
        _, _, width, height = sample.box
        return _draw(self.things[sample.image.name].get(class_id, []), height, width)


def scan_coco(folder: Path, min_pixels: int, reporter: Reporter) -> CocoImages:
    """List the validation images of 2014 that show any thing.

    Args:
        folder: Folder with ``annotations/instances_val2014.json`` and ``val2014`` in it.
        min_pixels: Pixels from which a class counts as present in an image.
        reporter: Asked for cancellation before each image.

    Raises:
        RefSAMError: With code ``input`` if something is missing or invalid.
    """
    path = folder / ANNOTATIONS
    document = _read(path)
    try:
        categories = sorted(document["categories"], key=lambda category: category["id"])
        numbers = {category["id"]: number for number, category in enumerate(categories, 1)}
        names = {numbers[category["id"]]: str(category["name"]) for category in categories}
        files = {image["id"]: image for image in document["images"]}
        things: dict[str, dict[int, list[tuple[Any, bool]]]] = defaultdict(lambda: defaultdict(list))
        for thing in document["annotations"]:
            name = files[thing["image_id"]]["file_name"]
            shape = thing["segmentation"]
            if not isinstance(shape, dict):
                shape = [np.asarray(ring, np.float32) for ring in shape]  # an eighth of the memory of lists
            things[name][numbers[thing["category_id"]]].append((shape, bool(thing.get("iscrowd", 0))))
        samples = []
        for image in sorted(files.values(), key=lambda image: str(image["file_name"])):
            check_cancelled(reporter)
            if image["file_name"] in things:
                samples.append(_sample(folder, image, things[image["file_name"]], min_pixels))
    except (KeyError, TypeError, ValueError) as error:
        raise RefSAMError("input", f"'{path}' is not as COCO writes it ({error!r}); download it again.") from error
    if not samples:
        raise RefSAMError("input", f"'{path}' shows nothing in any image; put COCO's own file there.")
    if len(names) != CLASSES:
        raise RefSAMError("input", f"'{path}' names {len(names)} categories, not {CLASSES}; put COCO's own file there.")
    known = {image["file_name"] for image in files.values()}
    unlabelled = tuple(image for image in find_files(folder / IMAGES, ".jpg") if image.name not in known)
    return CocoImages(names, tuple(samples), things, unlabelled)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RefSAMError(
            "input", f"'{path}' cannot be read; unpack COCO's annotations_trainval2014.zip and val2014.zip there."
        ) from error
    except ValueError as error:
        raise RefSAMError("input", f"'{path}' is not JSON ({error}); download it again.") from error


def _sample(folder: Path, image: dict[str, Any], things: dict[int, list[tuple[Any, bool]]], min_pixels: int) -> Sample:
    file = folder / IMAGES / image["file_name"]
    if not file.is_file():
        raise RefSAMError("input", f"'{file}' does not exist; unpack COCO's val2014.zip in '{folder}'.")
    height, width = int(image["height"]), int(image["width"])
    with open_image(file) as opened:
        if opened.size != (width, height):
            raise RefSAMError(
                "input",
                f"'{file}' is {opened.width}x{opened.height}, but COCO says {width}x{height}; put its own image there.",
            )
    present = tuple(
        number
        for number, of_class in sorted(things.items())
        if np.count_nonzero(_draw(of_class, height, width) == FOREGROUND) >= min_pixels
    )
    return Sample(file, folder / ANNOTATIONS, (0, 0, width, height), present, str(file))


def _draw(things: list[tuple[Any, bool]], height: int, width: int) -> NDArray[np.uint8]:
    """Draw the things of one class over its crowds: `FOREGROUND`, `IGNORE` and `BACKGROUND` elsewhere."""
    label = np.full((height, width), BACKGROUND, np.uint8)
    for shape, is_crowd in sorted(things, key=lambda thing: not thing[1]):
        value = IGNORE if is_crowd else FOREGROUND
        if isinstance(shape, dict):
            label[decode_mask(shape["counts"], height, width)] = value
        else:
            outlines = [ring.reshape(-1, 2).tolist() for ring in shape if len(ring) >= 6]
            polygons = [{"type": "Polygon", "coordinates": [[*outline, outline[0]]]} for outline in outlines]
            if polygons:
                rasterize(polygons, out=label, default_value=value)
    return label


BENCHMARK = Benchmark(scan_coco, FOLDS, MIN_PIXELS, None)
