"""Paths of the files behind parameters and layers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from qgis.core import (
    QgsDataProvider,
    QgsDataSourceUri,
    QgsMapLayer,
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProperty,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorLayer,
)

from .values import Values

VECTOR_FORMATS = (
    "gpkg", "shp", "geojson", "fgb", "gml", "kml", "sqlite", "gdb", "parquet", "tab", "mif", "csv", "xlsx", "ods",
)  # fmt: skip
"""Endings of files that hold whatever attributes results have; those for drawings and tracks do not."""

TABLE_FORMATS = (".gpkg", ".sqlite", ".gdb")
"""Endings of files that hold several tables, of which a sink that names one replaces that alone."""
NO_TABLE = ""
"""For what no table of features replaces, though it may lie in one file with such."""


@dataclass(frozen=True)
class _Place:
    """Where data lie.

    Attributes:
        store: A file or folder, links resolved; words that tell a database from others where it is on a server.
        table: The table in it; ``None`` for all of it.
    """

    store: Path | str
    table: str | None = None

    def __str__(self) -> str:
        return f"Table '{self.table}' of '{self.store}'" if self.table else f"'{self.store}'"

    def overlaps(self, other: _Place) -> bool:
        """Whether writing to the one replaces the other."""
        return self.store == other.store and (None in (self.table, other.table) or self.table == other.table)


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


def unreadable_vector(values: Values) -> str:
    """Return which vector layer cannot be read; QGIS takes a loaded one whose file is lost for an empty one."""
    algorithm = values.algorithm
    for definition in algorithm.parameterDefinitions():
        name, value = definition.name(), values.parameters.get(definition.name())
        if not value or definition.type() not in ("source", "vector", "layer"):
            continue
        if isinstance(value, QgsProcessingFeatureSourceDefinition):
            value = value.source
        read = algorithm.parameterAsLayer if definition.type() == "layer" else algorithm.parameterAsVectorLayer
        layer = read({name: value}, name, values.context)
        if layer is None:
            source = values.text_of(value)
            path, what = source.split("|")[0], f"'{source}'"
        elif isinstance(layer, QgsVectorLayer) and not _can_be_read(layer):
            path = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source()).get("path") or ""
            what = f"Layer '{layer.name()}'" + (f" of '{path}'" if path else "")
        else:
            continue
        is_file = path and not re.match(r"/vsi|\w\w+:", path)
        why = "does not exist; put it back" if is_file and not Path(path).exists() else "cannot be read; restore it"
        return f"{what} {why}, or choose another for {name}."
    return ""


def _can_be_read(layer: QgsVectorLayer) -> bool:
    """Whether a layer is valid and, if it is OGR's, its file can be opened anew: the layer does not notice its loss."""
    if not layer.isValid() or layer.providerType() != "ogr":
        return bool(layer.isValid())
    return bool(QgsVectorLayer(layer.source(), layer.name(), "ogr").isValid())


def overwritten_input(values: Values, allowed: tuple[str, ...] = ()) -> str:
    """Return a sentence when an output would replace an input file, else nothing.

    Args:
        values: Of the algorithm.
        allowed: Names of inputs that may be replaced.
    """
    definitions = values.algorithm.parameterDefinitions()
    inputs = [
        (place, definition.name())
        for definition in definitions
        if not definition.isDestination() and definition.name() not in allowed
        for place in _input_places(values, definition.name(), definition.type())
    ]
    for definition in definitions:
        output = _output_place(values, definition.name()) if definition.isDestination() else None
        for place, name in inputs:
            if output is not None and output.overlaps(place):
                return f"{output} is both {name} and {definition.name()}; write the output to another place."
    return ""


def unusable_sink(values: Values) -> str:
    """Return a sentence when features have nowhere to go, else nothing; QGIS would notice at the end of the run."""
    definitions = values.algorithm.parameterDefinitions()
    made = [chosen_path(values, each.name()) for each in definitions if each.type() == "folderDestination"]
    for definition in definitions:
        path = chosen_path(values, definition.name()) if definition.type() == "sink" else None
        if path is None:
            continue
        folder = path.parent
        if any(parent in made for parent in (folder, *folder.parents)):  # the run makes it
            folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if path.suffix and path.suffix[1:].lower() not in VECTOR_FORMATS:
            return f"{definition.name()} '{path}' is of no format that holds the attributes; end it in .gpkg or .csv."
        if not folder.is_dir():
            return f"Folder '{folder}' of {definition.name()} does not exist; create it first."
        if not all(os.access(part, os.W_OK) for part in (folder, path) if part.exists()):
            return f"'{path}' may not be written; choose another place for {definition.name()}."
    return ""


def chosen_path(values: Values, name: str) -> Path | None:
    """Return the file or folder that an output is, or is in, if that is of the user's choice and not on a server."""
    place = _output_place(values, name)
    return None if place is None or isinstance(place.store, str) else place.store


def warn_if_temporary(name: str, path: str, feedback: QgsProcessingFeedback) -> None:
    """Say that a run cannot go on from an output, beside which the engine keeps how far it came.

    Args:
        name: Of the output.
        path: Where it goes, a file or folder.
        feedback: Is told.
    """
    if _plain(QgsProcessingUtils.tempFolder()) in _plain(path).parents:
        feedback.pushWarning(
            f"{name} is temporary; choose a place of your own if a cancelled run is to go on from there."
        )


def _input_places(values: Values, name: str, kind: str) -> list[_Place]:
    """Return the files, folders and tables that an input parameter names."""
    value = values.parameters.get(name)
    if not value:
        return []
    if kind == "file":
        return [_Place(_plain(str(values.file(name))))]
    if kind == "raster":
        return _layer_places(values.raster(name))
    if kind == "multilayer":
        return [_raster_place(raster) for raster in values.raster_files(name)]
    if kind == "layer":
        layer = values.algorithm.parameterAsLayer(values.parameters, name, values.context)
        return _layer_places(layer)
    if kind in ("source", "vector"):
        layer = values.algorithm.parameterAsVectorLayer(values.parameters, name, values.context)
        return _layer_places(layer)
    return []


def _layer_places(layer: QgsMapLayer | None) -> list[_Place]:
    """Return the file or table behind a layer, if there is one."""
    if isinstance(layer, QgsRasterLayer):
        return [_raster_place(layer)] if layer.providerType() == "gdal" else []
    if not isinstance(layer, QgsVectorLayer):
        return []
    provider, source = layer.providerType(), layer.source()
    if provider != "ogr" and QgsDataSourceUri(source).table():
        return [_table_place(provider, source)]
    path = QgsProviderRegistry.instance().decodeUri(provider, source).get("path")
    return [_file_place(path, _table_of(layer))] if path else []


def _raster_place(raster: QgsRasterLayer | str) -> _Place:
    path = raster_path(raster)
    return _Place(_plain(QgsProviderRegistry.instance().decodeUri("gdal", path).get("path") or path), NO_TABLE)


def _table_of(layer: QgsVectorLayer) -> str:
    """Return the name of the table behind a layer, also where the layer's source leaves it out."""
    tables = layer.dataProvider().subLayers()
    return tables[0].split(QgsDataProvider.sublayerSeparator())[1] if tables else ""


def _output_place(values: Values, name: str) -> _Place | None:
    """Return where an output goes if that is a place of the user's choice.

    The value is read as it stands: asking Processing for it would note the layer for loading.
    """
    value = values.parameters.get(name)
    if isinstance(value, QgsProcessingOutputLayerDefinition):
        value = value.sink
    if isinstance(value, QgsProperty):
        value, _ = value.value(values.context.expressionContext())
    if not value or not isinstance(value, str) or value == QgsProcessing.TEMPORARY_OUTPUT:
        return None
    sink = re.match(r"([A-Za-z]\w+):(?://)?(.*)", value, re.DOTALL)  # a drive of Windows has one letter
    if sink is None:
        path = _plain(value)
        is_sink = values.algorithm.parameterDefinition(name).type() == "sink"
        return _Place(path.with_name(f"{path.name}.gpkg") if is_sink and not path.suffix else path)  # as QGIS has it
    provider, source = sink.groups()
    if provider == "ogr" and not QgsDataSourceUri(source).database():
        return _Place(_plain(source))  # without a table QGIS writes into the first one, whatever its name
    return _table_place(provider, source) if QgsDataSourceUri(source).table() else None


def _table_place(provider: str, source: str) -> _Place:
    """Return the place of a table that a provider's source names."""
    uri = QgsDataSourceUri(source)
    if provider in ("ogr", "spatialite"):
        return _file_place(uri.database(), uri.table())
    # Processing knows PostgreSQL by an older name, too.
    server = ("postgres" if provider == "postgis" else provider, uri.service(), uri.host(), uri.port(), uri.database())
    return _Place(" ".join(filter(None, server)), ".".join(filter(None, (uri.schema(), uri.table()))))


def _file_place(path: str, table: str) -> _Place:
    """Return the place of a table in a file, whose format may hold no more than the one."""
    plain = _plain(path)
    return _Place(plain, table.lower() if table and plain.suffix.lower() in TABLE_FORMATS else None)


def _plain(path: str) -> Path:
    return Path(os.path.realpath(path))
