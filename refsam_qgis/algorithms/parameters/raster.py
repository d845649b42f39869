"""How a raster is read and cut into tiles."""

from __future__ import annotations

from qgis.core import QgsProcessingParameterBand, QgsProcessingParameterString

from ...engine.job import STRETCHES, RasterOptions
from ...host.qgis_compat import INTEGER
from ..base import RefSAMAlgorithm
from ..values import Values

BANDS = "BANDS"
STRETCH = "STRETCH"
TILE_SIZE = "TILE_SIZE"
OVERLAP = "OVERLAP"


def declare_reading(algorithm: RefSAMAlgorithm, raster: str | None, by_examples: bool = False) -> None:
    """Declare `BANDS` and `STRETCH`.

    Args:
        algorithm: That gets them.
        raster: Parameter of the raster whose bands are offered; ``None`` where there are several rasters.
        by_examples: Whether rasters are searched by examples, which may be on others.
    """
    tr = algorithm.tr
    label = tr("Bands")
    if raster is None:
        bands = QgsProcessingParameterString(BANDS, label, optional=True)
        example = tr("Their numbers, such as 4,3,2.")
    else:
        bands = QgsProcessingParameterBand(
            BANDS, label, parentLayerParameterName=raster, optional=True, allowMultiple=True
        )
        example = ""
    explained = tr(
        "One band, or three to be seen as red, green and blue in this order. Without it those that the file calls "
        "red, green and blue, else its first three, whichever QGIS shows."
    )
    algorithm.add(bands, f"{explained} {example}".strip(), advanced=True)
    stretched = tr("How values become 8-bit: 'auto' stretches all but 8-bit data, by percentiles.")
    alike = tr("Where only the examples or only the searched raster are 8-bit, it stretches both.")
    algorithm.add_choice(
        STRETCH, tr("Contrast stretch"), STRETCHES, f"{stretched} {alike}" if by_examples else stretched
    )


def declare(algorithm: RefSAMAlgorithm, raster: str | None, automatic: str, by_examples: bool = False) -> None:
    """Declare all parameters.

    Args:
        algorithm: That gets them.
        raster: As in `declare_reading`.
        automatic: What a tile size of 0 does, as in "0 … ", translated.
        by_examples: As in `declare_reading`.
    """
    tr = algorithm.tr
    declare_reading(algorithm, raster, by_examples)
    algorithm.add_number(
        TILE_SIZE,
        tr("Tile size (pixels)"),
        RasterOptions.tile_size,
        tr("Side of the square that the model sees at once, 64 or more; 0 {}.").format(automatic),
        maximum=8192,
        kind=INTEGER,
    )
    algorithm.add_number(
        OVERLAP,
        tr("Overlap (percent of a tile)"),
        RasterOptions.overlap,
        tr("Shared part of neighbouring tiles. More takes longer and smooths the transitions."),
        maximum=50,
    )


def problem(values: Values, count: int | None = None) -> str:
    """Return what is wrong with the bands; empty when nothing is.

    Args:
        values: Of the algorithm.
        count: Number of bands of the raster; ``None`` where there are several rasters.
    """
    bands = values.bands(BANDS) or ()
    if len(bands) not in (0, 1, 3):
        sentence = "{} bands are chosen; choose one, or three for red, green and blue."
        return values.algorithm.tr(sentence).format(len(bands))
    if count is not None and max(bands, default=0) > count:
        sentence = "Band {} is chosen but the raster has {}; choose others."
        return values.algorithm.tr(sentence).format(max(bands), count)
    return ""


def read(values: Values) -> RasterOptions:
    """Return the options."""
    return RasterOptions(
        bands=values.bands(BANDS),
        stretch=values.choice(STRETCH),
        tile_size=values.integer(TILE_SIZE),
        overlap=values.number(OVERLAP),
    )
