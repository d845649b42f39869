"""Networks that stay loaded between the jobs of one process."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from .job import ModelOptions
from .runner import Loader

if TYPE_CHECKING:
    from .models.segmenter import ReferenceSegmenter

Key = tuple[ModelOptions, tuple[int, ...]]


class ModelCache:
    """A `Loader` that keeps the last networks and reloads one whose files changed.

    Args:
        load: Loads a network from disk.
        capacity: How many networks stay; the one unused for longest goes first.

    Attributes:
        loads: How many networks were loaded so far.
    """

    def __init__(self, load: Loader, capacity: int = 1) -> None:
        self.loads = 0
        self._load = load
        self._capacity = capacity
        self._loaded: OrderedDict[Key, ReferenceSegmenter] = OrderedDict()

    def __call__(self, options: ModelOptions) -> ReferenceSegmenter:
        """Return the network of `options`, loaded at most once while its files stay as they are."""
        key = (options, _stamps(options))
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        while len(self._loaded) >= self._capacity:  # before loading: two large networks may not fit into memory
            self._loaded.popitem(last=False)
        segmenter = self._load(options)
        self.loads += 1
        self._loaded[key] = segmenter
        return segmenter


def _stamps(options: ModelOptions) -> tuple[int, ...]:
    """Modification times of the files behind `options`; a missing file is the loader's to report."""
    stamps = []
    for path in (options.checkpoint, options.adapters):
        stamps.append(os.stat(path).st_mtime_ns if path and os.path.exists(path) else 0)
    return tuple(stamps)
