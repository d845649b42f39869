"""Layers of any kind on their way to the engine."""

import pytest
from osgeo import ogr
from qgis.core import (
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingException,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameters,
    QgsVectorLayer,
)

from refsam_qgis.algorithms.vector_exchange import FIELD_TYPES, export_features


@pytest.fixture
def export(context, feedback, tmp_path):
    """Export features with the given WKT and attributes, and return the WKT and attributes that GDAL reads back."""

    def export(uri, rows, fields, **options):
        layer = QgsVectorLayer(uri, "marks", "memory")
        for wkt, *attributes in rows:
            feature = QgsFeature(layer.fields())
            if wkt:
                feature.setGeometry(QgsGeometry.fromWkt(wkt))
            feature.setAttributes(attributes)
            assert layer.dataProvider().addFeature(feature)
        path = str(tmp_path / "exported.gpkg")
        parameter = QgsProcessingParameterFeatureSource("MARKS")
        source = QgsProcessingParameters.parameterAsSource(parameter, {"MARKS": layer}, context)
        export_features(source, fields, path, context.transformContext(), feedback, "mark", **options)
        exported = ogr.Open(path)
        read = exported.GetLayer(0)
        assert read.GetSpatialRef().GetAuthorityCode(None) == layer.crs().authid().split(":")[1]
        return [(feature.GetGeometryRef().ExportToWkt(), feature.items()) for feature in read]

    return export


@pytest.mark.parametrize(
    ("kind", "wkt", "flat"),
    [
        ("MultiPolygonZ", "MultiPolygonZ (((0 0 9, 4 0 9, 4 4 9, 0 0 9)))", "MULTIPOLYGON (((0 0,4 0,4 4,0 0)))"),
        ("Point", "Point (1 2)", "MULTIPOINT (1 2)"),
        ("LineStringM", "LineStringM (0 0 5, 1 1 6)", "MULTILINESTRING ((0 0,1 1))"),
    ],
)
def test_geometries_become_plain_ones(export, kind, wkt, flat):
    assert export(f"{kind}?crs=EPSG:32633", [(wkt,)], {}) == [(flat, {})]


def test_arcs_become_straight(export):
    [(wkt, _)] = export("CurvePolygon?crs=EPSG:32633", [("CurvePolygon (CircularString (0 0, 2 0, 0 0))",)], {})
    geometry = ogr.CreateGeometryFromWkt(wkt)
    assert geometry.GetGeometryName() == "MULTIPOLYGON" and geometry.GetArea() == pytest.approx(3.14159, abs=0.01)


def test_outlines_that_cross_themselves_go_to_the_engine(export, context):
    """As they are in a run from the toolbox, which by default stops at what is not valid."""
    context.setInvalidGeometryCheck(QgsFeatureRequest.InvalidGeometryCheck(2))  # stop the algorithm
    tie = "MULTIPOLYGON (((0 0,4 4,4 0,0 4,0 0)))"
    assert export("MultiPolygon?crs=EPSG:32633", [(tie,)], {}) == [(tie, {})]


def test_the_crs_is_kept(export):
    assert export("Point?crs=EPSG:4326", [("Point (13 52)",)], {}) == [("MULTIPOINT (13 52)", {})]


def test_only_the_fields_asked_for_go_along_under_their_new_names(export):
    uri = "Point?crs=EPSG:32633&field=fid:integer&field=secret:string&field=big:int8"
    [(_, attributes)] = export(uri, [("Point (1 2)", 7, "x", 5_000_000_000)], {"label": "fid", "object": "big"})
    assert attributes == {"label": 7, "object": 5_000_000_000}


def test_features_without_a_geometry_are_left_out(export):
    assert len(export("Point?crs=EPSG:32633", [(None,), ("Point EMPTY",), ("Point (1 2)",)], {})) == 1


def test_a_missing_attribute_is_explained(export):
    with pytest.raises(QgsProcessingException, match="layer of marks 'marks' has no attribute 'label'"):
        export("Point?crs=EPSG:32633", [("Point (1 2)",)], {"label": "label"})


def test_an_empty_layer_is_explained_unless_it_may_be_empty(export):
    with pytest.raises(QgsProcessingException, match="layer of marks 'marks' has no features with a geometry"):
        export("Point?crs=EPSG:32633", [], {})


def test_an_empty_layer_may_be_allowed(export):
    assert export("Point?crs=EPSG:32633", [], {}, may_be_empty=True) == []


def test_names_fit_into_a_shapefile():
    assert max(map(len, FIELD_TYPES)) <= 10
