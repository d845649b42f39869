"""``refsam:segmentbyreference``: find the class of a few examples over a whole raster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBand,
    QgsProcessingParameterDistance,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsRasterLayer,
)

from ..engine.errors import RefSAMError
from ..engine.job import (
    ANNOTATIONS,
    DEVICES,
    METHODS,
    MODELS,
    STRETCHES,
    ModelOptions,
    ReferenceSource,
    SegmentJob,
    SegmentOutputs,
)
from ..host.qgis_compat import DOUBLE, INTEGER, POLYGON, VECTOR_POLYGON, VECTOR_WITH_GEOMETRY
from .base import RefSAMAlgorithm
from .vector_exchange import CLASS_FIELD, copy_results, export_references, result_fields


class SegmentByReference(RefSAMAlgorithm):
    """Turns a raster and marked examples into polygons, a mask, probabilities and a report."""

    INPUT = "INPUT"
    REFERENCE_RASTER = "REFERENCE_RASTER"
    REFERENCES = "REFERENCES"
    CLASS_FIELD = "CLASS_FIELD"
    ANNOTATION = "ANNOTATION"
    MODEL = "MODEL"
    CHECKPOINT = "CHECKPOINT"
    ADAPTERS = "ADAPTERS"
    METHOD = "METHOD"
    BANDS = "BANDS"
    STRETCH = "STRETCH"
    EXTENT = "EXTENT"
    TILE_SIZE = "TILE_SIZE"
    OVERLAP = "OVERLAP"
    THRESHOLD = "THRESHOLD"
    MIN_AREA = "MIN_AREA"
    SIMPLIFY = "SIMPLIFY"
    DEVICE = "DEVICE"
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

    def shortHelpString(self) -> str:
        """Text beside the dialog."""
        return self.tr(
            "Outline a few examples of a class (or several, told apart by a class field) and find all of it in a "
            "raster, without marking anything there. The examples may lie on the same raster or on another one.\n\n"
            "Examples can be polygons, lines (scribbles) or points. If there are objects of the class near the "
            "examples that are not outlined, set the annotation to 'partial'.\n\n"
            "The computation runs in RefSAM's own Python environment on this machine; nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self._declare_references()
        self._declare_model()
        self._declare_raster_path()
        self._declare_outputs()

    def _declare_references(self) -> None:
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, self.tr("Raster to search")),
            self.tr("The raster in which the classes are found: any data type and number of bands."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.REFERENCES, self.tr("Examples"), [VECTOR_WITH_GEOMETRY]),
            self.tr("Polygons around examples, lines drawn over them (scribbles), or points on them."),
        )
        self.add(
            QgsProcessingParameterField(
                self.CLASS_FIELD, self.tr("Class field"), parentLayerParameterName=self.REFERENCES, optional=True
            ),
            self.tr("Attribute that holds the class of each example. Without it all are of one class."),
        )
        self.add(
            QgsProcessingParameterRasterLayer(self.REFERENCE_RASTER, self.tr("Raster of the examples"), optional=True),
            self.tr("The raster the examples were drawn on. Without it, the raster to search."),
        )
        self._add_choice(
            self.ANNOTATION,
            self.tr("Annotation"),
            ANNOTATIONS,
            self.tr(
                "'complete': every object of the class around the examples is marked. "
                "'partial': there may be more of them nearby that are not marked."
            ),
            advanced=False,
        )

    def _declare_model(self) -> None:
        self._add_choice(
            self.MODEL,
            self.tr("Model"),
            MODELS,
            self.tr("'compact' comes with RefSAM; the others need their SAM checkpoint."),
        )
        self.add(
            QgsProcessingParameterFile(
                self.CHECKPOINT,
                self.tr("SAM checkpoint"),
                optional=True,
                fileFilter=self.tr("Weights (*.pth *.safetensors)"),
            ),
            self.tr("The weights of the model, in the form published with Segment Anything."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFile(
                self.ADAPTERS, self.tr("Adapters"), optional=True, fileFilter=self.tr("Adapters (*.safetensors)")
            ),
            self.tr("Trained adapters for the model. Without them 'compact' uses its own, the others none."),
            advanced=True,
        )
        self._add_choice(
            self.METHOD,
            self.tr("Method"),
            METHODS,
            self.tr("'auto' uses 'virefsam' where there are adapters for the model, and else 'training_free'."),
        )
        self._add_choice(
            self.DEVICE, self.tr("Device"), DEVICES, self.tr("Where the model runs; 'auto' takes the fastest.")
        )

    def _declare_raster_path(self) -> None:
        self.add(
            QgsProcessingParameterBand(
                self.BANDS, self.tr("Bands"), parentLayerParameterName=self.INPUT, optional=True, allowMultiple=True
            ),
            self.tr("One band, or three to be seen as red, green and blue in this order. Without it they are chosen."),
            advanced=True,
        )
        self._add_choice(
            self.STRETCH,
            self.tr("Contrast stretch"),
            STRETCHES,
            self.tr("How values become 8-bit: 'auto' stretches all but 8-bit data, by percentiles."),
        )
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, self.tr("Extent"), optional=True),
            self.tr("Part of the raster to search, in any CRS. Without it, all of it."),
            advanced=True,
        )
        self._add_number(
            self.TILE_SIZE,
            self.tr("Tile size (pixels of the raster)"),
            SegmentJob.tile_size,
            8192,
            self.tr("Side of the square that the model sees at once, 64 or more; 0 derives it from the examples."),
            INTEGER,
        )
        self._add_number(
            self.OVERLAP,
            self.tr("Overlap (percent of a tile)"),
            SegmentJob.overlap,
            50,
            self.tr("Shared part of neighbouring tiles. More takes longer and smooths the transitions."),
        )
        self._add_number(
            self.THRESHOLD,
            self.tr("Threshold"),
            SegmentJob.threshold,
            1,
            self.tr("Probability from which a pixel belongs to a class."),
        )
        self._add_number(
            self.MIN_AREA,
            self.tr("Smallest area (m²)"),
            SegmentJob.min_area,
            None,
            self.tr("Smaller polygons are left out."),
        )
        self.add(
            QgsProcessingParameterDistance(
                self.SIMPLIFY, self.tr("Simplify"), SegmentJob.simplify, parentParameterName=self.INPUT, minValue=0
            ),
            self.tr("Tolerance of the outlines; 0 follows the pixels."),
            advanced=True,
        )

    def _declare_outputs(self) -> None:
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, self.tr("Polygons"), VECTOR_POLYGON),
            self.tr("The objects found, with class, score (0 to 1) and area in square metres on the ellipsoid."),
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
            self.tr("Every parameter, version, digest, device and time of the run."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.OBJECT_COUNT, self.tr("Number of objects")))
        self.addOutput(QgsProcessingOutputString(self.DEVICE_USED, self.tr("Device used")))

    def _add_choice(
        self, name: str, label: str, options: tuple[str, ...], help_text: str, advanced: bool = True
    ) -> None:
        parameter = QgsProcessingParameterEnum(
            name, label, list(options), defaultValue=options[0], usesStaticStrings=True
        )
        self.add(parameter, help_text, advanced)

    def _add_number(
        self, name: str, label: str, default: float, maximum: float | None, help_text: str, kind: Any = DOUBLE
    ) -> None:
        parameter = QgsProcessingParameterNumber(name, label, kind, default, minValue=0)
        if maximum is not None:
            parameter.setMaximum(maximum)
        self.add(parameter, help_text, advanced=True)

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse, before the run, what would fail in it."""
        valid, message = super().checkParameterValues(parameters, context)
        if not valid:
            return valid, message
        for check in (self._check_rasters, self._check_bands, self._check_model):
            problem = check(parameters, context)
            if problem:
                return False, problem
        return True, ""

    def _check_rasters(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        for name in (self.INPUT, self.REFERENCE_RASTER):
            layer = self.parameterAsRasterLayer(parameters, name, context)
            if layer is not None and layer.providerType() != "gdal":
                return self.tr("Raster '{}' is not a file; save it as a GeoTIFF and choose that.").format(layer.name())
        return ""

    def _check_bands(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        count = len(self.parameterAsInts(parameters, self.BANDS, context))
        if count not in (0, 1, 3):
            return self.tr("{} bands are chosen; choose one, or three for red, green and blue.").format(count)
        return ""

    def _check_model(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str:
        model = self.parameterAsEnumString(parameters, self.MODEL, context)
        if model != "compact" and not self.parameterAsFile(parameters, self.CHECKPOINT, context):
            sentence = self.tr("Model '{}' needs its SAM checkpoint; choose the file, or the model 'compact'.")
            return sentence.format(model)
        return ""

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Take what is needed from the layers while in their thread."""
        raster = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if raster is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.INPUT))
        self._references = self.parameterAsSource(parameters, self.REFERENCES, context)
        if self._references is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, self.REFERENCES))
        reference_raster = self.parameterAsRasterLayer(parameters, self.REFERENCE_RASTER, context)
        self._raster_path = _path_of(raster)
        self._raster_crs = raster.crs()
        self._reference_raster_path = _path_of(reference_raster) if reference_raster is not None else None
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Run the job in the engine and hand over its outputs."""
        references = QgsProcessingUtils.generateTempFilename("references.gpkg")
        polygons = QgsProcessingUtils.generateTempFilename("polygons.gpkg")
        class_field = self.parameterAsString(parameters, self.CLASS_FIELD, context)
        export_references(self._references, class_field, references, context.transformContext(), feedback)
        try:
            job = self._job(parameters, context, references, bool(class_field), polygons)
        except RefSAMError as error:
            raise QgsProcessingException(str(error)) from error
        result = self.run_in_engine(job, feedback)
        outputs = {
            name: path
            for name, path in (
                (self.MASK, job.outputs.mask),
                (self.PROBABILITY, job.outputs.probability),
                (self.REPORT, job.outputs.report),
            )
            if path
        }
        return {
            **outputs,
            self.OUTPUT: self._deliver(polygons, parameters, context, feedback),
            self.OBJECT_COUNT: result["object_count"],
            self.DEVICE_USED: result["device"],
        }

    def _job(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        references: str,
        has_classes: bool,
        polygons: str,
    ) -> SegmentJob:
        model = ModelOptions(
            model=self.parameterAsEnumString(parameters, self.MODEL, context),
            checkpoint=self.parameterAsFile(parameters, self.CHECKPOINT, context) or None,
            adapters=self.parameterAsFile(parameters, self.ADAPTERS, context) or None,
            method=self.parameterAsEnumString(parameters, self.METHOD, context),
            device=self.parameterAsEnumString(parameters, self.DEVICE, context),
        )
        return SegmentJob(
            input=self._raster_path,
            references=ReferenceSource(
                vector=references,
                raster=self._reference_raster_path,
                class_field=CLASS_FIELD if has_classes else None,
                annotation=self.parameterAsEnumString(parameters, self.ANNOTATION, context),
            ),
            outputs=SegmentOutputs(
                polygons=polygons,
                mask=self.parameterAsOutputLayer(parameters, self.MASK, context),
                probability=self.parameterAsOutputLayer(parameters, self.PROBABILITY, context) or None,
                report=self.parameterAsFileOutput(parameters, self.REPORT, context) or None,
            ),
            model=model,
            bands=tuple(self.parameterAsInts(parameters, self.BANDS, context)) or None,
            stretch=self.parameterAsEnumString(parameters, self.STRETCH, context),
            extent=self._extent(parameters, context),
            tile_size=self.parameterAsInt(parameters, self.TILE_SIZE, context),
            overlap=self.parameterAsDouble(parameters, self.OVERLAP, context),
            threshold=self.parameterAsDouble(parameters, self.THRESHOLD, context),
            min_area=self.parameterAsDouble(parameters, self.MIN_AREA, context),
            simplify=self.parameterAsDouble(parameters, self.SIMPLIFY, context),
        )

    def _extent(
        self, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> tuple[float, float, float, float] | None:
        """Return the extent in the raster's CRS, whichever it was given in."""
        extent = self.parameterAsExtent(parameters, self.EXTENT, context, self._raster_crs)
        if extent.isNull():
            return None
        return extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()

    def _deliver(
        self,
        polygons: str,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> str:
        """Copy the polygons to where the user wants them; only now, so that a failed run leaves nothing there."""
        sink, destination = self.parameterAsSink(
            parameters, self.OUTPUT, context, result_fields(), POLYGON, self._raster_crs
        )
        if sink is None:
            raise QgsProcessingException(self.invalidSinkError(parameters, self.OUTPUT))
        if not copy_results(polygons, sink, feedback):
            raise QgsProcessingException(self.writeFeatureError(sink, parameters, self.OUTPUT))
        return destination


def _path_of(layer: QgsRasterLayer) -> str:
    """Return what GDAL opens: the layer's source without the options that QGIS appends."""
    source = layer.source()
    return source if Path(source).exists() else source.split("|")[0]
