"""Names that moved between QGIS 3.22 and 4, resolved once."""

from __future__ import annotations

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsWkbTypes,
)
from qgis.PyQt import QtCore

_field_types = QtCore.QMetaType.Type if hasattr(QtCore.QMetaType, "Type") and Qgis.versionInt() >= 33800 else None

# QgsField takes QMetaType.Type from 3.38 and QVariant.Type before.
STRING_FIELD = _field_types.QString if _field_types else QtCore.QVariant.String
DOUBLE_FIELD = _field_types.Double if _field_types else QtCore.QVariant.Double
INTEGER_FIELD = _field_types.Int if _field_types else QtCore.QVariant.Int
INTEGER64_FIELD = _field_types.LongLong if _field_types else QtCore.QVariant.LongLong

# Since 3.30 in Qgis.WkbType.
_wkb_types = getattr(Qgis, "WkbType", QgsWkbTypes)
POLYGON = _wkb_types.Polygon
NO_GEOMETRY = _wkb_types.NoGeometry
UNKNOWN_GEOMETRY = _wkb_types.Unknown

# Since 3.36 in Qgis.
WKT2 = (
    Qgis.CrsWktVariant.Preferred
    if hasattr(Qgis, "CrsWktVariant")
    else QgsCoordinateReferenceSystem.WktVariant.WKT_PREFERRED
)

# Since 3.36 in enums of Qgis.
if hasattr(Qgis, "ProcessingSourceType"):
    TABLE = Qgis.ProcessingSourceType.Vector
    RASTER = Qgis.ProcessingSourceType.Raster
    VECTOR_WITH_GEOMETRY = Qgis.ProcessingSourceType.VectorAnyGeometry
    VECTOR_POINT = Qgis.ProcessingSourceType.VectorPoint
    VECTOR_POLYGON = Qgis.ProcessingSourceType.VectorPolygon
    INTEGER = Qgis.ProcessingNumberParameterType.Integer
    DOUBLE = Qgis.ProcessingNumberParameterType.Double
    FOLDER = Qgis.ProcessingFileParameterBehavior.Folder
    ADVANCED = Qgis.ProcessingParameterFlag.Advanced
    ANY_GEOMETRY_VALIDITY = Qgis.ProcessingFeatureSourceFlag.SkipGeometryValidityChecks
else:
    TABLE = QgsProcessing.SourceType.TypeVector
    RASTER = QgsProcessing.SourceType.TypeRaster
    VECTOR_WITH_GEOMETRY = QgsProcessing.SourceType.TypeVectorAnyGeometry
    VECTOR_POINT = QgsProcessing.SourceType.TypeVectorPoint
    VECTOR_POLYGON = QgsProcessing.SourceType.TypeVectorPolygon
    INTEGER = QgsProcessingParameterNumber.Type.Integer
    DOUBLE = QgsProcessingParameterNumber.Type.Double
    FOLDER = QgsProcessingParameterFile.Behavior.Folder
    ADVANCED = QgsProcessingParameterDefinition.Flag.FlagAdvanced
    ANY_GEOMETRY_VALIDITY = QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks
