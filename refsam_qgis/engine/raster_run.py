"""One run over a raster: what is read, what is written aside meanwhile, its time and its record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import cached_property
from typing import Any

import rasterio
import torch

from .events import Reporter, check_cancelled
from .job import EverythingJob, ModelOptions, PromptsJob, SegmentJob
from .rasters.outputs import OutputFiles
from .rasters.parts import files_of
from .rasters.source import CACHE_BYTES, RasterSource
from .report import Clock, describe_input, write_report

RasterJob = SegmentJob | PromptsJob | EverythingJob


class RasterRun:
    """What `raster_run` gives.

    Attributes:
        clock: Began with the run.
        outputs: Where to write; they have their final names after `publish`.
    """

    _raster: RasterSource

    def __init__(
        self, job: RasterJob, reporter: Reporter, clock: Clock, outputs: OutputFiles, stack: ExitStack
    ) -> None:
        self.clock = clock
        self.outputs = outputs
        self._job = job
        self._reporter = reporter
        self._stack = stack

    def open(self, stretch: str) -> RasterSource:
        """Open the job's raster in its bands as long as the run lasts; see `RasterSource` for `stretch` and errors."""
        self._raster = self._stack.enter_context(RasterSource(self._job.input, self._job.raster.bands, stretch))
        return self._raster

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the opened raster is and how it is read, as `describe_input` finds it at first need."""
        return describe_input(self._raster)

    def report(
        self,
        job: RasterJob,
        options: ModelOptions,
        device: torch.device,
        result: Mapping[str, Any],
        further: Mapping[str, Any],
    ) -> None:
        """Write the report, which is to be among the outputs; arguments and errors as of `write_report`."""
        document = {"input": self.source, **further}
        write_report(str(self.outputs["report"]), job, options, device, self.clock, result, document)

    def publish(self) -> None:
        """Give the outputs their final names; nothing may appear once the user has read that the run is cancelled."""
        check_cancelled(self._reporter)
        self.outputs.commit()


@contextmanager
def raster_run(
    job: RasterJob, suffixes: Mapping[str, tuple[str, ...]], inputs: Iterable[str], reporter: Reporter
) -> Iterator[RasterRun]:
    """Begin a run; when it ends without `RasterRun.publish`, nothing is left of its outputs.

    Args:
        job: What to do.
        suffixes: Allowed file name endings by output name.
        inputs: Files that are read besides the raster and the model, and that no output may replace.
        reporter: Says when to stop.

    Raises:
        RefSAMError: As `OutputFiles`.
    """
    clock = Clock()
    read = files_of([job.input, *inputs]) + job.model.files()
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES))
        outputs = stack.enter_context(OutputFiles(asdict(job.outputs), suffixes, read))
        yield RasterRun(job, reporter, clock, outputs, stack)
