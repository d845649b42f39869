"""A folder of generated scenes whose classes no training label names, to measure on.

    python -m benchmarks.accuracy.generated FOLDER

Writes ``PLACE_NUMBER.png``, ``PLACE_NUMBER_mask.png`` and ``classes.json``. Images of one place share sensor, light and
building habits; those of others share nothing. Everything but the classes sought is background.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from refsam_qgis.engine.training.scenes import CLASSES, render_scene, sample_style
from refsam_qgis.engine.training.sources import TEST_CLASSES

SOUGHT = tuple(sorted(TEST_CLASSES))
"""Class id i + 1 of the masks is the i-th of these."""
PLACES = 12
IMAGES = 5
"""Images of each place."""
SIDE = 512
SEED = 20_000
"""Apart from the seeds of any training."""


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description="Write a folder of generated scenes with unseen classes.")
    parser.add_argument("folder", type=Path, help="made if it is not there")
    write_scenes(parser.parse_args().folder)


def write_scenes(folder: Path, places: int = PLACES, images: int = IMAGES, side: int = SIDE) -> None:
    """Write the scenes; equal arguments give equal files.

    Two of the classes take turns as the plentiful one of a place, so that a reference may come from the same place as
    its target or from another; the other classes are there as chance has it.

    Args:
        folder: Where to; made if it is not there.
        places: Number of places.
        images: Images of each place.
        side: Side of an image in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.zeros(len(CLASSES), np.uint8)
    ids[[CLASSES.index(name) for name in SOUGHT]] = np.arange(1, len(SOUGHT) + 1)
    for place in range(places):
        style = sample_style(np.random.default_rng([SEED, place]))
        for number in range(images):
            focus = SOUGHT[(place + number % 2) % len(SOUGHT)]
            scene = render_scene(style, np.random.default_rng([SEED, place, number]), side, focus)
            name = f"place{place:02d}_{number}"
            Image.fromarray(scene.image).save(folder / f"{name}.png")
            Image.fromarray(ids[scene.classes]).save(folder / f"{name}_mask.png")
    names = {0: "background", **dict(enumerate(SOUGHT, start=1))}
    (folder / "classes.json").write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
