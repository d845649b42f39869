"""The rasters of a run as the engine reads them: in the CRS that their layers have in QGIS."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from osgeo import gdal
from qgis.core import QgsFileUtils, QgsProcessingUtils, QgsRasterLayer

from ..engine.errors import RefSAMError
from ..host.qgis_compat import WKT2
from .files import raster_path


class EngineRasters:
    """Paths of rasters for one run.

    A layer that was given another CRS than its file has is read through a virtual raster that carries it. That lies
    among Processing's temporary files under the name of the user's file, as results say where they come from.
    """

    def __init__(self) -> None:
        self._virtual: dict[tuple[str, str], str] = {}  # by the path of the file and the CRS
        self._folder = ""

    def path(self, raster: QgsRasterLayer | str) -> str:
        """Return what the engine opens, for a layer in the layer's own thread.

        Raises:
            RefSAMError: With code ``disk`` when the virtual raster cannot be written.
        """
        file = raster_path(raster)
        if isinstance(raster, str) or not _has_crs_of_its_own(raster):
            return file
        key = file, raster.crs().toWkt(WKT2)
        if key not in self._virtual:
            self._folder = self._folder or QgsProcessingUtils.generateTempFilename("rasters")
            self._virtual[key] = _write_virtual(*key, self._folder)
        return self._virtual[key]

    def with_files(self, text: str) -> str:
        """Return a text of the engine in which every virtual raster is called by the user's file."""
        for (file, _), virtual in self._virtual.items():
            text = text.replace(virtual, file)
        return text


def _has_crs_of_its_own(layer: QgsRasterLayer) -> bool:
    """Whether a layer's CRS is not what its file says, or the file says none."""
    return layer.crs().isValid() and layer.crs() != layer.dataProvider().crs()


def _write_virtual(file: str, crs: str, folder: str) -> str:
    """Write a virtual raster of a file with another CRS, as WKT, into a folder, and return its path."""
    source = os.path.abspath(file) if os.path.exists(file) else file  # the engine may work in another folder
    # The digest tells files of one name apart, and sorts them the same in every run.
    digest = hashlib.sha256(f"{source}\n{crs}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = Path(folder, digest, QgsFileUtils.stringToSafeFilename(os.path.basename(source)))
    with suppress(OSError, RuntimeError):  # GDAL raises only where it was told to
        path.parent.mkdir(parents=True)
        if gdal.Translate(str(path), source, format="VRT", outputSRS=crs) is not None:
            return str(path)
    raise RefSAMError(
        "disk", f"The CRS that '{file}' has in QGIS cannot be handed on through '{path}'; free space on its disk."
    )
