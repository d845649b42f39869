"""Which scenes train and which validate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .sources import Place

P = TypeVar("P", bound=Place)


def split_places(places: Sequence[P], share: float, seed: int) -> tuple[list[P], list[P]]:
    """Set whole scenes aside for validation.

    Scenes are taken in random order; one that shows the last of a class stays in training.

    Args:
        places: The scenes.
        share: Part of them to set aside; at least one if it is not 0.
        seed: Equal seeds give equal splits.

    Returns:
        Scenes for training, and for validation: none when no scene can be spared.
    """
    wanted = min(max(1, round(share * len(places))), len(places) - 1) if share else 0
    left = Counter(name for place in places for name in place.class_names())
    chosen: set[int] = set()
    for index in np.random.default_rng([seed, len(places)]).permutation(len(places)):
        names = places[index].class_names()
        if len(chosen) < wanted and all(left[name] > 1 for name in names):
            chosen.add(int(index))
            left.subtract(names)
    return (
        [place for i, place in enumerate(places) if i not in chosen],
        [place for i, place in enumerate(places) if i in chosen],
    )
