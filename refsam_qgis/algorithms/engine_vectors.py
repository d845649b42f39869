"""The vector layers of a run as the engine reads them: copies, which its sentences call what the layers are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qgis.core import QgsProcessingFeatureSource, QgsProcessingFeedback, QgsProcessingUtils

from .values import Values
from .vector_exchange import export_features

MAX_NAME = 60
"""Longest name of a copied layer's file, in characters; file systems take 255 bytes."""

RESERVED = ("fid", "geom", "geometry")
"""Attributes that a GeoPackage, or geopandas, keeps for itself, in small letters."""


class EngineVectors:
    """Copies of layers for one run; they lie among Processing's temporary files."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of the layers, by the paths of their copies

    def copy(
        self,
        source: QgsProcessingFeatureSource,
        fields: Sequence[str],
        values: Values,
        feedback: QgsProcessingFeedback,
        noun: str,
        may_be_empty: bool = False,
    ) -> str:
        """Copy the features of a layer to where the engine reads them, and return the path.

        Args:
            source: The layer.
            fields: Attributes to copy, each under its `name_in_copy`; the empty name stands for none.
            values: Of the algorithm.
            feedback: As of `export_features`.
            noun: The same.
            may_be_empty: The same.

        Raises:
            QgsProcessingException: As `export_features`.
        """
        path = _copy_path(source)
        kept = {name_in_copy(field): field for field in fields if field}
        export_features(source, kept, path, values.context.transformContext(), feedback, noun, may_be_empty)
        self._names[path] = source.sourceName()
        return path

    def with_layers(self, text: str) -> str:
        """Return a text of the engine in which every copy is called by the user's layer."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text


def name_in_copy(field: str) -> str:
    """Return the name of an attribute in a copy: its own if it can be, since the engine's sentences name it."""
    return f"{field}_" if field.lower() in RESERVED else field


def _copy_path(source: QgsProcessingFeatureSource) -> str:
    """Return a temporary file whose name says which layer it holds, since reports name it."""
    name = re.sub(r"[^\w -]", "_", source.sourceName())[:MAX_NAME]
    return QgsProcessingUtils.generateTempFilename(f"{name or 'layer'}.gpkg")
