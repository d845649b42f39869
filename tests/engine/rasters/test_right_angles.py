from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from scipy.ndimage import gaussian_filter
from shapely import affinity

from refsam_qgis.engine.job import PolygonOptions
from refsam_qgis.engine.rasters import right_angles
from refsam_qgis.engine.rasters.outlines import finish_outlines, mask_outline
from refsam_qgis.engine.rasters.right_angles import right_angled

SIDE = 96
FORMS = {
    "rectangle": shapely.box(-25, -14, 25, 14),
    "L": shapely.box(-25, -20, 25, 20) - shapely.box(2, 0, 30, 30),
    "U": shapely.box(-25, -20, 25, 20) - shapely.box(-8, 0, 10, 30),
    "courtyard": shapely.box(-25, -20, 25, 20) - shapely.box(-10, -8, 12, 8),
}


def building(form, angle, seed, noise=0.08, transform=None):
    """The true outline in pixels and a mask of it with uneven edges."""
    truth = affinity.translate(affinity.rotate(FORMS[form], angle, origin=(0, 0)), SIDE / 2 + 0.3, SIDE / 2)
    rng = np.random.default_rng(seed)
    fine = rasterize([truth], (4 * SIDE, 4 * SIDE), transform=Affine.scale(0.25)).astype(float)
    soft = fine.reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3))
    bumps = gaussian_filter(rng.normal(size=soft.shape), 1.0)
    return truth, gaussian_filter(soft, 0.7) + noise * bumps / bumps.std() > 0.5


def outline(mask, pixel_grid):
    flat = pixel_grid(crs=None, transform=Affine.identity())
    parts = shapely.get_parts(mask_outline(mask, 0, 0, flat))
    return parts[shapely.area(parts).argmax()]


def corner_angles(polygon):
    """Degrees off a right angle at every corner."""
    off = []
    for ring in (polygon.exterior, *polygon.interiors):
        corners = shapely.get_coordinates(ring)
        edges = np.diff(corners, axis=0)
        headings = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
        turns = np.diff(headings, append=headings[0]) % 180
        off += np.abs(turns - 90).tolist()
    return np.array(off)


def iou(one, other):
    return one.intersection(other).area / one.union(other).area


@pytest.mark.parametrize("angle", [0, 11, 30, 45, 63.4, 89])
@pytest.mark.parametrize("form", FORMS)
def test_noisy_buildings_become_what_they_are(pixel_grid, form, angle):
    for seed in range(3):
        truth, mask = building(form, angle, seed)
        noisy = outline(mask, pixel_grid)
        square = right_angled(np.array([noisy]))[0]
        assert square.is_valid
        assert corner_angles(square).max() < 1
        assert iou(square, truth) >= 0.9 and iou(square, truth) > iou(noisy, truth) - 0.01
        assert len(square.exterior.coords) == len(truth.exterior.coords)
        assert len(square.interiors) == len(truth.interiors)


def test_walls_count_where_the_smallest_rectangle_lies_across_them():
    """Stairs along a diagonal, alone and beside others far away."""
    stairs = shapely.union_all([shapely.box(10 * i, 10 * i, 10 * i + 20, 10 * i + 20) for i in range(5)])
    for angle in (0, 20, 77):
        turned = affinity.rotate(stairs, angle, origin=(0, 0))
        other = affinity.translate(affinity.rotate(FORMS["L"], 33), 9000, 4000)
        for polygons in ([turned], [turned, other], [other, turned]):
            for square, polygon in zip(right_angled(np.array(polygons)), polygons, strict=True):
                assert corner_angles(square).max() < 1 and iou(square, polygon) > 0.95


def test_a_building_that_is_thinner_than_the_shortest_wall_keeps_its_walls():
    wall = affinity.rotate(shapely.box(0, 0, 30, right_angles.SHORTEST_WALL - 0.5), 15)
    (square,) = right_angled(np.array([wall]))
    assert square is not None and iou(square, wall) > 0.9


def test_where_a_ring_starts_does_not_matter():
    """A side of battlements, whose short walls are merged wherever the ring starts."""
    merlons = [shapely.box(10 * i, 0, 10 * i + 5, 22.2) for i in range(4)]
    castle = shapely.union_all([shapely.box(0, 0, 40, 20), *merlons])
    corners = shapely.get_coordinates(shapely.segmentize(castle, 1.0))[:-1]
    for start in range(len(corners)):
        ring = np.roll(corners, start, axis=0)
        walls = shapely.Polygon(right_angles._walls(np.vstack([ring, ring[:1]]), 3.0))
        assert len(walls.exterior.coords) == 5
        assert iou(walls, castle) > 0.9


def test_what_is_not_right_angled_keeps_its_shape():
    triangle = shapely.Polygon([(0, 0), (60, 0), (0, 40)])
    ring = shapely.Point(0, 0).buffer(30) - shapely.Point(0, 0).buffer(27)
    speck = shapely.box(0, 0, 1, 1)
    bent, hollow, pixel = right_angled(np.array([triangle, ring, speck]))
    assert bent is None or iou(bent, triangle) >= 0.7
    assert hollow is None or iou(hollow, ring) >= 0.7
    assert pixel is None or pixel.equals_exact(speck, 1e-9)


@pytest.mark.parametrize("latitude", [0, 60])
def test_angles_are_right_on_the_ground_of_a_geographic_raster(pixel_grid, latitude):
    """Independent: a local projection of the same place."""
    size = 4e-6
    grid = pixel_grid(from_origin(10, latitude, size / np.cos(np.radians(latitude)), size), CRS.from_epsg(4326))
    truth, mask = building("L", 27, 0)
    found = finish_outlines(
        np.array([mask_outline(mask, 0, 0, grid)]), grid, PolygonOptions(right_angles=True, min_area=5.0)
    )
    local = pyproj.Transformer.from_crs(
        "EPSG:4326", f"+proj=aeqd +lat_0={latitude} +lon_0=10 +ellps=WGS84", always_xy=True
    )
    on_ground = shapely.transform(found.polygons[0], local.transform, interleaved=False)
    assert corner_angles(on_ground).max() < 0.1
    assert iou(grid.to_pixels(found.polygons)[0], truth) > 0.9


def test_steps_shorter_than_the_tolerance_are_straightened(pixel_grid):
    grid = pixel_grid()
    stepped = shapely.union(shapely.box(0, 0, 40, 20), shapely.box(0, 0, 20, 25))
    outlines = grid.to_map(np.array([stepped]))
    for tolerance, corners in ((0.0, 6), (2.0, 6), (4.0, 4)):  # the step is 5 pixels, or 2.5 m
        options = PolygonOptions(right_angles=True, simplify=tolerance)
        assert len(finish_outlines(outlines, grid, options).polygons[0].exterior.coords) == corners + 1
