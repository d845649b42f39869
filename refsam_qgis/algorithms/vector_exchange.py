"""Features on their way to the engine and back, as GeoPackages."""

from __future__ import annotations

from qgis.core import (
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

from ..host.qgis_compat import DOUBLE_FIELD, NO_GEOMETRY, STRING_FIELD, UNKNOWN_GEOMETRY

CLASS_FIELD = "class"
"""Name of the class attribute in both directions."""


def export_references(
    source: QgsProcessingFeatureSource,
    class_field: str,
    path: str,
    transform_context: QgsCoordinateTransformContext,
    feedback: QgsProcessingFeedback,
) -> None:
    """Write the features of `source` to a GeoPackage: what is selected, filtered or only in memory included.

    Args:
        source: Reference features.
        class_field: Attribute that holds the class; it becomes `CLASS_FIELD`. Empty for none.
        path: GeoPackage to write.
        transform_context: Of the project.
        feedback: Says when to stop.

    Raises:
        QgsProcessingException: When there are no features with a geometry, or the file cannot be written.
    """
    fields, index = _reference_fields(source, class_field)
    wkb_type = _plain_type(source.wkbType())
    if wkb_type == NO_GEOMETRY:
        raise QgsProcessingException("The reference layer has no geometry; choose polygons, lines or points.")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = "references"
    writer = QgsVectorFileWriter.create(path, fields, wkb_type, source.sourceCrs(), transform_context, options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise QgsProcessingException(f"The references cannot be copied ({writer.errorMessage()}); free some space.")
    written = 0
    attributes = [] if index is None else [index]
    for feature in source.getFeatures(QgsFeatureRequest().setSubsetOfAttributes(attributes)):
        if feedback.isCanceled():
            break
        for geometry in _plain_geometries(feature.geometry(), wkb_type):
            copy = QgsFeature(fields)
            copy.setGeometry(geometry)
            if index is not None:
                copy.setAttributes([feature.attribute(index)])
            if not writer.addFeature(copy, QgsFeatureSink.Flag.FastInsert):
                raise QgsProcessingException(f"A reference cannot be copied ({writer.errorMessage()}).")
            written += 1
    del writer  # closes the file
    if not written and not feedback.isCanceled():
        raise QgsProcessingException(
            "The reference layer has no features with a geometry; outline at least one example of the class, "
            "or select some."
        )


def result_fields() -> QgsFields:
    """Return the attributes of the polygons found: class, score (0..1) and area in square metres."""
    fields = QgsFields()
    fields.append(QgsField(CLASS_FIELD, STRING_FIELD))
    fields.append(QgsField("score", DOUBLE_FIELD))
    fields.append(QgsField("area_m2", DOUBLE_FIELD))
    return fields


def copy_results(path: str, sink: QgsFeatureSink, feedback: QgsProcessingFeedback) -> bool:
    """Add the polygons that the engine wrote at `path` to `sink`.

    Returns:
        Whether the sink took them all.
    """
    fields = result_fields()
    layer = QgsVectorLayer(path, "polygons", "ogr")
    for feature in layer.getFeatures():
        if feedback.isCanceled():
            return True
        copy = QgsFeature(fields)
        copy.setGeometry(feature.geometry())
        copy.setAttributes([feature[field.name()] for field in fields])
        if not sink.addFeature(copy, QgsFeatureSink.Flag.FastInsert):
            return False
    return True


def _reference_fields(source: QgsProcessingFeatureSource, class_field: str) -> tuple[QgsFields, int | None]:
    fields = QgsFields()
    if not class_field:
        return fields, None
    index = source.fields().lookupField(class_field)
    if index < 0:
        raise QgsProcessingException(f"The reference layer has no attribute '{class_field}'; choose another.")
    field = QgsField(source.fields().at(index))
    field.setName(CLASS_FIELD)  # the original name may be one that a GeoPackage keeps for itself
    fields.append(field)
    return fields, index


def _plain_type(wkb_type: int) -> int:
    """Return the flat multi-part type without curves, which every reader of the engine understands."""
    if wkb_type in (NO_GEOMETRY, UNKNOWN_GEOMETRY):
        return wkb_type
    return QgsWkbTypes.multiType(QgsWkbTypes.linearType(QgsWkbTypes.flatType(wkb_type)))


def _plain_geometries(geometry: QgsGeometry, wkb_type: int) -> list[QgsGeometry]:
    if geometry.isNull() or geometry.isEmpty():
        return []
    return [geometry] if wkb_type == UNKNOWN_GEOMETRY else geometry.coerceToType(wkb_type)
