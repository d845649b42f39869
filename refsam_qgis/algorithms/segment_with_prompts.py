"""``refsam:segmentwithprompts``: segment what points and boxes show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qgis.core import (
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterRasterLayer,
    QgsRasterLayer,
)

from ..engine.job import PromptsJob
from ..host.qgis_compat import VECTOR_POINT, VECTOR_WITH_GEOMETRY
from . import object_outputs
from .base import RefSAMAlgorithm
from .engine_vectors import name_in_copy
from .files import not_a_file
from .parameters import model, polygons, raster
from .values import Values


class SegmentWithPrompts(RefSAMAlgorithm):
    """Turns a raster and prompts into polygons of the objects that they show."""

    INPUT = "INPUT"
    POINTS = "POINTS"
    LABEL_FIELD = "LABEL_FIELD"
    BOXES = "BOXES"
    OBJECT_FIELD = "OBJECT_FIELD"
    BEST_OF_THREE = "BEST_OF_THREE"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "segmentwithprompts"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Segment with prompts")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "segment anything,sam,prompt,points,boxes,clicks,interactive,digitise,objects,polygons,deep learning"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Outlines the objects that points and boxes show.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Put points on objects, or draw boxes around them, and the Segment Anything Model outlines each one.\n\n"
            "Without an object field each box is an object, together with the points in it, and each other point is "
            "an object of its own. With one, all points and boxes with the same value are prompts for one object: "
            "several points on it, points beside it to cut off what does not belong to it, a box around it.\n\n"
            "Choose one of SAM's published checkpoints: the bundled 'compact' model was made for references and "
            "answers points and boxes only roughly.\n\n"
            "The layers may be in any CRS. The computation runs in RefSAM's own Python environment on this machine; "
            "nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, self.tr("Raster")),
            self.tr("The raster that shows the objects: any data type and number of bands."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.POINTS, self.tr("Points"), [VECTOR_POINT], optional=True),
            self.tr("Points on the objects and, told apart by the label field, beside them."),
        )
        self.add(
            QgsProcessingParameterField(
                self.LABEL_FIELD, self.tr("Label field"), parentLayerParameterName=self.POINTS, optional=True
            ),
            self.tr("Attribute of the points: 1 on the object, 0 beside it. Without it all points are on objects."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.BOXES, self.tr("Boxes"), [VECTOR_WITH_GEOMETRY], optional=True),
            self.tr("Features of any shape; the bounding box of each is a box around an object."),
        )
        self.add(
            QgsProcessingParameterField(
                self.OBJECT_FIELD, self.tr("Object field"), parentLayerParameterName=self.POINTS, optional=True
            ),
            self.tr(
                "Attribute of the points, and of the same name of the boxes, whose equal values mean one object, such "
                "as a number."
            ),
        )
        self.add(
            QgsProcessingParameterBoolean(
                self.BEST_OF_THREE, self.tr("Best of three outlines"), PromptsJob.best_of_three
            ),
            self.tr(
                "For an object with a single prompt, which may mean a part or the whole, the model proposes three "
                "outlines and the one it rates best is taken."
            ),
            advanced=True,
        )
        model.declare(self, references=False)
        raster.declare(self, self.INPUT, self.tr("fits the prompts"))
        polygons.declare(self, self.INPUT)
        object_outputs.declare(self)

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        layer = values.raster(self.INPUT)
        return (
            not_a_file(layer)
            or self._problem_of_prompts(values)
            or raster.problem(values, None if layer is None else layer.bandCount())
            or model.problem(values)
        )

    def _problem_of_prompts(self, values: Values) -> str:
        sources = {name: values.source(name) for name in (self.POINTS, self.BOXES)}
        if all(source is None for source in sources.values()):
            return self.tr("There are no prompts; choose a layer of points, or of boxes.")
        for source in sources.values():
            if source is not None and source.featureCount() == 0:
                sentence = self.tr("Layer '{}' has no features; draw at least one, or leave the layer out.")
                return sentence.format(source.sourceName())
        if sources[self.POINTS] is None and values.text(self.LABEL_FIELD):
            return self.tr("A label field is chosen, but no layer of points that has it; choose both or neither.")
        needed = {self.POINTS: (self.LABEL_FIELD, self.OBJECT_FIELD), self.BOXES: (self.OBJECT_FIELD,)}
        for name, source in sources.items():
            for field in filter(None, map(values.text, needed[name])):
                if source is not None and source.fields().lookupField(field) < 0:
                    sentence = self.tr("Layer '{}' has no attribute '{}'; add it, or leave the field empty.")
                    return sentence.format(source.sourceName(), field)
        return ""

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        layer: QgsRasterLayer = values.raster(self.INPUT)
        self._raster_path, self._crs = self.engine_rasters.path(layer), layer.crs()
        self._points, self._boxes = values.source(self.POINTS), values.source(self.BOXES)

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        label, object_field = values.text(self.LABEL_FIELD), values.text(self.OBJECT_FIELD)
        outputs = object_outputs.read(values)
        job = PromptsJob(
            input=self._raster_path,
            points=self._copy(self._points, [label, object_field], values, feedback),
            boxes=self._copy(self._boxes, [object_field], values, feedback),
            label_field=name_in_copy(label) or None,
            object_field=name_in_copy(object_field) or None,
            best_of_three=values.flag(self.BEST_OF_THREE),
            outputs=outputs,
            model=model.read(values, references=False),
            raster=raster.read(values),
            polygons=polygons.read(values),
        )
        result = self.run_in_engine(job, feedback)
        return object_outputs.deliver(values, outputs, result, self._crs, feedback)

    def _copy(
        self,
        source: QgsProcessingFeatureSource | None,
        fields: Sequence[str],
        values: Values,
        feedback: QgsProcessingFeedback,
    ) -> str | None:
        """Return the path at which the engine reads prompts, if there are any; see `EngineVectors.copy`."""
        return None if source is None else self.engine_vectors.copy(source, fields, values, feedback, "prompt")
