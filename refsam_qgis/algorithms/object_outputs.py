"""What the algorithms that find objects without classes hand over."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
    QgsProcessingUtils,
)

from ..engine.job import ObjectOutputs
from ..host.qgis_compat import VECTOR_POLYGON
from .base import RefSAMAlgorithm
from .styles import ObjectMaskStyle, ObjectStyle, style_when_loaded
from .values import Values
from .vector_exchange import deliver_polygons

OUTPUT = "OUTPUT"
MASK = "MASK"
REPORT = "REPORT"
OBJECT_COUNT = "OBJECT_COUNT"
DEVICE_USED = "DEVICE_USED"

FIELDS = ("object_id", "score", "stability", "area_m2")


def declare(algorithm: RefSAMAlgorithm) -> None:
    """Declare the outputs."""
    tr = algorithm.tr
    algorithm.add(
        QgsProcessingParameterFeatureSink(OUTPUT, tr("Polygons"), VECTOR_POLYGON),
        tr(
            "The objects, each with its number, score (0 to 1, how good the model rates its own outline), stability "
            "(0 to 1, how little the outline depends on the model's cutoff) and area in square metres on the ellipsoid."
        ),
    )
    algorithm.add(
        QgsProcessingParameterRasterDestination(MASK, tr("Mask"), optional=True, createByDefault=False),
        tr("Raster of object numbers, 0 where there is none; where objects overlap, the better score wins."),
    )
    algorithm.add(
        QgsProcessingParameterFileDestination(
            REPORT, tr("Report"), tr("JSON files (*.json)"), optional=True, createByDefault=False
        ),
        tr("Every parameter, version, digest, device and time of the run, and the command that repeats it in QGIS."),
    )
    algorithm.addOutput(QgsProcessingOutputNumber(OBJECT_COUNT, tr("Number of objects")))
    algorithm.addOutput(QgsProcessingOutputString(DEVICE_USED, tr("Device used")))


def read(values: Values) -> ObjectOutputs:
    """Return where the engine writes; the polygons go on from there with `deliver`."""
    return ObjectOutputs(
        polygons=QgsProcessingUtils.generateTempFilename("polygons.gpkg"),
        mask=values.output_raster(MASK),
        report=values.output_file(REPORT),
    )


def deliver(
    values: Values,
    outputs: ObjectOutputs,
    result: dict[str, Any],
    crs: QgsCoordinateReferenceSystem,
    feedback: QgsProcessingFeedback,
) -> dict[str, Any]:
    """Hand over what the engine wrote.

    Args:
        values: Of the algorithm.
        outputs: As `read` returned them.
        result: Of the engine.
        crs: CRS of the raster.
        feedback: Says when to stop.

    Returns:
        The outputs of the algorithm by name.
    """
    found = deliver_polygons(values, OUTPUT, str(outputs.polygons), FIELDS, crs, feedback)
    style_when_loaded(values.context, found, ObjectStyle)
    style_when_loaded(values.context, outputs.mask, ObjectMaskStyle)
    written = {MASK: outputs.mask, REPORT: outputs.report}
    return {
        **{name: path for name, path in written.items() if path},
        OUTPUT: found,
        OBJECT_COUNT: result["object_count"],
        DEVICE_USED: result["device"],
    }
