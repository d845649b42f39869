"""The job that makes a reference set from marked examples, or adds shots to one."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import rasterio

from refsam_qgis import __version__

from ..errors import RefSAMError
from ..events import OnceReporter, Reporter, check_cancelled
from ..job import RefsetJob
from ..rasters.outputs import OutputFiles, disk_errors
from ..rasters.parts import files_of
from ..rasters.source import CACHE_BYTES, RasterSource
from ..runner import Loader
from ..vectors import value_order
from .chips import Chip, ChipSet
from .contact_sheet import draw_contact_sheet
from .gather import MarkedRaster, choose_ground_size, cut_chips, open_marked, require_chips
from .marks import MAX_CLASSES
from .refset_file import read_refset, verify_refset, write_refset

MAX_SET_CHIPS = 30
"""Most chips of a class in a set; each must be encoded, and its background is compared with in every tile."""
SUFFIXES = {"refset": (".refset",), "picture": (".png",)}
SIZE_TOLERANCE = 0.01
"""Relative difference up to which a chip size that is asked for is that of the set."""


def run_refset(job: RefsetJob, reporter: Reporter, load: Loader | None = None) -> dict[str, Any]:
    """Write a reference set, and a picture of it if the job asks for one.

    Args:
        job: What to do.
        reporter: Hears the progress and says when to stop.
        load: Not used: a reference set does not depend on a model.

    Returns:
        ``classes`` (name, chips, chips_added), ``negative_chips``, ``chips_added``, ``chips_skipped`` (in the set
        already, or more than it holds), ``chip_ground_size`` in metres and ``outputs`` (paths by name).

    Raises:
        RefSAMError: When the job cannot be done; no output is left then, and a set that is added to stays as it was.
    """
    paths = {"refset": job.output, "picture": job.picture}
    inputs = files_of(path for source in job.sources for path in source.files())
    if job.base is not None and os.path.realpath(job.base) != os.path.realpath(job.output):
        inputs.append(job.base)
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        outputs = stack.enter_context(OutputFiles(paths, SUFFIXES, inputs))
        reporter.progress(0.0, "Reading marks")
        base = None if job.base is None else read_refset(job.base, reporter)
        marked: list[MarkedRaster] = []
        once = OnceReporter(reporter)
        for source in job.sources:
            check_cancelled(reporter)
            assert source.raster is not None  # the job's own check
            opened = open_marked(source, source.raster, job.bands, job.stretch, once)
            marked.append(stack.enter_context(opened))
        ground_size = _ground_size(job, base, marked)
        cuts = []
        for number, one in enumerate(marked):
            reporter.progress(0.1 + 0.6 * number / len(marked), "Cutting chips")
            cuts.append(_completed(cut_chips(one, ground_size, reporter), one.raster))
        chips = _joined(base or ChipSet(ground_size, {}), cuts, reporter)
        require_chips(chips, marked)
        if len(chips.classes) > MAX_CLASSES:
            raise RefSAMError(
                "reference", f"The set would hold {len(chips.classes)} classes; use at most {MAX_CLASSES}."
            )
        check_cancelled(reporter)
        reporter.progress(0.7, "Writing the set")
        if (path := outputs["refset"]) is not None:
            write_refset(path, chips, reporter)
            reporter.progress(0.85, "Reading it again")  # nothing that cannot be read may replace a set
            verify_refset(path, job.output, reporter)
        if (path := outputs["picture"]) is not None:
            reporter.progress(0.9, "Drawing the picture")
            with disk_errors(path):
                draw_contact_sheet(chips, reporter).save(path)
        check_cancelled(reporter)
        outputs.commit()
    reporter.progress(1.0, "Done", 0.0)
    return _result(job, base, chips, cuts)


def _ground_size(job: RefsetJob, base: ChipSet | None, marked: Sequence[MarkedRaster]) -> float:
    """Return the side of the chips: that of the set they join, else the one asked for, else by the marks."""
    if base is None:
        return job.chip_size or choose_ground_size(marked)
    if job.chip_size and abs(job.chip_size / base.ground_size - 1) > SIZE_TOLERANCE:
        raise RefSAMError(
            "input",
            f"The chips of '{job.base}' are {base.ground_size:g} m wide, not {job.chip_size:g} m; leave the chip size "
            "at 0, or make a new set.",
        )
    return base.ground_size


def _completed(chips: ChipSet, raster: RasterSource) -> ChipSet:
    """Add to every chip how it can be stretched, and to its origin when it was made and by what."""
    made = {"made": datetime.date.today().isoformat(), "made_by": f"RefSAM {__version__}"}
    limits = None
    if raster.is_8_bit and raster.limits is None:
        with suppress(RefSAMError):  # a raster that is damaged elsewhere gives its chips all the same
            limits = raster.stretch_limits()

    def complete(cut: Sequence[Chip]) -> list[Chip]:
        return [replace(chip, origin={**chip.origin, **made}, limits=limits) for chip in cut]

    return chips.changed(complete)


def _joined(base: ChipSet, cuts: Sequence[ChipSet], reporter: Reporter) -> ChipSet:
    """Add chips to a set; its classes keep their order and come before new ones."""
    new = {name for cut in cuts for name in cut.classes} - set(base.classes)
    classes: dict[str, list[Chip]] = {}
    for name in [*base.classes, *sorted(new, key=value_order)]:
        found = [cut.classes.get(name, ()) for cut in cuts]
        classes[name] = _merged(f"class '{name}'", base.classes.get(name, ()), found, reporter)
    negatives = _merged("the negatives", base.negatives, [cut.negatives for cut in cuts], reporter)
    return ChipSet(base.ground_size, classes, negatives)


def _merged(what: str, present: Sequence[Chip], cuts: Sequence[Sequence[Chip]], reporter: Reporter) -> list[Chip]:
    """Add the chips that are not there yet, up to `MAX_SET_CHIPS`, taking the best of every source before others."""
    seen = {chip.digest for chip in present}
    fresh: list[tuple[int, int, Chip]] = []
    for number, cut in enumerate(cuts):
        for rank, chip in enumerate(cut):
            if (digest := chip.digest) not in seen:
                seen.add(digest)
                fresh.append((rank, number, chip))
    if known := sum(map(len, cuts)) - len(fresh):
        reporter.log(f"Chips of {what} that are in the set already and are skipped: {known}.")
    room = max(0, MAX_SET_CHIPS - len(present))
    if (excess := len(fresh) - room) > 0:
        reporter.log(f"Chips of {what} that are left out, since a set holds {MAX_SET_CHIPS} of each: {excess}.")
    taken = sorted(fresh, key=lambda item: item[:2])[:room]
    return [*present, *(chip for _, _, chip in sorted(taken, key=lambda item: (item[1], item[0])))]


def _result(job: RefsetJob, base: ChipSet | None, chips: ChipSet, cuts: Sequence[ChipSet]) -> dict[str, Any]:
    before = base or ChipSet(chips.ground_size, {})
    added = len(chips.chips()) - len(before.chips())
    return {
        "classes": [
            {"name": name, "chips": len(shown), "chips_added": len(shown) - len(before.classes.get(name, ()))}
            for name, shown in chips.classes.items()
        ],
        "negative_chips": len(chips.negatives),
        "chips_added": added,
        "chips_skipped": sum(len(cut.chips()) for cut in cuts) - added,
        "chip_ground_size": chips.ground_size,
        "outputs": {
            name: path for name, path in (("refset", job.output), ("picture", job.picture)) if path is not None
        },
    }
