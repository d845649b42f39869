"""What the runs of one job share: the examples, the network, and what it says of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from rasterio import DatasetReader

from .events import OnceReporter, Reporter, check_cancelled
from .job import ModelOptions, PolygonOptions, RasterOptions, ReferenceSource
from .models.segmenter import ReferenceSegmenter
from .rasters.source import open_input, stretches_by_itself
from .references.bands import bands_of_examples
from .references.descriptions import describe
from .references.gather import ReferenceSet, gather_references
from .references.refset_file import stretches_in
from .runner import Loader
from .vectors import count_features

RECENT = 4
"""Ways of showing the examples whose chips and descriptions are kept; the rasters of a folder seldom have more."""

LEAST_OF_EXAMPLE = 0.05
"""Automatic smallest area of a polygon as a share of the typical example: about a fifth of its length and width."""


class Showing(NamedTuple):
    """How examples are shown to the network.

    Attributes:
        bands: Bands of their raster that are read; ``None`` lets it choose.
        stretch: As in `RasterSource`, of their raster and of the one that is searched, so that both are seen alike.
        ground_size: Side of their chips in metres; ``None`` for their own one.
    """

    bands: tuple[int, ...] | None
    stretch: str
    ground_size: float | None


@dataclass(frozen=True)
class Described:
    """A network and its descriptions of what is sought: of every class, then of the negatives if there are any."""

    model: ReferenceSegmenter
    classes: Sequence[Any]


class Session:
    """Reads, loads and describes at first need, and each thing once.

    Args:
        source: Where the examples are.
        default_raster: Raster of the marks if `source` names none.
        reading: How the rasters that are searched are read.
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
        self._bands: dict[int, tuple[int, ...] | None] = {}
        self._stretches: dict[tuple[int, ...] | None, set[bool]] = {}
        self._references: dict[Showing, ReferenceSet] = {}
        self._described: dict[Showing, Described] = {}
        self._told = 0.0

    @cached_property
    def model(self) -> ReferenceSegmenter:
        """The network."""
        return self._load(self.options)

    def showing(self, path: str) -> Showing:
        """Return how the examples are shown for a raster: in its bands, stretched if it is, at their own ground size.

        Raises:
            RefSAMError: When the raster, or what the examples are read from, cannot be opened or has no such bands.
        """
        with open_input(path) as dataset:
            bands = self._bands_of_examples(dataset.count)
            return Showing(bands, self._choose_stretch(dataset, path, bands), None)

    def require_examples(self, band_count: int) -> None:
        """Raise what makes the examples useless for any raster of so many bands, as `references` does."""
        self.references(Showing(self._bands_of_examples(band_count), self._reading.stretch, None))

    def references(self, showing: Showing) -> ReferenceSet:
        """Return the examples as chips; see `gather_references`."""
        showing = self._canonical(showing)
        if showing not in self._references:
            _make_room(self._references)
            self._references[showing] = gather_references(
                self._source,
                self._default_raster,
                showing.bands,
                showing.stretch,
                self.reporter,
                showing.ground_size,
            )
            _ = self.example_count  # the report tells it at the end, when the file may be gone
        return self._references[showing]

    @cached_property
    def example_count(self) -> int | None:
        """Features of the layer of marks, counted when they are read; ``None`` for a reference set."""
        return None if self._source.vector is None else count_features(self._source.vector, self._source.layer)

    def described(self, showing: Showing) -> Described:
        """Return the network with its descriptions of `references`."""
        showing = self._canonical(showing)
        if showing not in self._described:
            _make_room(self._described)
            self._described[showing] = self._describe(self.model, self.options, self.references(showing))
        return self._described[showing]

    def described_on_cpu(self, showing: Showing) -> Described:
        """Return the same on the CPU, for a device that has too little memory."""
        options = replace(self.options, device="cpu")
        return self._describe(self._load(options), options, self.references(showing))

    def polygon_options(self, options: PolygonOptions, showing: Showing) -> PolygonOptions:
        """Return the options with the smallest area derived from the examples if it is not given."""
        if options.min_area is not None:
            return options
        least = self.references(showing).typical_example * LEAST_OF_EXAMPLE
        if least != self._told:
            self._told = least
            self.reporter.log(
                f"Polygons below {least:.3g} m², a twentieth of the typical example, are left out; give a smallest "
                "area to change that."
            )
        return replace(options, min_area=least)

    def _bands_of_examples(self, band_count: int) -> tuple[int, ...] | None:
        if band_count not in self._bands:
            self._bands[band_count] = self._choose_bands(band_count)
        return self._bands[band_count]

    def _choose_bands(self, band_count: int) -> tuple[int, ...] | None:
        chosen, path = self._reading.bands, self._source.raster
        if chosen is None or path is None:
            return chosen
        with open_input(path) as dataset:
            bands = bands_of_examples(chosen, band_count, dataset.count)
        if bands is None:
            self.reporter.log(
                f"Raster '{path}' of the examples has another number of bands than the {band_count} of a raster that "
                f"is searched, so bands {', '.join(map(str, chosen))} are not taken of it there but its own red, green "
                "and blue; put the examples into a reference set with bands of their own to change that."
            )
        return bands

    def _choose_stretch(self, dataset: DatasetReader, path: str, bands: tuple[int, ...] | None) -> str:
        """Choose the stretch of a raster and the examples, read in `bands`: of both if their data types ask it of one.

        Else the one's contrast would be another than the other's, which misleads the network more than anything.
        """
        if self._reading.stretch != "auto":
            return self._reading.stretch
        searched = stretches_by_itself(dataset, path, self._reading.bands)
        if self._stretches_of_examples(bands) <= {searched}:
            return "auto"
        self.reporter.log(
            "The contrast of 8-bit examples is stretched, as that of a raster that is searched is."
            if searched
            else "The contrast of 8-bit rasters that are searched is stretched, as that of examples is."
        )
        return "percentile"

    def _stretches_of_examples(self, bands: tuple[int, ...] | None) -> set[bool]:
        """Return whether there are examples that are stretched by themselves, and whether there are others.

        Nothing is returned for examples on the raster that is searched: they are seen as it is.
        """
        if bands not in self._stretches:
            if self._source.refset is not None:
                self._stretches[bands] = stretches_in(self._source.refset)
            elif self._source.raster is not None:
                with open_input(self._source.raster) as dataset:
                    self._stretches[bands] = {stretches_by_itself(dataset, self._source.raster, bands)}
            else:
                self._stretches[bands] = set()
        return self._stretches[bands]

    def _canonical(self, showing: Showing) -> Showing:
        """Return the one of equal ways of showing under which its chips are kept.

        A raster that is stretched by itself is so in either case, beside rasters of its own kind and of the other.
        """
        if showing.stretch == "percentile" and self._reading.stretch == "auto" and self._source.raster is not None:
            by_itself = self._stretches_of_examples(showing.bands) == {True}
            return showing._replace(stretch="auto") if by_itself else showing
        return showing

    def _describe(self, model: ReferenceSegmenter, options: ModelOptions, references: ReferenceSet) -> Described:
        shots = [reference.shots for reference in references.classes]
        if references.negative is not None:
            shots.append(references.negative)
        described = []
        for of_class in shots:
            check_cancelled(self.reporter)
            described.append(describe(model, options, of_class))
        return Described(model, described)


def _make_room(kept: dict[Showing, Any]) -> None:
    """Forget what was made first."""
    while len(kept) >= RECENT:
        del kept[next(iter(kept))]
