"""``refsam:buildreferenceset``: keep marked examples in one file that needs neither rasters nor layers any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsRectangle,
    QgsVectorLayer,
)

from ..engine.job import ReferenceSource, RefsetJob
from ..host.qgis_compat import RASTER
from .base import RefSAMAlgorithm
from .crs import known_crs
from .files import not_a_file
from .parameters import raster, references
from .values import Values, is_null

EXTENT_POINTS = 20
"""Points put on each side of a raster's extent before it is transformed, since its sides become curves."""


class BuildReferenceSet(RefSAMAlgorithm):
    """Turns rasters and the examples marked on them into a reference set, or adds them to one."""

    GROUP = "references"
    MAY_OVERWRITE = ("BASE_SET",)

    RASTERS = "RASTERS"
    BASE_SET = "BASE_SET"
    CHIP_SIZE = "CHIP_SIZE"
    OUTPUT = "OUTPUT"
    PICTURE = "PICTURE"
    CHIP_COUNT = "CHIP_COUNT"
    CLASSES = "CLASSES"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "buildreferenceset"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Build reference set")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        return self.tr("segment anything,sam,virefsam,few-shot,example,shots,chips,prototypes,refset").split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Keeps the examples marked on rasters in one portable file, or adds them to one.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Cuts chips around marked examples out of one or more rasters and keeps them with their masks, classes, "
            "ground sample distance and origin in one .refset file. Every 'Segment by reference' can use it in place "
            "of examples, with any model, on any machine, without the rasters it was made from.\n\n"
            "Examples from further rasters are added by choosing a set to add to. Look at the picture: it shows "
            "what the model will be shown."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        self.add(
            QgsProcessingParameterMultipleLayers(self.RASTERS, self.tr("Rasters of the examples"), RASTER),
            self.tr("The rasters the examples were drawn on; each takes the examples that fall on it."),
        )
        references.declare_marks(self, optional=False)
        self.add(
            QgsProcessingParameterFile(
                self.BASE_SET,
                self.tr("Set to add to"),
                optional=True,
                fileFilter=self.tr(references.REFSET_FILTER),
            ),
            self.tr("The examples are added to those of this set. The output may replace it."),
        )
        raster.declare_reading(self, None)
        self.add_number(
            self.CHIP_SIZE,
            self.tr("Chip size (metres)"),
            RefsetJob.chip_size,
            self.tr(
                "Side of the chips on the ground; 0 takes that of the set to add to, or derives it from the marks."
            ),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.OUTPUT, self.tr("Reference set"), self.tr(references.REFSET_FILTER)
            ),
            self.tr("The file to write."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.PICTURE, self.tr("Picture"), self.tr("PNG images (*.png)"), optional=True, createByDefault=False
            ),
            self.tr("An image of all chips with their masks, to look at."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.CHIP_COUNT, self.tr("Number of chips")))
        self.addOutput(QgsProcessingOutputString(self.CLASSES, self.tr("Classes")))

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        layers = values.rasters(self.RASTERS)
        if not layers:
            return self.tr("There are no rasters of the examples; choose at least one.")
        return next(filter(None, map(not_a_file, layers)), "") or raster.problem(values)

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers."""
        marks = references.prepare_marks(values)
        if marks is None:
            raise QgsProcessingException(self.invalidSourceError(values.parameters, references.REFERENCES))
        self._marks = marks
        self._rasters = [
            (self.engine_rasters.path(layer), layer.extent(), layer.crs()) for layer in values.rasters(self.RASTERS)
        ]

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job and hand over its outputs."""
        marks = self._marks.export(None, values, feedback)
        rasters = self._marked_rasters(marks, values.context, feedback)
        output, picture = values.output_file(self.OUTPUT), values.output_file(self.PICTURE)
        job = RefsetJob(
            sources=tuple(replace(marks, raster=path) for path in rasters),
            output=str(output),
            base=values.file(self.BASE_SET),
            picture=picture,
            bands=values.bands(raster.BANDS),
            stretch=values.choice(raster.STRETCH),
            chip_size=values.number(self.CHIP_SIZE),
        )
        classes = self.run_in_engine(job, feedback)["classes"]
        for one in classes:
            feedback.pushInfo(self.tr("{}: {} chips").format(one["name"], one["chips"]))
        return {
            self.OUTPUT: output,
            **({self.PICTURE: picture} if picture else {}),
            self.CHIP_COUNT: sum(one["chips"] for one in classes),
            self.CLASSES: ", ".join(one["name"] for one in classes),
        }

    def _marked_rasters(
        self, marks: ReferenceSource, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> list[str]:
        """Return the rasters on which examples fall, and tell of the others; a lone raster is left to the engine."""
        paths = [path for path, _, _ in self._rasters]
        if len(paths) == 1:
            return paths
        counts, beside = self._count_marks(marks, context)
        if not any(counts):
            if not beside:  # none has a class; the engine has the words for that
                return paths
            raise QgsProcessingException(
                self.tr("None of the examples falls on one of the rasters; check the CRS of both.")
            )
        if beside:
            feedback.pushWarning(self.tr("{} examples fall on none of the rasters.").format(beside))
        for path, count in zip(paths, counts):
            if not count:
                file = self.engine_rasters.with_files(path)
                feedback.pushWarning(self.tr("No example falls on '{}'; it is left out.").format(file))
        return [path for path, count in zip(paths, counts) if count]

    def _count_marks(self, marks: ReferenceSource, context: QgsProcessingContext) -> tuple[list[int], int]:
        """Return how many examples fall on each raster, and how many on none; those without a class do not count."""
        layer = QgsVectorLayer(str(marks.vector), "marks", "ogr")
        marks_crs = known_crs(layer.crs())
        extents = [_extent_in(marks_crs, extent, known_crs(crs), context) for _, extent, crs in self._rasters]
        counts, beside = [0] * len(extents), 0
        for feature in layer.getFeatures():
            if marks.class_field and not _has_value(feature, marks.class_field):
                continue
            on = [extent is not None and extent.intersects(feature.geometry()) for extent in extents]
            counts = [count + fits for count, fits in zip(counts, on)]
            beside += not any(on)
        return counts, beside


def _has_value(feature: QgsFeature, field: str) -> bool:
    """Whether an attribute is neither empty nor blank, as the engine sees it."""
    value = feature[field]
    return not is_null(value) and bool(str(value).strip())


def _extent_in(
    crs: QgsCoordinateReferenceSystem,
    extent: QgsRectangle,
    raster_crs: QgsCoordinateReferenceSystem,
    context: QgsProcessingContext,
) -> QgsGeometry | None:
    """Return a raster's extent in `crs`; as it is where one of them has none, ``None`` where it does not exist."""
    outline = QgsGeometry.fromRect(extent).densifyByCount(EXTENT_POINTS)
    if crs.isValid() and raster_crs.isValid():
        try:
            outline.transform(QgsCoordinateTransform(raster_crs, crs, context.transformContext()))
        except QgsCsException:
            return None
    return outline
