from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from refsam_qgis.engine.rasters.map_shapes import to_pixels

BOXES = [shapely.box(x, 50, x + 30, 90) for x in (40, 225, 270)]
"""West of the column of the 180° meridian, 240, across it and east of it."""


def on_map(shapes, transform):
    return shapely.transform(shapes, lambda x, y: transform * (x, y), interleaved=False)


@pytest.mark.parametrize("west", [179.9988, -180.0012])
def test_shapes_on_either_side_of_the_antimeridian(west):
    """Independent: longitudes that pyproj brings to the zone west of 180° and back, in -180 to 180."""
    transform = Affine(5e-6, 0, west, 0, -5e-6, -17)
    shapes = [*BOXES, shapely.MultiPolygon([BOXES[0], BOXES[2]]), BOXES[1].boundary, BOXES[2].centroid]
    shapes.append(shapely.box(200, 100, 290, 190) - shapely.box(243, 120, 247, 130))
    zone = pyproj.Transformer.from_crs(4326, 32760, always_xy=True)
    away = shapely.transform(on_map(np.array(shapes), transform), zone.transform, interleaved=False)
    back = shapely.transform(away, lambda x, y: zone.transform(x, y, direction="INVERSE"), interleaved=False)
    assert np.abs(shapely.get_coordinates(back)[:, 0]).max() <= 180
    found = to_pixels(back, transform, CRS.from_epsg(4326), (150, 150))
    assert np.allclose(shapely.get_coordinates(found), shapely.get_coordinates(shapes), atol=1e-3)
    assert shapely.is_valid(found).all() and np.allclose(shapely.area(found), shapely.area(shapes), atol=0.1)


@pytest.mark.parametrize(("code", "turn"), [(4326, 360), (4807, 400)])
def test_a_turn_is_counted_in_the_unit_of_the_map(code, turn):
    transform = Affine(5e-6, 0, turn / 2 - 0.0012, 0, -5e-6, -17)
    for turns in (-2, -1, 0, 1):
        shapes = on_map(np.array(BOXES), Affine.translation(turns * turn, 0) * transform)
        found = to_pixels(shapes, transform, CRS.from_epsg(code), (150, 150))
        assert np.allclose(shapely.get_coordinates(found), shapely.get_coordinates(BOXES), atol=1e-3)


def test_what_goes_around_the_globe_stays_whole():
    world = np.array([shapely.box(-180, -90, 180, 90), shapely.Polygon([(-120, -80), (0, -80), (120, -80), (0, 80)])])
    found = to_pixels(world, Affine(0.1, 0, -180, 0, -0.1, 90), CRS.from_epsg(4326), (1800, 900))
    assert shapely.bounds(found)[0].tolist() == pytest.approx([0, 0, 3600, 1800])
    assert shapely.area(found) == pytest.approx(shapely.area(world) * 100)
    # One across Greenwich does not become a band around the globe where the raster lies at its back.
    across = to_pixels(np.array([shapely.box(-3, 0, 2, 1)]), Affine(1, 0, 170, 0, -1, 1), CRS.from_epsg(4326), (10, 5))
    assert np.ptp(shapely.bounds(across)[0, ::2]) == pytest.approx(5)


@pytest.mark.parametrize("crs", [None, 32760, 3857])
def test_metres_are_no_longitudes(crs):
    transform = Affine(0.5, 0, 4e6, 0, -0.5, 8e6)
    crs = None if crs is None else CRS.from_epsg(crs)
    found = to_pixels(on_map(np.array(BOXES), transform), transform, crs, (150, 150))
    assert np.allclose(shapely.get_coordinates(found), shapely.get_coordinates(BOXES), atol=1e-6)


@pytest.mark.parametrize("code", [4326, 32760])
def test_what_the_map_cannot_show_is_empty(code):
    lost = [shapely.Polygon([(np.inf, np.inf), (1, 1), (2, 2)]), shapely.Point(np.inf, np.inf), shapely.Point()]
    shapes = np.array([*lost, *BOXES])
    found = to_pixels(shapes, Affine.identity(), CRS.from_epsg(code), (0, 0))
    assert shapely.is_empty(found).tolist() == [True] * 3 + [False] * 3
    assert len(to_pixels(shapes[:0], Affine.identity(), CRS.from_epsg(code), (0, 0))) == 0
