"""Names that moved between QGIS 3.22 and 4, resolved once."""

from __future__ import annotations

from qgis.core import Qgis, QgsProcessing, QgsProcessingParameterNumber, QgsWkbTypes
from qgis.PyQt import QtCore

_field_types = QtCore.QMetaType.Type if hasattr(QtCore.QMetaType, "Type") and Qgis.versionInt() >= 33800 else None

# QgsField takes QMetaType.Type from 3.38 and QVariant.Type before.
STRING_FIELD = _field_types.QString if _field_types else QtCore.QVariant.String
DOUBLE_FIELD = _field_types.Double if _field_types else QtCore.QVariant.Double

# Since 3.30 in Qgis.WkbType.
_wkb_types = getattr(Qgis, "WkbType", QgsWkbTypes)
POLYGON = _wkb_types.Polygon
NO_GEOMETRY = _wkb_types.NoGeometry
UNKNOWN_GEOMETRY = _wkb_types.Unknown

# Since 3.36 in Qgis.ProcessingSourceType and Qgis.ProcessingNumberParameterType.
if hasattr(Qgis, "ProcessingSourceType"):
    VECTOR_WITH_GEOMETRY = Qgis.ProcessingSourceType.VectorAnyGeometry
    VECTOR_POLYGON = Qgis.ProcessingSourceType.VectorPolygon
    INTEGER = Qgis.ProcessingNumberParameterType.Integer
    DOUBLE = Qgis.ProcessingNumberParameterType.Double
else:
    VECTOR_WITH_GEOMETRY = QgsProcessing.SourceType.TypeVectorAnyGeometry
    VECTOR_POLYGON = QgsProcessing.SourceType.TypeVectorPolygon
    INTEGER = QgsProcessingParameterNumber.Type.Integer
    DOUBLE = QgsProcessingParameterNumber.Type.Double
