from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import permutations

import numpy as np
import pytest
import shapely

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.vectors import crs_of, field_values, polygons_of, read_features, simple_parts, value_order

FIELD = "class \" of 'all'"


def test_values_have_one_order_whatever_they_come_in():
    values = ["-3", "5", "7", "1e1", "inf", "nan", "roof"]
    assert all(sorted(given, key=value_order) == values for given in permutations(values))


def test_polygons_are_those_of_collections_in_collections_without_spikes():
    """GEOS gives the line of a spike beside the polygon, and of one on a bow tie beside a collection of polygons."""
    square = shapely.box(0, 0, 4, 4)
    spike = shapely.Polygon([(0, 0), (4, 0), (4, 4), (4, 9), (4, 4), (0, 4)])
    bow_tie = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10), (0, 14), (0, 10)])
    nested = shapely.GeometryCollection([shapely.MultiPolygon([square]), shapely.LineString([(0, 0), (9, 9)])])
    deeper = shapely.GeometryCollection([nested, shapely.Point(1, 1)])
    flat = shapely.Polygon([(0, 0), (9, 9), (0, 0)])
    shapes = np.array([square, spike, bow_tie, nested, deeper, flat, shapely.Point(0, 0)], dtype=object)
    polygons, origin = polygons_of(shapes)
    assert origin.tolist() == [0, 1, 2, 2, 3, 4]
    assert all(polygon.geom_type == "Polygon" and polygon.is_valid for polygon in polygons)
    assert shapely.area(polygons).tolist() == [16, 16, 25, 25, 16, 16]
    parts, origin = simple_parts(shapes[3:5])
    assert [part.geom_type for part in parts] == ["Polygon", "LineString", "Polygon", "LineString", "Point"]
    assert origin.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((True, False), ["True", "False"]),
        ((2**60 + 1, 2**60 + 2), ["1152921504606846977", "1152921504606846978"]),
        ((7, 2**40), ["7", "1099511627776"]),
        (("2020-01-31", "1020-02-01"), ["2020-01-31", "1020-02-01"]),
        (("2020-01-31T00:00:00", "2020-02-01T03:04:05"), ["2020-01-31 00:00:00", "2020-02-01 03:04:05"]),
        ((1.5, 2.0), ["1.5", "2"]),
    ],
)
def test_values_read_as_they_are_stored_beside_missing_ones_too(tmp_path, values, texts, missing):
    """Pandas makes floats of truth values and integers where some are missing, and times of dates."""
    features = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [13, 52]}, "properties": {FIELD: value}}
        for value in (*values, *[None] * missing)
    ]
    path = tmp_path / "marks.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    frame = read_features(str(path), "points")
    assert field_values(frame, str(path), FIELD) == [*texts, *[""] * missing]


def test_a_field_that_is_not_there_is_named(write_vector):
    path = write_vector([shapely.Point(0, 0)], klasse=[1])
    with pytest.raises(RefSAMError, match="has no field 'class'; it has klasse"):
        field_values(read_features(path, "points"), path, "class")


@pytest.mark.parametrize("undefined", [-1, 0])
def test_both_undefined_crs_of_geopackages_are_none(write_vector, undefined):
    """The standard has a local one and a geographic one, which is what QGIS writes for a layer without a CRS."""
    path = write_vector([shapely.Point(391200, 5820600)], crs=None)
    with closing(sqlite3.connect(path)) as database, database:
        for table in ("gpkg_contents", "gpkg_geometry_columns"):
            database.execute(f"UPDATE {table} SET srs_id = {undefined}")
    frame = read_features(path, "points")
    assert frame.crs is not None and crs_of(frame) is None


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_a_crs_that_is_known_is_kept(write_vector, crs):
    assert crs_of(read_features(write_vector([shapely.Point(1, 1)], crs=crs), "points")) == crs
