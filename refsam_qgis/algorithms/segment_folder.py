"""``refsam:segmentfolder``: find the classes of a few examples in many rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
    QgsProcessingUtils,
)

from ..engine.job import FolderJob
from ..host.qgis_compat import FOLDER, RASTER, TABLE, VECTOR_POLYGON
from .base import RefSAMAlgorithm
from .files import chosen_path, not_a_file, warn_if_temporary
from .parameters import decision, model, polygons, raster, references
from .styles import PolygonStyle, style_when_loaded
from .values import Values
from .vector_exchange import OBJECT_FIELDS, deliver_polygons, deliver_table


class SegmentFolder(RefSAMAlgorithm):
    """Turns many rasters and marked examples into results of each, one merged layer and a table of failures."""

    EXPLAINED_BY_ENGINE = ("INPUTS",)

    INPUT_FOLDER = "INPUT_FOLDER"
    PATTERN = "PATTERN"
    RECURSIVE = "RECURSIVE"
    INPUTS = "INPUTS"
    PROBABILITY_RASTERS = "PROBABILITY_RASTERS"
    REDO = "REDO"
    OUTPUT_FOLDER = "OUTPUT_FOLDER"
    OUTPUT = "OUTPUT"
    FAILURES = "FAILURES"
    DONE_COUNT = "DONE_COUNT"
    SKIPPED_COUNT = "SKIPPED_COUNT"
    FAILED_COUNT = "FAILED_COUNT"
    OBJECT_COUNT = "OBJECT_COUNT"
    DEVICE_USED = "DEVICE_USED"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "segmentfolder"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Segment a folder by reference")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "segment anything,sam,virefsam,few-shot,batch,folder,several,many,rasters,deep learning,detection"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Finds the classes of a few marked examples in all rasters of a folder, or in several layers.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Finds the classes of a few marked examples, or of a reference set, in many rasters with one loaded model. "
            "Every raster gives a mask, polygons and a report in the output folder; all polygons together give one "
            "layer that names the raster of each.\n\n"
            "A raster that cannot be searched does not stop the others: it stands with the reason in the table of "
            "failures. Run again with the same output folder, it does only what is missing or has changed.\n\n"
            "The computation runs in RefSAM's own Python environment on this machine; nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self._declare_rasters()
        references.declare(self, self.tr("Needed with examples."))
        model.declare(self)
        raster.declare(self, None, self.tr("derives it from the examples"), by_examples=True)
        decision.declare(self)
        polygons.declare(self, None)
        self.add(
            QgsProcessingParameterBoolean(self.PROBABILITY_RASTERS, self.tr("Write probabilities"), False),
            self.tr("Every raster gives one more with a band of probabilities per class."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBoolean(self.REDO, self.tr("Do everything again"), False),
            self.tr("Rasters are searched again though their results are there and nothing has changed."),
            advanced=True,
        )
        self._declare_outputs()

    def _declare_rasters(self) -> None:
        self.add(
            QgsProcessingParameterFile(self.INPUT_FOLDER, self.tr("Folder to search"), behavior=FOLDER, optional=True),
            self.tr("Folder with the rasters. Leave it empty to choose layers instead."),
        )
        self.add(
            QgsProcessingParameterString(self.PATTERN, self.tr("File names"), FolderJob.pattern),
            self.tr("Which files of the folder are taken; several patterns are separated by a semicolon."),
        )
        self.add(
            QgsProcessingParameterBoolean(self.RECURSIVE, self.tr("Folders inside, too"), FolderJob.recursive),
            self.tr("Whether folders inside the folder are searched; their results keep their place."),
        )
        self.add(
            QgsProcessingParameterMultipleLayers(self.INPUTS, self.tr("Rasters to search"), RASTER, optional=True),
            self.tr("Raster layers or files, instead of a folder."),
        )

    def _declare_outputs(self) -> None:
        self.add(
            QgsProcessingParameterFolderDestination(self.OUTPUT_FOLDER, self.tr("Output folder")),
            self.tr(
                "Folder for mask, polygons and report of each raster. Keep it to go on from there next time, which "
                "a temporary one does not allow."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, self.tr("All polygons"), VECTOR_POLYGON, optional=True),
            self.tr(
                "The objects found in all rasters, with attributes as of each raster and its name as 'source'. Rasters "
                "without a CRS are left out where others have one."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(self.FAILURES, self.tr("Failures"), TABLE, optional=True),
            self.tr("A table with each raster that could not be searched and the reason."),
        )
        for name, label in (
            (self.DONE_COUNT, self.tr("Number of rasters done")),
            (self.SKIPPED_COUNT, self.tr("Number of rasters done before")),
            (self.FAILED_COUNT, self.tr("Number of rasters failed")),
            (self.OBJECT_COUNT, self.tr("Number of objects")),
        ):
            self.addOutput(QgsProcessingOutputNumber(name, label))
        self.addOutput(QgsProcessingOutputString(self.DEVICE_USED, self.tr("Device used")))

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        return (
            self._rasters_problem(values)
            or references.problem(values, needs_raster=True)
            or raster.problem(values)
            or model.problem(values)
        )

    def _rasters_problem(self, values: Values) -> str:
        folder, rasters = values.file(self.INPUT_FOLDER), values.raster_files(self.INPUTS)
        if folder and rasters:
            return self.tr("A folder and rasters are both chosen; leave one of them empty.")
        if folder and not Path(folder).is_dir():
            return self.tr("There is no folder '{}'; choose another.").format(folder)
        if not folder and not rasters:
            return self.tr("There is nothing to search; choose a folder, or rasters.")
        if folder and not values.text(self.PATTERN).strip(" ;"):
            return self.tr("The file names are empty; give a pattern such as *.tif.")
        return next(filter(None, map(not_a_file, rasters)), "")

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        self._rasters = tuple(map(self.engine_rasters.path, values.raster_files(self.INPUTS)))
        self._references = references.prepare(values)

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        wanted = bool(values.parameters.get(self.OUTPUT))
        merged = QgsProcessingUtils.generateTempFilename("polygons.gpkg") if wanted else None
        folder = values.output_file(self.OUTPUT_FOLDER)
        warn_if_temporary(self.OUTPUT_FOLDER, str(folder), feedback)
        tables = [chosen_path(values, name) for name in (self.OUTPUT, self.FAILURES)]
        job = FolderJob(
            references=self._references.export(values, feedback),
            output_folder=str(folder),
            folder=values.file(self.INPUT_FOLDER),
            pattern=values.text(self.PATTERN),
            recursive=values.flag(self.RECURSIVE),
            inputs=self._rasters,
            merged=merged,
            further_tables=tuple(str(path) for path in tables if path is not None),
            probability=values.flag(self.PROBABILITY_RASTERS),
            redo=values.flag(self.REDO),
            model=model.read(values),
            raster=raster.read(values),
            polygons=polygons.read(values),
            threshold=decision.threshold(values),
            separate=decision.separate(values),
        )
        result = self.run_in_engine(job, feedback)
        failures, not_merged = (
            [{name: self.in_users_words(text) for name, text in row.items()} for row in result[kind]]
            for kind in ("failures", "not_merged")
        )
        for row in (*failures, *not_merged):
            feedback.pushWarning(f"{row['source']}: {row['reason']}")
        found = None
        if merged is not None:
            found = deliver_polygons(values, self.OUTPUT, merged, (*OBJECT_FIELDS, "source"), None, feedback)
            style_when_loaded(values.context, found, PolygonStyle)
        table = deliver_table(values, self.FAILURES, failures, ("source", "reason"), feedback)
        written = {self.OUTPUT: found, self.FAILURES: table}
        return {
            **{name: path for name, path in written.items() if path},
            self.OUTPUT_FOLDER: folder,
            self.DONE_COUNT: result["done"],
            self.SKIPPED_COUNT: result["skipped"],
            self.FAILED_COUNT: result["failed"],
            self.OBJECT_COUNT: result["object_count"],
            self.DEVICE_USED: result["device"] or "",
        }
