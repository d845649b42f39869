"""``refsam:evaluate``: a result against the truth."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterString,
    QgsRasterLayer,
)

from ..engine.job import EvaluateJob
from ..host.qgis_compat import RASTER, TABLE, VECTOR_POLYGON
from .base import RefSAMAlgorithm
from .engine_vectors import name_in_copy
from .files import not_a_file
from .values import Values
from .vector_exchange import deliver_table

COLUMNS = {
    "class": "class",
    "iou": "iou",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "boundary_f": "boundary_f",
    "obj_prec": "object_precision",
    "obj_recall": "object_recall",
    "obj_f1": "object_f1",
    "obj_iou": "object_iou",
    "pq": "panoptic_quality",
    "true_px": "truth_pixels",
    "found_px": "result_pixels",
    "true_obj": "truth_objects",
    "found_obj": "result_objects",
    "match_obj": "matched_objects",
}
"""Key in the engine's rows for each attribute of the table."""


class Evaluate(RefSAMAlgorithm):
    """Compares two layers, each of polygons or a raster of class numbers."""

    GROUP = "learning"

    RESULT = "RESULT"
    RESULT_FIELD = "RESULT_FIELD"
    TRUTH = "TRUTH"
    TRUTH_FIELD = "TRUTH_FIELD"
    RESULT_CLASSES = "RESULT_CLASSES"
    TRUTH_CLASSES = "TRUTH_CLASSES"
    EXTENT = "EXTENT"
    GSD = "GSD"
    TOLERANCE = "TOLERANCE"
    MIN_IOU = "MIN_IOU"
    OUTPUT = "OUTPUT"
    PICTURE = "PICTURE"
    REPORT = "REPORT"
    MIOU = "MIOU"
    FB_IOU = "FB_IOU"
    BOUNDARY_F = "BOUNDARY_F"
    OBJECT_F1 = "OBJECT_F1"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "evaluate"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Evaluate against truth")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "accuracy,validation,assessment,iou,miou,precision,recall,f1,boundary,confusion matrix,ground truth"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Measures how well a result agrees with the truth: by area, boundary and object.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Compares a result with what is really there. Each of the two may be polygons or a raster of class "
            "numbers; a raster truth on another grid is aligned to the result, and the log says so. Classes are "
            "matched by their names; where each has only one class and one of them gives it no name, the two are the "
            "same unless their numbers differ (255 goes with any), and the log says so. Areas without data do not "
            "count; whatever polygons do not cover is background, so give an extent where only a part was mapped.\n\n"
            "Areas are compared by IoU, precision, recall and F1; boundaries by the boundary F; objects by how many "
            "are found with a large enough overlap. Objects of two polygon layers are compared by their shapes, not by "
            "pixels."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self._declare_layers()
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, self.tr("Extent"), optional=True),
            self.tr("Part to compare, in any CRS. Without it, all that both layers cover."),
            advanced=True,
        )
        self.add_number(
            self.GSD,
            self.tr("Pixel size (metres)"),
            EvaluateJob.gsd,
            self.tr(
                "At which areas and boundaries of two polygon layers are compared; 0 derives it from the objects of "
                "the truth and from how far the layers reach."
            ),
        )
        self.add_number(
            self.TOLERANCE,
            self.tr("Boundary tolerance (pixels)"),
            EvaluateJob.tolerance,
            self.tr("Boundaries that lie no farther apart agree."),
            maximum=100,
        )
        self.add_number(
            self.MIN_IOU,
            self.tr("Overlap of objects"),
            EvaluateJob.min_iou,
            self.tr("IoU (0 to 1) from which a found object counts as one of the truth."),
            maximum=1,
        )
        self._declare_outputs()

    def _declare_layers(self) -> None:
        for layer, field, label, help_text in (
            (self.RESULT, self.RESULT_FIELD, self.tr("Result"), self.tr("What was found")),
            (self.TRUTH, self.TRUTH_FIELD, self.tr("Truth"), self.tr("What is really there")),
        ):
            self.add(
                QgsProcessingParameterMapLayer(layer, label, types=[VECTOR_POLYGON, RASTER]),
                self.tr(
                    "{}: polygons, or a raster of class numbers with 0 for the background, even where that is nodata."
                ).format(help_text),
            )
            # Plain text: QGIS 3.22 crashes on a field parameter whose parent is a raster.
            self.add(
                QgsProcessingParameterString(
                    field, self.tr("Class field of the {}").format(label.lower()), optional=True
                ),
                self.tr(
                    "Name of the attribute of polygons that holds the class, such as 'class' in RefSAM's own results. "
                    "Without it all are of one class."
                ),
            )
        for name, label in (
            (self.RESULT_CLASSES, self.tr("Classes of a result raster")),
            (self.TRUTH_CLASSES, self.tr("Classes of a truth raster")),
        ):
            self.add(
                QgsProcessingParameterString(name, label, optional=True),
                self.tr(
                    "Names of the class numbers 1, 2, … separated by commas. Without them those that a mask of RefSAM "
                    "carries, or else the numbers themselves."
                ),
                advanced=True,
            )

    def _declare_outputs(self) -> None:
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, self.tr("Accuracy"), TABLE),
            self.tr(
                "A table with one row per class: IoU, precision, recall and F1 of areas, boundary F, precision, "
                "recall, F1 and mean IoU of objects (obj_…), panoptic quality (pq), and the pixels and objects of "
                "truth and result."
            ),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.PICTURE, self.tr("Picture"), self.tr("PNG images (*.png)"), optional=True, createByDefault=False
            ),
            self.tr("An image of the confusion matrix: which class was taken for which."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.REPORT, self.tr("Report"), self.tr("JSON files (*.json)"), optional=True, createByDefault=False
            ),
            self.tr("Every figure, parameter and version, and the command that repeats the run in QGIS."),
        )
        for name, label in (
            (self.MIOU, self.tr("Mean IoU")),
            (self.FB_IOU, self.tr("Foreground and background IoU")),
            (self.BOUNDARY_F, self.tr("Boundary F")),
            (self.OBJECT_F1, self.tr("F1 of objects")),
        ):
            self.addOutput(QgsProcessingOutputNumber(name, label))

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        for name, field_name, classes in (
            (self.RESULT, self.RESULT_FIELD, self.RESULT_CLASSES),
            (self.TRUTH, self.TRUTH_FIELD, self.TRUTH_CLASSES),
        ):
            layer, field = self._layer(values, name), values.text(field_name)
            if isinstance(layer, QgsRasterLayer):
                if field:
                    sentence = self.tr("'{}' is a raster and has no attribute '{}'; leave {} empty.")
                    return sentence.format(layer.name(), field, field_name)
                if problem := not_a_file(layer):
                    return problem
            elif field and layer.fields().lookupField(field) < 0:
                sentence = self.tr("Layer '{}' has no attribute '{}'; choose another, or none.")
                return sentence.format(layer.name(), field)
            elif values.text(classes):
                sentence = self.tr("'{}' is no raster and has no class numbers to name; leave {} empty.")
                return sentence.format(layer.name(), classes)
        return ""

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        self._sides = {name: self._side(values, name) for name in (self.RESULT, self.TRUTH)}
        self._truth_crs: QgsCoordinateReferenceSystem = self._layer(values, self.TRUTH).crs()

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        result_field, truth_field = values.text(self.RESULT_FIELD), values.text(self.TRUTH_FIELD)
        picture, report = values.output_file(self.PICTURE), values.output_file(self.REPORT)
        job = EvaluateJob(
            result=self._export(self.RESULT, result_field, values, feedback),
            truth=self._export(self.TRUTH, truth_field, values, feedback),
            result_field=name_in_copy(result_field) or None,
            truth_field=name_in_copy(truth_field) or None,
            result_classes=_names(values.text(self.RESULT_CLASSES)),
            truth_classes=_names(values.text(self.TRUTH_CLASSES)),
            gsd=values.number(self.GSD),
            tolerance=values.number(self.TOLERANCE),
            min_iou=values.number(self.MIN_IOU),
            extent=values.extent(self.EXTENT, self._truth_crs),
            report=report,
            picture=picture,
        )
        result = self.run_in_engine(job, feedback)
        rows = [{name: row[key] for name, key in COLUMNS.items()} for row in result["classes"]]
        written = {self.PICTURE: picture, self.REPORT: report}
        return {
            **{name: path for name, path in written.items() if path},
            self.OUTPUT: deliver_table(values, self.OUTPUT, rows, tuple(COLUMNS), feedback),
            **{name: result[name.lower()] for name in (self.MIOU, self.FB_IOU, self.BOUNDARY_F, self.OBJECT_F1)},
        }

    def _layer(self, values: Values, name: str) -> QgsMapLayer:
        layer = self.parameterAsLayer(values.parameters, name, values.context)
        if layer is None:
            sentence = self.tr("'{}' is neither polygons nor a raster that can be read; choose another layer.")
            raise QgsProcessingException(sentence.format(values.parameters.get(name)))
        return layer

    def _side(self, values: Values, name: str) -> str | QgsProcessingFeatureSource:
        """Return the path of a raster, or the source of polygons."""
        layer = self._layer(values, name)
        return self.engine_rasters.path(layer) if isinstance(layer, QgsRasterLayer) else values.source(name)

    def _export(self, name: str, field: str, values: Values, feedback: QgsProcessingFeedback) -> str:
        """Return the path at which the engine reads one side."""
        side = self._sides[name]
        if isinstance(side, str):
            return side
        empty = name == self.RESULT  # nothing may have been found
        return self.engine_vectors.copy(side, [field], values, feedback, "polygon", empty)


def _names(text: str) -> tuple[str, ...]:
    """Return the names in a text that separates them by commas."""
    return tuple(name.strip() for name in text.split(",")) if text.strip() else ()
