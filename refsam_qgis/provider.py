"""The Processing provider ``refsam``."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.segment_by_reference import SegmentByReference

ICON = Path(__file__).parent / "icons" / "refsam.svg"


class RefSAMProvider(QgsProcessingProvider):
    """Lists RefSAM's algorithms, whether or not the engine is installed."""

    def id(self) -> str:
        """Public id; models and scripts store it."""
        return "refsam"

    def name(self) -> str:
        """Name in the toolbox."""
        return "RefSAM"

    def icon(self) -> QIcon:
        """Icon in the toolbox."""
        return QIcon(str(ICON))

    def loadAlgorithms(self) -> None:
        """Add every algorithm."""
        self.addAlgorithm(SegmentByReference())

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Rasters are written as GeoTIFF alone."""
        return ["tif"]

    def defaultRasterFileExtension(self) -> str:
        """Extension of temporary rasters."""
        return "tif"
