"""Few-shot episodes: which class is sought in which image, with which references."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import RefSAMError
from ..image_folder import Sample
from .datasets.dataset import Dataset


@dataclass(frozen=True)
class Episode:
    """One search.

    Attributes:
        class_id: The class sought.
        query: Index of the sample searched in `Dataset.samples`.
        supports: Indices of the K reference samples, each of another source than the query and than one another.
    """

    class_id: int
    query: int
    supports: tuple[int, ...]


def draw_episodes(
    dataset: Dataset, shots: int, count: int, seed: int, classes: Iterable[int] | None = None
) -> list[Episode]:
    """Draw the episode list of the few-shot protocol (VRP-SAM, R2Net).

    The samples are walked in shuffled order, again and again until there are enough episodes; each walk picks one of
    the classes present in the query at random and K references of that class. Samples of one source never refer to
    each other.

    Args:
        dataset: The labelled images.
        shots: References per episode, K.
        count: Number of episodes.
        seed: Equal seeds give equal lists.
        classes: Ids of the classes sought, those of a fold; ``None`` for all.

    Raises:
        RefSAMError: With code ``input`` if no class is present in K + 1 sources, or a number is not positive.
    """
    if shots < 1 or count < 1:
        raise RefSAMError("input", f"Shots {shots} and episodes {count} must both be at least 1.")
    sought = set(dataset.names) if classes is None else set(classes)
    sources = _samples_by_class_and_source(dataset.samples)
    usable = {class_id for class_id, of_class in sources.items() if class_id in sought and len(of_class) > shots}
    queries = [i for i, sample in enumerate(dataset.samples) if usable.intersection(sample.classes)]
    if not queries:
        names = ", ".join(dataset.names[i] for i in sorted(sought))
        raise RefSAMError(
            "input",
            f"None of the classes {names} is present in {shots + 1} images of "
            f"'{dataset.samples[0].image.parent}' with as many pixels as were asked for; add labelled images, or ask "
            "for fewer shots or pixels.",
        )
    rng = random.Random(seed)
    walk = _walk(queries, rng)
    return [_draw(dataset.samples, sources, usable, next(walk), shots, rng) for _ in range(count)]


def draw_seeds(master: int, count: int) -> list[int]:
    """Draw the seeds of several runs from a master seed, as R2Net does; equal masters give equal beginnings."""
    rng = random.Random(master)
    return [rng.randrange(2**31) for _ in range(count)]


def _samples_by_class_and_source(samples: tuple[Sample, ...]) -> dict[int, dict[str, list[int]]]:
    sources: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        for class_id in sample.classes:
            sources[class_id][sample.source].append(index)
    return sources


def _walk(queries: list[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(queries, len(queries))


def _draw(
    samples: tuple[Sample, ...],
    sources: dict[int, dict[str, list[int]]],
    usable: set[int],
    query: int,
    shots: int,
    rng: random.Random,
) -> Episode:
    class_id = rng.choice([c for c in samples[query].classes if c in usable])
    others = [source for source in sources[class_id] if source != samples[query].source]
    supports = tuple(rng.choice(sources[class_id][source]) for source in rng.sample(others, shots))
    return Episode(class_id, query, supports)
