"""Paths of the files behind parameters and layers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qgis.core import (
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputLayerDefinition,
    QgsRasterLayer,
)

from .values import Values

VECTOR_FORMATS = (
    "gpkg", "shp", "geojson", "fgb", "gml", "kml", "sqlite", "gdb", "parquet", "tab", "mif", "csv", "xlsx", "ods",
)  # fmt: skip
"""Endings of files that hold whatever attributes results have; those for drawings and tracks do not."""


def raster_path(raster: QgsRasterLayer | str) -> str:
    """Return what GDAL opens: the path of a file, or a layer's source without the options that QGIS appends."""
    source = raster if isinstance(raster, str) else raster.source()
    return source if Path(source).exists() else source.split("|")[0]


def not_a_file(raster: QgsRasterLayer | str | None) -> str:
    """Return why the engine cannot read a raster layer; empty when it can, or there is none."""
    if raster is None or isinstance(raster, str) or raster.providerType() == "gdal":
        return ""
    return f"Raster '{raster.name()}' is not a file; save it as a GeoTIFF and choose that."


def unreadable_raster(values: Values) -> str:
    """Return which raster of a list cannot be read; Processing itself names the list alone."""
    for definition in values.algorithm.parameterDefinitions():
        if definition.type() == "multilayer":
            try:
                values.rasters(definition.name())
            except QgsProcessingException as error:
                return str(error)
    return ""


def overwritten_input(values: Values, allowed: tuple[str, ...] = ()) -> str:
    """Return a sentence when an output would replace an input file, else nothing.

    Args:
        values: Of the algorithm.
        allowed: Names of inputs that may be replaced.
    """
    definitions = values.algorithm.parameterDefinitions()
    inputs = {
        path: definition.name()
        for definition in definitions
        if not definition.isDestination() and definition.name() not in allowed
        for path in _input_paths(values, definition.name(), definition.type())
    }
    for definition in definitions:
        path = _output_path(values, definition.name()) if definition.isDestination() else None
        if path is not None and path in inputs:
            return f"'{path}' is both {inputs[path]} and {definition.name()}; write the output to another place."
    return ""


def unusable_sink(values: Values) -> str:
    """Return a sentence when features have nowhere to go, else nothing; QGIS would notice at the end of the run."""
    for definition in values.algorithm.parameterDefinitions():
        path = _output_path(values, definition.name()) if definition.type() == "sink" else None
        if path is None:
            continue
        if path.suffix and path.suffix[1:].lower() not in VECTOR_FORMATS:
            return f"{definition.name()} '{path}' is of no format that holds the attributes; end it in .gpkg or .csv."
        if not path.parent.is_dir():
            return f"Folder '{path.parent}' of {definition.name()} does not exist; create it first."
        if not all(os.access(place, os.W_OK) for place in (path.parent, path) if place.exists()):
            return f"'{path}' may not be written; choose another place for {definition.name()}."
    return ""


def _input_paths(values: Values, name: str, kind: str) -> list[Path]:
    """Return the files and folders that an input parameter names."""
    value = values.parameters.get(name)
    if not value:
        return []
    if kind == "file":
        return [_plain(str(values.file(name)))]
    if kind == "raster":
        return _layer_paths(values.raster(name))
    if kind == "multilayer":
        return [_plain(raster_path(raster)) for raster in values.raster_files(name)]
    if kind == "layer":
        layer = values.algorithm.parameterAsLayer(values.parameters, name, values.context)
        return _layer_paths(layer)
    if kind in ("source", "vector"):
        layer = values.algorithm.parameterAsVectorLayer(values.parameters, name, values.context)
        return _layer_paths(layer)
    return []


def _layer_paths(layer: QgsMapLayer | None) -> list[Path]:
    """Return the file behind a layer, if there is one: what other providers have for a source is no path."""
    if layer is None or layer.providerType() not in ("gdal", "ogr"):
        return []
    return [_plain(raster_path(layer) if isinstance(layer, QgsRasterLayer) else layer.source().split("|")[0])]


def _output_path(values: Values, name: str) -> Path | None:
    """Return where an output goes if that is a file or folder of the user's choice.

    The value is read as it stands: asking Processing for it would note the layer for loading.
    """
    value = values.parameters.get(name)
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink.staticValue()
    if not value or not isinstance(value, str) or value == QgsProcessing.TEMPORARY_OUTPUT:
        return None
    if re.match("[A-Za-z]{2,}:", value):  # such as memory: or a database; a drive of Windows has one letter
        return None
    return _plain(value)


def _plain(path: str) -> Path:
    return Path(os.path.realpath(path))
