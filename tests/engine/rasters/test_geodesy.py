from __future__ import annotations

import math

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from refsam_qgis.engine.rasters.geodesy import GroundMeasure

PLACES = {
    "UTM": (32640, (3e5, 2.7e6, 6e5, 2.9e6)),
    "degrees": (4326, (-179, -85, 179, 85)),
    "antimeridian": (4326, (179.9995, 50, 180.0005, 60)),
    "Antarctica": (3031, (-2e6, -2e6, 2e6, 2e6)),
    "North Pole": (3995, (-3e4, -3e4, 3e4, 3e4)),
    "South Pole": (3031, (-3e4, -3e4, 3e4, 3e4)),
    "Web Mercator": (3857, (-1e7, 5e6, 1e7, 1e7)),
}


def discs(box, radii, seed=0):
    centres = np.random.default_rng(seed).uniform(box[:2], box[2:], (len(radii), 2))
    rings = [
        shapely.Point(centre).buffer(radius) - shapely.Point(centre).buffer(0.4 * radius)
        for centre, radius in zip(centres, radii, strict=True)
    ]
    return np.array(rings)


@pytest.mark.parametrize("place", PLACES)
def test_areas_are_those_of_geodesic_polygons(place):
    code, box = PLACES[place]
    crs = CRS.from_epsg(code)
    unit = 1e-5 if code == 4326 else 1.0
    polygons = discs(box, np.geomspace(100, 3000, 60) * unit)
    polygons[0] = shapely.MultiPolygon([polygons[0], shapely.transform(polygons[0], lambda xy: xy + 500 * unit)])
    if place.endswith("Pole"):
        polygons[1] = shapely.Point(0, 0).buffer(2000)
    on_globe = shapely.transform(
        shapely.orient_polygons(polygons),
        pyproj.Transformer.from_crs(crs, pyproj.CRS(crs).geodetic_crs, always_xy=True).transform,
        interleaved=False,
    )
    geod = pyproj.CRS(crs).get_geod()
    expected = [abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in on_globe]
    assert np.allclose(GroundMeasure(crs).areas(polygons), expected, rtol=3e-6)


@pytest.mark.parametrize(("code", "radius"), [(3031, 1.2e6), (3031, 3e6), (3995, 2e6)])
def test_what_goes_around_a_pole_is_measured_up_to_it(code, radius):
    """The edges are short in longitude, as those of land and sea ice on maps of a kilometre a pixel."""
    measure = GroundMeasure(CRS.from_epsg(code))
    disc = shapely.segmentize(shapely.Point(0, 0).buffer(radius, quad_segs=256), 1000)
    quarter = shapely.box(0, 0, 2 * radius, 2 * radius) & disc
    ring = disc - shapely.Point(0, 0).buffer(0.9 * radius, quad_segs=256)
    parts = measure.areas(np.array([shapely.segmentize(quarter, 1000), ring & shapely.box(0, 0, 9e9, 9e9)]))
    assert np.allclose(measure.areas(np.array([disc, ring])), 4 * parts, rtol=1e-4)


@pytest.mark.parametrize(
    ("west", "south", "east", "north"),
    [(-180, -60, 180, 80), (-180, -80, 180, 60), (-170, -85, 175, 85), (-180, -90, 180, 90), (-180, -90, 180, -70)],
)
@pytest.mark.parametrize("pixel", [0.1, 1.0])
def test_what_covers_most_of_the_globe_is_not_measured_as_the_rest(west, south, east, north, pixel):
    measure = GroundMeasure(CRS.from_epsg(4326))
    holes = [shapely.box(-20, -88, 10, -81), shapely.box(-160, -55, 160, 55), shapely.box(20, 62, 30, 70)]
    whole = shapely.box(west, south, east, north)
    # Cells of ten degrees, each of them far less than half of the globe.
    cells = [shapely.box(x, y, x + 10, y + 10) for x in range(-180, 180, 10) for y in range(-90, 90, 10)]
    for polygon in (whole, whole - shapely.union_all(holes)):
        parts = shapely.get_parts(shapely.intersection(np.array(cells), polygon))
        polygons = np.append(parts[shapely.area(parts) > 0], polygon)
        areas = measure.areas(measure.split_edges(polygons, Affine.scale(pixel), pixel * 1e5))
        assert areas[-1] == pytest.approx(areas[:-1].sum(), rel=1e-3)


def test_areas_of_specks_keep_their_digits():
    """Independent: over so little ground the map's own areal scale is constant."""
    polygons = discs((4e5, 2.7e6, 6e5, 2.8e6), np.full(50, 0.5))
    centres = shapely.get_coordinates(shapely.centroid(polygons))
    utm = pyproj.Proj(32640)
    scale = utm.get_factors(*utm(*centres.T, inverse=True)).areal_scale
    assert np.allclose(GroundMeasure(CRS.from_epsg(32640)).areas(polygons) * scale, shapely.area(polygons), rtol=1e-7)


@pytest.mark.parametrize("code", [32640, 4326, None])
def test_holes_count_whichever_way_they_run(code):
    unit = 1e-5 if code == 4326 else 1.0
    shell, hole = shapely.box(0, 0, 100, 100).exterior.coords, shapely.box(20, 20, 70, 70).exterior.coords
    place = (54.0, 25.0) if code == 4326 else (4e5, 2.7e6)
    measure = GroundMeasure(None if code is None else CRS.from_epsg(code))
    rings = [np.array(ring) * unit + place for ring in (shell, hole, hole[::-1])]
    polygons = [shapely.Polygon(rings[0]), shapely.Polygon(rings[0], rings[1:2]), shapely.Polygon(rings[0], rings[2:])]
    whole, one, other = measure.areas(np.array(polygons))
    assert one == pytest.approx(0.75 * whole, rel=1e-4) and other == pytest.approx(one, rel=1e-9)


def test_a_local_grid_in_feet_is_measured_in_metres():
    """It has no ellipsoid, but says what its unit is."""
    measure = GroundMeasure(CRS.from_wkt('LOCAL_CS["site",UNIT["foot",0.3048]]'))
    assert measure.pixel_size(Affine(10, 0, 0, 0, -10, 0), 5, 5) == pytest.approx(3.048)
    assert measure.areas(np.array([shapely.box(0, 0, 10, 20)])) == pytest.approx([200 * 0.3048**2])


def test_a_slanted_pixel_is_as_large_as_it_is():
    measure = GroundMeasure(CRS.from_epsg(32640))
    transform = Affine(2, 1.5, 500_000, 0, -2, 2.7e6)
    assert measure.pixel_size(transform, 10, 10) == pytest.approx(2 / 0.9996, rel=1e-5)


def test_aspect_of_a_degree():
    measure = GroundMeasure(CRS.from_epsg(4326))
    points = np.array([[10.0, 0.0], [10.0, 45.0], [-70.0, -60.0]])
    geod = pyproj.Geod(ellps="WGS84")
    for (x, y), aspect in zip(points, measure.aspects(points), strict=True):
        along, up = geod.inv(x - 1e-4, y, x + 1e-4, y)[2], geod.inv(x, y - 1e-4, x, y + 1e-4)[2]
        assert aspect == pytest.approx(along / up, rel=1e-6)
    assert GroundMeasure(CRS.from_epsg(32640)).aspects(points).tolist() == [1, 1, 1]
    assert GroundMeasure(None).aspects(points).tolist() == [1, 1, 1]


@pytest.mark.parametrize(("code", "unit"), [(27572, 0.9), (27561, 0.9), (4807, 0.9), (4901, 0.9), (4326, 1), (2154, 1)])
def test_a_grad_is_nine_tenths_of_a_degree(code, unit):
    """Independent: a quadrangle that the ellipsoid's own formulas lay out and measure in degrees."""
    crs = pyproj.CRS(code)
    geod = crs.get_geod()
    lon, lat = 0.2, 49.1
    east, north = geod.fwd(lon, lat, 90, 30)[0], geod.fwd(lon, lat, 0, 20)[1]
    corners = [(lon, lat), (east, lat), (east, north), (lon, north)]
    to_map = pyproj.Transformer.from_crs(crs.geodetic_crs, crs, always_xy=True)
    on_map = [to_map.transform(x / unit, y / unit) for x, y in corners]
    measure = GroundMeasure(CRS.from_epsg(code))
    expected = abs(geod.polygon_area_perimeter(*zip(*corners, strict=True))[0])
    assert expected == pytest.approx(600, rel=1e-4)
    assert measure.areas(np.array([shapely.Polygon(on_map)]))[0] == pytest.approx(expected, rel=1e-6)
    (x, y), right, _, up = on_map
    # The pixel whose sides are those of the quadrangle.
    transform = Affine(right[0] - x, up[0] - x, x, right[1] - y, up[1] - y, y)
    assert measure.pixel_size(transform, 0, 0) == pytest.approx(math.sqrt(600), rel=1e-4)
    if crs.is_geographic:
        aspect = (north - lat) / 20 * 30 / (east - lon)
        assert measure.aspects(np.array([on_map[0]]))[0] == pytest.approx(aspect, rel=1e-5)
