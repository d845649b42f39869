from __future__ import annotations

from itertools import permutations

import numpy as np
import shapely

from refsam_qgis.engine.vectors import polygons_of, simple_parts, value_order


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
