"""Layers that have no CRS, whatever QGIS and GDAL make of that."""

from __future__ import annotations

from qgis.core import QgsCoordinateReferenceSystem


def known_crs(crs: QgsCoordinateReferenceSystem) -> QgsCoordinateReferenceSystem:
    """Return a CRS, or an invalid one for those by which GeoPackages say that none is known."""
    return QgsCoordinateReferenceSystem() if crs.description().lower().startswith("undefined") else crs
