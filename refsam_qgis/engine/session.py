"""What the runs of one job share: the examples, the network, and what it says of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .events import OnceReporter, Reporter, check_cancelled
from .job import ModelOptions, PolygonOptions, RasterOptions, ReferenceSource
from .models.segmenter import ReferenceSegmenter
from .references.descriptions import describe
from .references.gather import ReferenceSet, gather_references
from .runner import Loader

RECENT = 4
"""Ground sizes whose chips and descriptions are kept; the rasters of a folder seldom have more."""

LEAST_OF_EXAMPLE = 0.05
"""Automatic smallest area of a polygon as a share of the typical example: about a fifth of its length and width."""


@dataclass(frozen=True)
class Described:
    """A network and its descriptions of what is sought: of every class, then of the negatives if there are any."""

    model: ReferenceSegmenter
    classes: Sequence[Any]


class Session:
    """Reads, loads and describes at first need, and each thing once.

    Args:
        source: Where the examples are.
        default_raster: Raster of the marks if `source` names none; the bands in `reading` are its.
        reading: How it is read.
        options: Network, weights and device.
        load: Gives the network.
        reporter: Hears about what was left out, and says when to stop.

    Attributes:
        reporter: The same; what holds for all of the runs is to be told through it, since it says each thing once.
    """

    def __init__(
        self,
        source: ReferenceSource,
        default_raster: str,
        reading: RasterOptions,
        options: ModelOptions,
        load: Loader,
        reporter: Reporter,
    ) -> None:
        self.options = options
        self._source = source
        self._default_raster = default_raster
        self._reading = reading
        self._load = load
        self.reporter = OnceReporter(reporter)
        self._references: dict[float | None, ReferenceSet] = {}
        self._described: dict[float | None, Described] = {}
        self._told = 0.0

    @cached_property
    def model(self) -> ReferenceSegmenter:
        """The network."""
        return self._load(self.options)

    def references(self, ground_size: float | None) -> ReferenceSet:
        """Return the examples as chips of a ground size, or of their own one; see `gather_references`."""
        if ground_size not in self._references:
            _make_room(self._references)
            self._references[ground_size] = gather_references(
                self._source,
                self._default_raster,
                self._reading.bands,
                self._reading.stretch,
                self.reporter,
                ground_size,
            )
        return self._references[ground_size]

    def described(self, ground_size: float | None) -> Described:
        """Return the network with its descriptions of `references`."""
        if ground_size not in self._described:
            _make_room(self._described)
            self._described[ground_size] = self._describe(self.model, self.options, self.references(ground_size))
        return self._described[ground_size]

    def described_on_cpu(self, ground_size: float | None) -> Described:
        """Return the same on the CPU, for a device that has too little memory."""
        options = replace(self.options, device="cpu")
        return self._describe(self._load(options), options, self.references(ground_size))

    def polygon_options(self, options: PolygonOptions, ground_size: float | None) -> PolygonOptions:
        """Return the options with the smallest area derived from the examples if it is not given."""
        if options.min_area is not None:
            return options
        least = self.references(ground_size).typical_example * LEAST_OF_EXAMPLE
        if least != self._told:
            self._told = least
            self.reporter.log(
                f"Polygons below {least:.3g} m², a twentieth of the typical example, are left out; give a smallest "
                "area to change that."
            )
        return replace(options, min_area=least)

    def _describe(self, model: ReferenceSegmenter, options: ModelOptions, references: ReferenceSet) -> Described:
        shots = [reference.shots for reference in references.classes]
        if references.negative is not None:
            shots.append(references.negative)
        described = []
        for of_class in shots:
            check_cancelled(self.reporter)
            described.append(describe(model, options, of_class))
        return Described(model, described)


def _make_room(kept: dict[float | None, Any]) -> None:
    """Forget what was made first."""
    while len(kept) >= RECENT:
        del kept[next(iter(kept))]
