"""Few-shot episodes: which class is sought in which image, with which references."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import RefSAMError
from ..image_folder import ImageFolder, Sample


@dataclass(frozen=True)
class Episode:
    """One search.

    Attributes:
        class_id: The class sought.
        query: Index of the sample searched in `ImageFolder.samples`.
        supports: Indices of the K reference samples, each from another file than the query and than one another.
    """

    class_id: int
    query: int
    supports: tuple[int, ...]


def draw_episodes(folder: ImageFolder, shots: int, count: int, seed: int) -> list[Episode]:
    """Draw the episode list of the few-shot protocol (VRP-SAM, R2Net).

    The samples are walked in shuffled order, again and again until there are enough episodes; each walk picks one of
    the classes present in the query at random and K references of that class. Parts of one large image never refer
    to each other.

    Args:
        folder: The labelled images.
        shots: References per episode, K.
        count: Number of episodes.
        seed: Equal seeds give equal lists.

    Raises:
        RefSAMError: With code ``input`` if no class is present in K + 1 files, or a number is not positive.
    """
    if shots < 1 or count < 1:
        raise RefSAMError("input", f"Shots {shots} and episodes {count} must both be at least 1.")
    sources = _samples_by_class_and_file(folder.samples)
    usable = {class_id for class_id, files in sources.items() if len(files) > shots}
    queries = [i for i, sample in enumerate(folder.samples) if usable.intersection(sample.classes)]
    if not queries:
        where = folder.samples[0].image.parent
        raise RefSAMError(
            "input",
            f"No class is present in {shots + 1} images of '{where}'; add labelled images or ask for fewer shots.",
        )
    rng = random.Random(seed)
    walk = _walk(queries, rng)
    return [_draw(folder.samples, sources, usable, next(walk), shots, rng) for _ in range(count)]


def _samples_by_class_and_file(samples: tuple[Sample, ...]) -> dict[int, dict[Path, list[int]]]:
    sources: dict[int, dict[Path, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        for class_id in sample.classes:
            sources[class_id][sample.image].append(index)
    return sources


def _walk(queries: list[int], rng: random.Random) -> Iterator[int]:
    while True:
        yield from rng.sample(queries, len(queries))


def _draw(
    samples: tuple[Sample, ...],
    sources: dict[int, dict[Path, list[int]]],
    usable: set[int],
    query: int,
    shots: int,
    rng: random.Random,
) -> Episode:
    class_id = rng.choice([c for c in samples[query].classes if c in usable])
    files = [file for file in sources[class_id] if file != samples[query].image]
    supports = tuple(rng.choice(sources[class_id][file]) for file in rng.sample(files, shots))
    return Episode(class_id, query, supports)
