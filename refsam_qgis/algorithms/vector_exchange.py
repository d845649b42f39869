"""Features on their way to the engine and back, as GeoPackages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsField,
    QgsFields,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)

from ..engine.errors import JobCancelled
from ..host.qgis_compat import (
    ANY_GEOMETRY_VALIDITY,
    DOUBLE_FIELD,
    INTEGER64_FIELD,
    INTEGER_FIELD,
    NO_GEOMETRY,
    STRING_FIELD,
    UNKNOWN_GEOMETRY,
)
from .crs import known_crs
from .files import chosen_path
from .values import Values

CLASS_FIELD = "class"
"""Name of the class attribute of results."""

FIELD_TYPES = {
    "object_id": INTEGER64_FIELD,
    CLASS_FIELD: STRING_FIELD,
    "class_id": INTEGER_FIELD,
    "score": DOUBLE_FIELD,
    "stability": DOUBLE_FIELD,
    "area_m2": DOUBLE_FIELD,
    "source": STRING_FIELD,
    "reason": STRING_FIELD,
    **dict.fromkeys(("iou", "precision", "recall", "f1", "boundary_f"), DOUBLE_FIELD),
    **dict.fromkeys(("obj_prec", "obj_recall", "obj_f1", "obj_iou", "pq"), DOUBLE_FIELD),
    **dict.fromkeys(("true_px", "found_px"), INTEGER64_FIELD),
    **dict.fromkeys(("true_obj", "found_obj", "match_obj"), INTEGER_FIELD),
}
"""Attributes of results by their names, which have at most ten characters: a Shapefile cuts longer ones off."""

DIGITS = {INTEGER64_FIELD: 18, INTEGER_FIELD: 9}
"""Length of integers by their type: the longest that a Shapefile reads as that type again, and long enough.

Object ids are below the number of a raster's pixels, class ids below 255.
"""

OBJECT_FIELDS = ("object_id", CLASS_FIELD, "class_id", "score", "area_m2")
"""Attributes of the polygons that are found by reference."""


def export_features(
    source: QgsProcessingFeatureSource,
    fields: Mapping[str, str],
    path: str,
    transform_context: QgsCoordinateTransformContext,
    feedback: QgsProcessingFeedback,
    noun: str,
    may_be_empty: bool = False,
) -> None:
    """Write the features of `source` to a GeoPackage: what is selected, filtered or only in memory included.

    Args:
        source: Features in any CRS, which is kept.
        fields: Attribute of `source` for each name in the file; the others are left out.
        path: GeoPackage to write.
        transform_context: Of the project.
        feedback: Says when to stop.
        noun: What one feature is, for the sentences of failures, such as "example".
        may_be_empty: Whether there may be no features.

    Raises:
        QgsProcessingException: When there are no features with a geometry though there must be, or the file cannot be
            written.
    """
    kept, indices = _kept_fields(source, fields, noun)
    wkb_type = _plain_type(source.wkbType())
    if wkb_type == NO_GEOMETRY:
        raise QgsProcessingException(
            f"The layer of {noun}s '{source.sourceName()}' has no geometry; choose a layer on the map."
        )
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = "features"
    writer = QgsVectorFileWriter.create(path, kept, wkb_type, source.sourceCrs(), transform_context, options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise QgsProcessingException(f"The {noun}s cannot be copied ({writer.errorMessage()}); free some space.")
    written = 0
    # The engine repairs outlines that cross themselves; QGIS would stop the run, some versions by crashing.
    request = QgsFeatureRequest().setSubsetOfAttributes(indices)
    for feature in source.getFeatures(request, ANY_GEOMETRY_VALIDITY):
        if feedback.isCanceled():
            break
        for geometry in _plain_geometries(feature.geometry(), wkb_type):
            copy = QgsFeature(kept)
            copy.setGeometry(geometry)
            copy.setAttributes([feature.attribute(index) for index in indices])
            if not writer.addFeature(copy, QgsFeatureSink.Flag.FastInsert):
                raise QgsProcessingException(f"The {noun}s cannot be copied ({writer.errorMessage()}).")
            written += 1
    del writer  # closes the file
    if not (written or may_be_empty or feedback.isCanceled()):
        raise QgsProcessingException(
            f"The layer of {noun}s '{source.sourceName()}' has no features with a geometry; draw at least one, "
            "or select some."
        )


def result_fields(names: Sequence[str]) -> QgsFields:
    """Return attributes of results, keys of `FIELD_TYPES`."""
    fields = QgsFields()
    for name in names:
        kind = FIELD_TYPES[name]
        fields.append(QgsField(name, kind, len=DIGITS.get(kind, 0)))
    return fields


def deliver_polygons(
    values: Values,
    output: str,
    path: str,
    names: Sequence[str],
    crs: QgsCoordinateReferenceSystem | None,
    feedback: QgsProcessingFeedback,
) -> str | None:
    """Copy polygons to where the user wants them; only after the run, so that a failed one leaves nothing there.

    Args:
        values: Of the algorithm.
        output: Its sink parameter.
        path: GeoPackage that the engine wrote.
        names: Attributes to copy, keys of `FIELD_TYPES`.
        crs: CRS of the polygons; ``None`` for that of the GeoPackage.
        feedback: Says when to stop.

    Returns:
        Where they are, or ``None`` when they are not wanted.

    Raises:
        QgsProcessingException: When they cannot be written there.
        JobCancelled: When the user asked to stop before the first was written; what was there is left as it is.
    """
    _check_cancelled(feedback)
    layer = QgsVectorLayer(path, "polygons", "ogr")
    if not layer.isValid():
        raise QgsProcessingException(f"'{path}', which the engine wrote, cannot be read; free space on its disk.")
    fields = result_fields(names)

    def features() -> Iterator[QgsFeature]:
        for feature in layer.getFeatures():
            copy = QgsFeature(fields)
            copy.setGeometry(feature.geometry())
            copy.setAttributes([feature[name] for name in names])
            yield copy

    return _deliver(values, output, features(), fields, layer.wkbType(), layer.crs() if crs is None else crs)


def deliver_table(
    values: Values,
    output: str,
    rows: Sequence[Mapping[str, object]],
    names: Sequence[str],
    feedback: QgsProcessingFeedback,
) -> str | None:
    """Copy rows without a geometry to a sink; arguments, return value and failures as of `deliver_polygons`."""
    _check_cancelled(feedback)
    fields = result_fields(names)

    def features() -> Iterator[QgsFeature]:
        for row in rows:
            feature = QgsFeature(fields)
            feature.setAttributes([row[name] for name in names])
            yield feature

    return _deliver(values, output, features(), fields, NO_GEOMETRY, QgsCoordinateReferenceSystem())


def _check_cancelled(feedback: QgsProcessingFeedback) -> None:
    """Stop now or not at all: later it would leave a part, in the place of what was there before."""
    if feedback.isCanceled():
        raise JobCancelled(
            "The run was cancelled before its polygons or rows were copied; its other outputs are complete."
        )


def _deliver(
    values: Values,
    output: str,
    features: Iterable[QgsFeature],
    fields: QgsFields,
    wkb_type: Any,
    crs: QgsCoordinateReferenceSystem,
) -> str | None:
    algorithm, parameters, crs = values.algorithm, values.parameters, known_crs(crs)
    if (path := chosen_path(values, output)) is not None:
        with suppress(OSError):  # of which QGIS tells
            path.parent.mkdir(parents=True, exist_ok=True)  # it may lie in a folder that is an output itself
    sink, destination = algorithm.parameterAsSink(parameters, output, values.context, fields, wkb_type, crs)
    if sink is None:
        if not parameters.get(output):
            return None
        raise QgsProcessingException(algorithm.invalidSinkError(parameters, output))
    for feature in features:
        if not sink.addFeature(feature, QgsFeatureSink.Flag.FastInsert):
            raise QgsProcessingException(algorithm.writeFeatureError(sink, parameters, output))
    del sink  # closes the file
    in_memory = values.context.temporaryLayerStore().mapLayer(destination)
    if in_memory is not None:
        in_memory.setCrs(crs)  # without one QGIS makes it WGS 84
    return destination


def _kept_fields(
    source: QgsProcessingFeatureSource, fields: Mapping[str, str], noun: str
) -> tuple[QgsFields, list[int]]:
    kept, indices = QgsFields(), []
    for name, original in fields.items():
        index = source.fields().lookupField(original)
        if index < 0:
            raise QgsProcessingException(
                f"The layer of {noun}s '{source.sourceName()}' has no attribute '{original}'; choose another."
            )
        field = QgsField(source.fields().at(index))
        field.setName(name)  # the original name may be one that a GeoPackage keeps for itself
        kept.append(field)
        indices.append(index)
    return kept, indices


def _plain_type(wkb_type: Any) -> Any:
    """Return the flat multi-part type without curves, which every reader of the engine understands."""
    if wkb_type in (NO_GEOMETRY, UNKNOWN_GEOMETRY):
        return wkb_type
    return QgsWkbTypes.multiType(QgsWkbTypes.linearType(QgsWkbTypes.flatType(wkb_type)))


def _plain_geometries(geometry: QgsGeometry, wkb_type: Any) -> list[QgsGeometry]:
    if geometry.isNull() or geometry.isEmpty():
        return []
    return [geometry] if wkb_type == UNKNOWN_GEOMETRY else geometry.coerceToType(wkb_type)
