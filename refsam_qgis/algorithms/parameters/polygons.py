"""How outlines become polygons."""

from __future__ import annotations

from qgis.core import QgsProcessingParameterBoolean, QgsProcessingParameterDistance

from ...engine.job import PolygonOptions
from ..base import RefSAMAlgorithm
from ..values import Values

MIN_AREA = "MIN_AREA"
FILL_HOLES = "FILL_HOLES"
SIMPLIFY = "SIMPLIFY"
RIGHT_ANGLES = "RIGHT_ANGLES"


def declare(algorithm: RefSAMAlgorithm, raster: str | None) -> None:
    """Declare the parameters.

    Args:
        algorithm: That gets them.
        raster: Parameter of the raster whose map units `SIMPLIFY` is in; ``None`` where there are several rasters.
    """
    tr = algorithm.tr
    algorithm.add_number(
        MIN_AREA,
        tr("Smallest area (m²)"),
        PolygonOptions.min_area,
        tr(
            "Smaller polygons are left out. Without it those below a twentieth of the typical example, where there are "
            "examples; 0 keeps all."
        ),
    )
    algorithm.add_number(
        FILL_HOLES,
        tr("Fill holes up to (m²)"),
        PolygonOptions.fill_holes,
        tr("Smaller holes in polygons are filled; 0 keeps every hole."),
    )
    algorithm.add(
        QgsProcessingParameterDistance(
            SIMPLIFY, tr("Simplify"), PolygonOptions.simplify, parentParameterName=raster or "", minValue=0
        ),
        tr("Tolerance of the outlines in map units; 0 follows the pixels. Shared borders stay shared."),
        advanced=True,
    )
    algorithm.add(
        QgsProcessingParameterBoolean(RIGHT_ANGLES, tr("Right angles"), PolygonOptions.right_angles),
        tr("Makes outlines right-angled, as those of buildings are."),
        advanced=True,
    )


def read(values: Values) -> PolygonOptions:
    """Return the options."""
    return PolygonOptions(
        min_area=values.optional_number(MIN_AREA),
        fill_holes=values.number(FILL_HOLES),
        simplify=values.number(SIMPLIFY),
        right_angles=values.flag(RIGHT_ANGLES),
    )
