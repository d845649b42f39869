"""How results look when QGIS loads them: a QML file for each kind, and the classes that a result really holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from osgeo import gdal
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsColorRampShader,
    QgsExpression,
    QgsFeatureRequest,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterShader,
    QgsRendererCategory,
    QgsSingleBandPseudoColorRenderer,
    QgsSymbol,
    QgsVectorLayer,
)
from qgis.PyQt import sip
from qgis.PyQt.QtGui import QColor

from ..engine.palette import class_colour
from ..host.translation import tr
from .crs import known_crs

FOLDER = Path(__file__).parents[1] / "styles"
CLASS_TAG = "CLASS_{}"
"""Band tag of a mask with the name of class 1, 2, …"""
NO_CLASS = (130, 130, 130)
"""Colour of what has no class."""
OBJECT_COLOURS = 1000
"""Steps of colour among the object numbers of a raster."""
SAMPLED_PIXELS = 250_000
"""Pixels looked at for the largest object number, so that a large raster does not keep QGIS waiting."""


class Style(QgsProcessingLayerPostProcessorInterface):
    """Gives a loaded layer the style of a QML file.

    Attributes:
        NAME: Stem of the QML file.
    """

    NAME: str

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        """Style `layer`; called in the main thread when it is loaded. A table, such as of a CSV file, has no style."""
        if not layer.isSpatial():
            return
        layer.setCrs(known_crs(layer.crs()))
        layer.loadNamedStyle(str(FOLDER / f"{self.NAME}.qml"))
        self.fit(layer)
        layer.triggerRepaint()

    def fit(self, layer: Any) -> None:
        """Adapt the style to what the layer holds."""


class PolygonStyle(Style):
    """Polygons with ``class`` and ``class_id``."""

    NAME = "polygons"

    def fit(self, layer: QgsVectorLayer) -> None:
        """Add a category for each class, in the class's colour, and one for what has no class."""
        renderer = QgsCategorizedSymbolRenderer(layer.renderer().classAttribute(), [])
        template = layer.renderer().sourceSymbol()
        renderer.setSourceSymbol(template.clone())
        for name, rgb in _polygon_classes(layer):
            renderer.addCategory(QgsRendererCategory(name, _painted(template, rgb), name or tr("Others")))
        layer.setRenderer(renderer)


class MaskStyle(Style):
    """Raster of class numbers whose band tags name them."""

    NAME = "mask"

    def fit(self, layer: QgsRasterLayer) -> None:
        """Add an entry for each class, in the class's colour."""
        classes = [
            QgsPalettedRasterRenderer.Class(class_id, _colour(class_id, 255), name)
            for class_id, name in _mask_classes(layer.source()).items()
        ]
        renderer = QgsPalettedRasterRenderer(layer.dataProvider(), 1, classes)
        renderer.setOpacity(layer.renderer().opacity())
        layer.setRenderer(renderer)


class ObjectStyle(Style):
    """Polygons without a class."""

    NAME = "objects"


class ObjectMaskStyle(Style):
    """Raster of object numbers: neighbouring numbers mostly differ in colour, where there is no object is none."""

    NAME = "mask"

    def fit(self, layer: QgsRasterLayer) -> None:
        """Share out the colours among the numbers up to about the largest."""
        largest = layer.dataProvider().bandStatistics(1, sampleSize=SAMPLED_PIXELS).maximumValue
        numbers = max(1, math.ceil(max(1.0, largest) / OBJECT_COLOURS))
        items = [QgsColorRampShader.ColorRampItem(0, QColor(0, 0, 0, 0))]
        items += [QgsColorRampShader.ColorRampItem(i * numbers, _colour(i, 255)) for i in range(1, OBJECT_COLOURS)]
        items.append(QgsColorRampShader.ColorRampItem(math.inf, _colour(OBJECT_COLOURS, 255)))  # beyond the sample
        ramp = QgsColorRampShader(0, largest, None, QgsColorRampShader.Type.Discrete)
        ramp.setColorRampItemList(items)
        shader = QgsRasterShader()
        shader.setRasterShaderFunction(ramp)
        renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1, shader)
        renderer.setOpacity(layer.renderer().opacity())
        layer.setRenderer(renderer)


class ProbabilityStyle(Style):
    """Raster of probabilities in 0..1."""

    NAME = "probability"


_waiting: list[Style] = []
"""Styles that Processing may still use. It deletes them with the run's context, but not their Python part."""


def style_when_loaded(context: QgsProcessingContext, destination: str | None, style: type[Style]) -> None:
    """Give the layer at `destination` its style if Processing is going to load it."""
    if destination and context.willLoadLayerOnCompletion(destination):
        _waiting[:] = [kept for kept in _waiting if not sip.isdeleted(kept)]
        _waiting.append(style())
        context.layerToLoadOnCompletionDetails(destination).setPostProcessor(_waiting[-1])


def _polygon_classes(layer: QgsVectorLayer) -> list[tuple[str, tuple[int, int, int]]]:
    """Return the name and colour of each class that the polygons have, by class id; last, as "", of those without one.

    A person may have renamed classes or added polygons, so that names share an id or have none.
    """
    known, others = [], []
    for name in layer.uniqueValues(layer.fields().lookupField("class")):
        if not name:
            others.append(("", NO_CLASS))
            continue
        request = QgsFeatureRequest().setFilterExpression(QgsExpression.createFieldEqualityExpression("class", name))
        class_id = next(layer.getFeatures(request.setLimit(1)))["class_id"]
        known.append((class_id or math.inf, name, class_colour(class_id) if class_id else NO_CLASS))
    return [*((name, rgb) for _, name, rgb in sorted(known)), *others[:1]]


def _mask_classes(path: str) -> dict[int, str]:
    dataset = gdal.Open(path)  # a band does not keep its dataset open: without this name, QGIS crashes
    tags = dataset.GetRasterBand(1).GetMetadata()
    names: dict[int, str] = {}
    while CLASS_TAG.format(len(names) + 1) in tags:
        names[len(names) + 1] = tags[CLASS_TAG.format(len(names) + 1)]
    return names


def _painted(template: QgsSymbol, rgb: tuple[int, int, int]) -> QgsSymbol:
    """Return a copy of a symbol in another colour, as opaque as it."""
    symbol = template.clone()
    fill = symbol.symbolLayer(0)
    fill.setFillColor(QColor(*rgb, fill.fillColor().alpha()))
    fill.setStrokeColor(QColor(*rgb, fill.strokeColor().alpha()))
    return symbol


def _colour(class_id: int, alpha: int) -> QColor:
    return QColor(*class_colour(class_id), alpha)
