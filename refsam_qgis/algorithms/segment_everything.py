"""``refsam:segmenteverything``: outline everything in a raster."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingFeedback,
    QgsProcessingParameterExtent,
    QgsProcessingParameterRasterLayer,
    QgsRasterLayer,
)

from ..engine.job import EverythingJob
from ..host.qgis_compat import INTEGER
from . import object_outputs
from .base import RefSAMAlgorithm
from .files import not_a_file
from .parameters import model, polygons, raster
from .values import Values


class SegmentEverything(RefSAMAlgorithm):
    """Turns a raster into polygons of all that SAM sees in it."""

    INPUT = "INPUT"
    EXTENT = "EXTENT"
    POINTS_PER_SIDE = "POINTS_PER_SIDE"
    MIN_PREDICTED_IOU = "MIN_PREDICTED_IOU"
    MIN_STABILITY = "MIN_STABILITY"
    MAX_OVERLAP = "MAX_OVERLAP"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "segmenteverything"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Segment everything")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "segment anything,sam,automatic masks,mask generator,objects,polygons,deep learning,parcels,superpixels"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Outlines everything in a raster, without classes.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Asks the Segment Anything Model at a lattice of points in each tile what is there, and keeps the outlines "
            "that the model itself is sure of. Nothing has to be marked, and the outlines have no class.\n\n"
            "Outlines may lie in one another, such as a car on a car park. What two overlapping tiles both show comes "
            "out once, and so that it can, tiles overlap by at least 1.6 percent. More points find smaller objects and "
            "take longer: try a small extent first.\n\n"
            "Choose one of SAM's published checkpoints: the bundled 'compact' model was made for references and "
            "answers points only roughly.\n\n"
            "The computation runs in RefSAM's own Python environment on this machine; nothing leaves it."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, self.tr("Raster")),
            self.tr("The raster whose objects are outlined: any data type and number of bands."),
        )
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, self.tr("Extent"), optional=True),
            self.tr("Part of the raster, in any CRS. Without it, all of it."),
        )
        self._declare_choice_of_masks()
        model.declare(self, references=False)
        raster.declare(self, self.INPUT, self.tr("is 1024, the model's own"))
        polygons.declare(self, self.INPUT)
        object_outputs.declare(self)

    def _declare_choice_of_masks(self) -> None:
        self.add_number(
            self.POINTS_PER_SIDE,
            self.tr("Points per side of a tile"),
            EverythingJob.points_per_side,
            self.tr("The model is asked at so many points along each side of a tile. The time grows with the square."),
            minimum=1,
            maximum=128,
            kind=INTEGER,
        )
        self.add_number(
            self.MIN_PREDICTED_IOU,
            self.tr("Lowest score"),
            EverythingJob.min_predicted_iou,
            self.tr("Outlines that the model itself rates lower (its predicted IoU, 0 to 1) are left out."),
            maximum=1,
        )
        self.add_number(
            self.MIN_STABILITY,
            self.tr("Lowest stability"),
            EverythingJob.min_stability,
            self.tr("Outlines that change more when the model's cutoff moves (0 to 1) are left out."),
            maximum=1,
        )
        self.add_number(
            self.MAX_OVERLAP,
            self.tr("Largest overlap"),
            EverythingJob.max_overlap,
            self.tr("Of two outlines whose bounding boxes overlap more (IoU, 0 to 1), the worse is a duplicate."),
            maximum=1,
        )

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        layer = values.raster(self.INPUT)
        return (
            not_a_file(layer)
            or raster.problem(values, None if layer is None else layer.bandCount())
            or model.problem(values)
        )

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layer."""
        layer: QgsRasterLayer = values.raster(self.INPUT)
        self._raster_path, self._crs = self.engine_rasters.path(layer), layer.crs()

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        outputs = object_outputs.read(values)
        job = EverythingJob(
            input=self._raster_path,
            extent=values.extent(self.EXTENT, self._crs),
            points_per_side=values.integer(self.POINTS_PER_SIDE),
            min_predicted_iou=values.number(self.MIN_PREDICTED_IOU),
            min_stability=values.number(self.MIN_STABILITY),
            max_overlap=values.number(self.MAX_OVERLAP),
            outputs=outputs,
            model=model.read(values, references=False),
            raster=raster.read(values),
            polygons=polygons.read(values),
        )
        result = self.run_in_engine(job, feedback)
        return object_outputs.deliver(values, outputs, result, self._crs, feedback)
