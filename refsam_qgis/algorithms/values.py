"""The values of an algorithm's parameters, in the types that jobs want."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProperty,
    QgsRasterLayer,
)
from qgis.PyQt.QtCore import QVariant

from ..engine.errors import RefSAMError


class Values:
    """Reads parameters by name; lives no longer than one check or one run.

    Layers (`raster`, `rasters`, `source`) are to be read in `prepareAlgorithm` and checks, in the layers' own thread.
    """

    def __init__(
        self, algorithm: QgsProcessingAlgorithm, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> None:
        self.algorithm = algorithm
        self.context = context
        # QGIS makes 0 of what is NULL, as what an expression or an attribute comes to may be.
        self.parameters = {
            name: value for name, value in parameters.items() if value is None or not is_null(self._value(value))
        }

    def _value(self, value: Any) -> Any:
        """Return what a value is, or comes to if it is an expression."""
        return value.value(self.context.expressionContext())[0] if isinstance(value, QgsProperty) else value

    def text_of(self, value: Any) -> str:
        """Return what was given for a parameter as text; the name of a layer."""
        return _name(self._value(value))

    def choice(self, name: str) -> str:
        """Return the static string chosen.

        Raises:
            RefSAMError: With code ``input`` for another, of which QGIS would make the default.
        """
        value = self._value(self.parameters.get(name))
        options = self.algorithm.parameterDefinition(name).options()
        if value not in (None, "", *options):
            raise RefSAMError("input", f"{name} '{value}' is unknown; use one of {', '.join(options)}.")
        return self.algorithm.parameterAsEnumString(self.parameters, name, self.context)

    def text(self, name: str) -> str:
        """Return a text or the name of a field; empty when there is none."""
        return self.algorithm.parameterAsString(self.parameters, name, self.context)

    def flag(self, name: str) -> bool:
        """Return a yes or no."""
        return self.algorithm.parameterAsBool(self.parameters, name, self.context)

    def integer(self, name: str) -> int:
        """Return a whole number."""
        return self.algorithm.parameterAsInt(self.parameters, name, self.context)

    def number(self, name: str) -> float:
        """Return a number."""
        return self.algorithm.parameterAsDouble(self.parameters, name, self.context)

    def optional_number(self, name: str) -> float | None:
        """Return a number, or ``None`` when there is none, which may also be what an expression comes to."""
        value = self._value(self.parameters.get(name))
        if value in (None, ""):
            return None
        return self.algorithm.parameterAsDouble({name: value}, name, self.context)

    def file(self, name: str) -> str | None:
        """Return the path of an input file or folder, or ``None`` when there is none."""
        return self.algorithm.parameterAsFile(self.parameters, name, self.context) or None

    def bands(self, name: str) -> tuple[int, ...] | None:
        """Return band numbers, given as a list or as text such as ``4,3,2``; ``None`` when there are none.

        Raises:
            RefSAMError: With code ``input`` for anything but positive whole numbers.
        """
        value = self.parameters.get(name)
        if not isinstance(value, (list, tuple)):
            value = self.text(name).replace(",", ";").split(";")
        words = [str(word).strip() for word in value if str(word).strip()]
        if not all(word.isdecimal() and int(word) > 0 for word in words):
            raise RefSAMError("input", f"Bands '{','.join(words)}' are no band numbers; give such as 4,3,2.")
        return tuple(int(word) for word in words) or None

    def raster(self, name: str) -> QgsRasterLayer:
        """Return a raster layer.

        Raises:
            QgsProcessingException: When there is none, or what was chosen cannot be read as a raster.
        """
        layer = self.algorithm.parameterAsRasterLayer(self.parameters, name, self.context)
        if layer is None:
            raise QgsProcessingException(self.algorithm.invalidRasterError(self.parameters, name))
        return layer

    def optional_raster(self, name: str) -> QgsRasterLayer | None:
        """Return a raster layer, or ``None`` when none was chosen; see `raster`."""
        return self.raster(name) if self.parameters.get(name) else None

    def rasters(self, name: str) -> list[QgsRasterLayer]:
        """Return several raster layers.

        Raises:
            QgsProcessingException: When one of them cannot be read as a raster.
        """
        layers = []
        for entry in self._entries(name):
            layer = self._layer(name, entry)
            if layer is None:
                raise QgsProcessingException(f"'{_name(entry)}' cannot be read as a raster; choose another.")
            layers.append(layer)
        return layers

    def raster_files(self, name: str) -> list[QgsRasterLayer | str]:
        """Return several raster layers; of files, which may be damaged or missing, the path."""
        entries = self._entries(name)
        return [entry if _is_file(entry) else self._layer(name, entry) or _name(entry) for entry in entries]

    def _entries(self, name: str) -> list[Any]:
        value = self.parameters.get(name) or []
        if isinstance(value, str) and not _is_file(value):
            return [part for part in value.split(";") if part]
        return list(value) if isinstance(value, (list, tuple)) else [value]

    def _layer(self, name: str, entry: Any) -> QgsRasterLayer | None:
        layers = self.algorithm.parameterAsLayerList({name: [entry]}, name, self.context)
        return next((layer for layer in layers if isinstance(layer, QgsRasterLayer)), None)

    def source(self, name: str) -> QgsProcessingFeatureSource | None:
        """Return a source of features, or ``None`` when none was chosen.

        Raises:
            QgsProcessingException: When what was chosen cannot be read as a vector layer.
        """
        source = self.algorithm.parameterAsSource(self.parameters, name, self.context)
        if source is None and self.parameters.get(name):
            raise QgsProcessingException(self.algorithm.invalidSourceError(self.parameters, name))
        return source

    def extent(self, name: str, crs: QgsCoordinateReferenceSystem) -> tuple[float, float, float, float] | None:
        """Return ``(xmin, ymin, xmax, ymax)`` in `crs`, whichever CRS it was given in; ``None`` for no extent."""
        extent = self.algorithm.parameterAsExtent(self.parameters, name, self.context, crs)
        if extent.isNull():
            return None
        return extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()

    def output_raster(self, name: str) -> str | None:
        """Return the path of a raster to be written, or ``None`` when it is not wanted."""
        return self.algorithm.parameterAsOutputLayer(self.parameters, name, self.context) or None

    def output_file(self, name: str) -> str | None:
        """Return the path of a file or folder to be written, or ``None`` when it is not wanted."""
        return self.algorithm.parameterAsFileOutput(self.parameters, name, self.context) or None


def _name(entry: Any) -> str:
    return entry.name() if isinstance(entry, QgsMapLayer) else str(entry)


def is_null(value: Any) -> bool:
    """Whether a value is none, in either of the ways that QGIS says so."""
    return value is None or (isinstance(value, QVariant) and value.isNull())


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_file()
