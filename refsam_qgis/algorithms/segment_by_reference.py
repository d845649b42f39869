"""``refsam:segmentbyreference``: find the class of a few examples over a whole raster."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
)

from ..engine.job import SegmentJob, SegmentOutputs
from ..host.qgis_compat import VECTOR_POLYGON
from .base import RefSAMAlgorithm
from .files import not_a_file
from .parameters import decision, model, polygons, raster, references
from .styles import MaskStyle, PolygonStyle, ProbabilityStyle, style_when_loaded
from .values import Values
from .vector_exchange import OBJECT_FIELDS, deliver_polygons


class SegmentByReference(RefSAMAlgorithm):
    """Turns a raster and marked examples into polygons, a mask, probabilities and a report."""

    INPUT = "INPUT"
    EXTENT = "EXTENT"
    OUTPUT = "OUTPUT"
    MASK = "MASK"
    PROBABILITY = "PROBABILITY"
    REPORT = "REPORT"
    OBJECT_COUNT = "OBJECT_COUNT"
    DEVICE_USED = "DEVICE_USED"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "segmentbyreference"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Segment by reference")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "segment anything,sam,virefsam,few-shot,example,deep learning,detection,objects,polygons,mask"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Finds the classes of a few marked examples over a whole raster.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Outline a few examples of a class (or several, told apart by a class field) and find all of it in a "
            "raster, without marking anything there. The examples may lie on the same raster or on another one, or "
            "come from a reference set.\n\n"
            "Examples can be polygons, lines (scribbles) or points. If there are objects of the class near the "
            "examples that are not outlined, set the annotation to 'partial'.\n\n"
            "The computation runs in RefSAM's own Python environment on this machine; nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, self.tr("Raster to search")),
            self.tr("The raster in which the classes are found: any data type and number of bands."),
        )
        references.declare(self, self.tr("Without it, the raster to search."))
        model.declare(self)
        raster.declare(self, self.INPUT, self.tr("derives it from the examples"), by_examples=True)
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, self.tr("Extent"), optional=True),
            self.tr("Part of the raster to search, in any CRS. Without it, all of it."),
            advanced=True,
        )
        decision.declare(self)
        polygons.declare(self, self.INPUT)
        self._declare_outputs()

    def _declare_outputs(self) -> None:
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, self.tr("Polygons"), VECTOR_POLYGON),
            self.tr(
                "The objects found, with a number that stays the same from run to run, class, class number, score "
                "(0 to 1) and area in square metres on the ellipsoid."
            ),
        )
        self.add(
            QgsProcessingParameterRasterDestination(self.MASK, self.tr("Mask")),
            self.tr("Raster of class numbers: 0 background, 1 the first class, …, 255 no data."),
        )
        self.add(
            QgsProcessingParameterRasterDestination(
                self.PROBABILITY, self.tr("Probability"), optional=True, createByDefault=False
            ),
            self.tr("Raster with one band of probabilities per class."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.REPORT, self.tr("Report"), self.tr("JSON files (*.json)"), optional=True, createByDefault=False
            ),
            self.tr(
                "Every parameter, version, digest, device and time of the run, and the command that repeats it in QGIS."
            ),
        )
        self.addOutput(QgsProcessingOutputNumber(self.OBJECT_COUNT, self.tr("Number of objects")))
        self.addOutput(QgsProcessingOutputString(self.DEVICE_USED, self.tr("Device used")))

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        layer = values.raster(self.INPUT)
        return (
            not_a_file(layer)
            or references.problem(values)
            or raster.problem(values, layer.bandCount())
            or model.problem(values)
        )

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        layer = values.raster(self.INPUT)
        self._raster_path, self._crs = self.engine_rasters.path(layer), layer.crs()
        self._references = references.prepare(values)

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        outputs = SegmentOutputs(
            polygons=QgsProcessingUtils.generateTempFilename("polygons.gpkg"),
            mask=values.output_raster(self.MASK),
            probability=values.output_raster(self.PROBABILITY),
            report=values.output_file(self.REPORT),
        )
        job = SegmentJob(
            input=self._raster_path,
            references=self._references.export(values, feedback),
            outputs=outputs,
            model=model.read(values),
            raster=raster.read(values),
            polygons=polygons.read(values),
            extent=values.extent(self.EXTENT, self._crs),
            threshold=decision.threshold(values),
            separate=decision.separate(values),
        )
        result = self.run_in_engine(job, feedback)
        found = deliver_polygons(values, self.OUTPUT, str(outputs.polygons), OBJECT_FIELDS, self._crs, feedback)
        style_when_loaded(values.context, found, PolygonStyle)
        style_when_loaded(values.context, outputs.mask, MaskStyle)
        style_when_loaded(values.context, outputs.probability, ProbabilityStyle)
        written = {self.MASK: outputs.mask, self.PROBABILITY: outputs.probability, self.REPORT: outputs.report}
        return {
            **{name: path for name, path in written.items() if path},
            self.OUTPUT: found,
            self.OBJECT_COUNT: result["object_count"],
            self.DEVICE_USED: result["device"],
        }
