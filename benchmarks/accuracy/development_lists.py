"""Episodes that choices are made by, apart from all that is trained on: whole tiles, one reference.

None is of the evaluation data: unseen generated classes, and a real scene that no training sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from refsam_qgis.engine.training.calibrate import PLAIN
from refsam_qgis.engine.training.episodes import Episodes
from refsam_qgis.engine.training.other_sensors import OtherSensorEpisodes
from refsam_qgis.engine.training.sources import TEST_CLASSES, Place, read_places

STREAM = 9
"""Draws of these episodes are apart from all others."""
SCENE = "tile7"
"""The real scene that no training sees."""
NOT_IN_SCENE = ("plane", "storage_tank")
"""Generated classes, none of training, that a look at the images of the scene did not find."""
MOST_DRAWS = 400
"""Episodes that may hold the class before the search for targets without it is given up."""
DRAWS = replace(PLAIN, real_share=0.0)

Drawn = dict[str, Iterator[dict[str, Tensor]]]


def split_scenes(folder: Path) -> tuple[list[Place], list[Place]]:
    """Read the real places of a folder: those of training, and the one that no training sees."""
    places = read_places(folder)
    return [place for name, place in places.items() if name != SCENE], [places[SCENE]]


def targets_with_class(known: Sequence[Place], unseen: Sequence[Place], count: int) -> Drawn:
    """Draw so many episodes of each list, by name.

    Args:
        known: Real places of training; references may come from there.
        unseen: The real place that no training sees.
        count: Episodes of a list. Of those across sensors, half are drawn without regard to the class.
    """
    draws = replace(DRAWS, steps=count)
    real = replace(draws, real_share=1.0)
    apart = replace(draws, without_focus_share=0.5, seed=12)
    lists = {
        "generated": Episodes(replace(draws, seed=2), (), sorted(TEST_CLASSES), STREAM),
        "scene within": Episodes(replace(real, seed=3), unseen, stream=STREAM),
        "scene across": Episodes(replace(real, seed=4), unseen, stream=STREAM, support=known),
        "other sensors": OtherSensorEpisodes(apart, unseen, (), STREAM),
    }
    return {name: each(episodes) for name, episodes in lists.items()}


def targets_without_class(known: Sequence[Place], unseen: Sequence[Place], count: int) -> Drawn:
    """Draw likewise, but targets that hold none of the class; arguments as above."""
    draws = replace(DRAWS, steps=MOST_DRAWS, without_focus_share=1.0)
    real = replace(draws, real_share=1.0)
    lists = {
        "generated": Episodes(replace(draws, seed=5), (), sorted(TEST_CLASSES), STREAM),
        "scene within": Episodes(replace(real, seed=6), unseen, stream=STREAM),
        "scene across": Episodes(replace(real, seed=7), unseen, stream=STREAM, support=known),
        "other sensors": OtherSensorEpisodes(replace(draws, seed=13), unseen, NOT_IN_SCENE, STREAM),
    }
    return {name: _without(episodes, count) for name, episodes in lists.items()}


def each(episodes: Episodes) -> Iterator[dict[str, Tensor]]:
    """Draw episode by episode."""
    for index in range(len(episodes)):
        yield episodes[index]


def _without(episodes: Episodes, count: int) -> Iterator[dict[str, Tensor]]:
    found = 0
    for batch in each(episodes):
        if not bool(batch["mask"].any()):
            found += 1
            yield batch
        if found == count:
            return


def class_iou(answers: Iterable[tuple[str, Tensor, Tensor, Tensor]]) -> float:
    """Mean over classes of intersections and unions that are summed by class (method A7).

    Args:
        answers: Of each target its class, what is found, what is true and which pixels count, bool of one shape.
    """
    totals: dict[str, NDArray[np.int64]] = {}
    for class_name, found, truth, counted in answers:
        shared, union = (found & truth & counted).sum(), ((found | truth) & counted).sum()
        totals[class_name] = totals.get(class_name, np.zeros(2, np.int64)) + np.array([int(shared), int(union)])
    return float(np.mean([shared / max(union, 1) for shared, union in totals.values()]))


def marked_share(found: Tensor, counted: Tensor) -> float:
    """Share of the pixels that count which are marked, 0..1; bool tensors of one shape."""
    return float(found[counted].float().mean())
