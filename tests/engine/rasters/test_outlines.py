from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine, from_origin
from scipy.ndimage import label

from refsam_qgis.engine.job import PolygonOptions
from refsam_qgis.engine.rasters.outlines import finish_objects, finish_outlines, mask_outline

PLAIN = PolygonOptions()
SEEDS = range(4)


def largest_overlap(polygons):
    first, second = shapely.STRtree(polygons).query(polygons, "intersects")
    apart = first != second
    return shapely.area(shapely.intersection(polygons[first[apart]], polygons[second[apart]])).max(initial=0)


@pytest.mark.parametrize("tolerance", [0.4, 0.7, 1.0, 4.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_simplified_neighbours_have_neither_gaps_nor_overlaps(
    pixel_grid, noise_classes, pixel_objects, seed, tolerance
):
    grid = pixel_grid(Affine.translation(5e5, 2.79e6) @ Affine.rotation(25) @ Affine.scale(0.5, -0.5))
    classes = noise_classes(seed, blur=seed / 2) + 1  # no background: every border is shared
    table = pixel_objects(classes, grid, PLAIN, step=16)
    done = finish_objects(table, grid, PolygonOptions(simplify=tolerance))
    assert done.object_ids.tolist() == table.object_ids.tolist()
    assert (shapely.get_type_id(done.polygons) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(done.polygons).all()
    assert shapely.coverage_is_valid(done.polygons)
    whole = shapely.union_all(done.polygons)
    assert whole.area == pytest.approx(shapely.area(done.polygons).sum(), rel=1e-9)
    assert isinstance(whole, shapely.Polygon) and len(whole.interiors) == 0
    assert shapely.get_num_coordinates(done.polygons).sum() < shapely.get_num_coordinates(table.polygons).sum()


def test_simplification_stays_near_the_outline(pixel_grid, noise_classes, pixel_objects):
    grid = pixel_grid()
    table = pixel_objects(noise_classes(blur=3), grid, PLAIN)
    done = finish_objects(table, grid, PolygonOptions(simplify=0.5))
    assert shapely.hausdorff_distance(done.polygons, table.polygons).max() < 1.5


def test_holes_below_the_area_are_filled(pixel_grid, pixel_objects):
    classes = np.zeros((40, 40), np.uint8)
    classes[2:38, 2:38] = 1
    classes[5:7, 5:7] = 0  # 1 m²
    classes[10:14, 10:14] = 0  # 4 m²
    classes[20:23, 20:23] = 0  # 2.25 m² with an object of 0.25 m² in it
    classes[21, 21] = 2
    grid = pixel_grid()
    table = pixel_objects(classes, grid, PLAIN)

    def finished(**options):
        done = finish_objects(table, grid, PolygonOptions(**options))
        return len(done.polygons), shapely.get_num_interior_rings(done.polygons[0]), done.areas[0]

    full = 36 * 36 / 4
    cases = [
        ({"fill_holes": 0.5}, 2, 3, full - 7.25),
        ({"fill_holes": 2.0}, 2, 2, full - 6.25),
        ({"fill_holes": 3.0}, 2, 2, full - 6.25),  # an object lies in the one of 2.25 m²
        ({"fill_holes": 3.0, "min_area": 0.5}, 1, 1, full - 4),  # that object is too small to count
        ({"fill_holes": 5.0, "min_area": 0.5}, 1, 0, full),
    ]
    for options, count, holes, area in cases:
        assert finished(**options) == (count, holes, pytest.approx(area, rel=1e-3)), options


@pytest.mark.parametrize("seed", SEEDS)
def test_filled_holes_are_those_of_a_labelled_background(pixel_grid, noise_classes, pixel_objects, seed):
    """Independent: what the border cannot reach over edges of pixels is a hole."""
    mask = np.pad(noise_classes(seed) > 0, 1)
    grid = pixel_grid(crs=None, transform=from_origin(0, 0, 1, 1))
    table = pixel_objects(mask.astype(np.uint8), grid, PLAIN)
    done = finish_objects(table, grid, PolygonOptions(fill_holes=6.0))
    objects, count = label(mask)
    filled = mask.copy()
    for i in range(1, count + 1):
        rest, holes = label(objects != i)
        for hole in (rest == j for j in range(1, holes + 1)):
            if not hole[0, 0] and hole.sum() < 6 and not mask[hole].any():
                filled |= hole
    assert filled.sum() > mask.sum()
    back = rasterize(done.polygons, mask.shape, transform=grid.transform) > 0
    assert np.array_equal(back, filled)


@pytest.mark.parametrize("angle", [0, 20, 45])
def test_a_hole_with_an_object_that_touches_its_rim_stays(pixel_grid, pixel_objects, angle):
    grid = pixel_grid(Affine.translation(391200, 5820600) @ Affine.rotation(angle) @ Affine.scale(0.5, -0.5))
    classes = np.zeros((200, 200), np.uint8)
    for row in range(2, 190, 10):
        for column in range(2, 190, 10):
            classes[row : row + 6, column : column + 6] = 1
            classes[row + 2 : row + 4, column + 2 : column + 4] = 0
            classes[row + 2, column + 2 : column + 4] = 2
    done = finish_objects(pixel_objects(classes, grid, PLAIN), grid, PolygonOptions(fill_holes=2.0))
    assert np.bincount(done.class_ids).tolist() == [0, 361, 361]
    assert (shapely.get_num_interior_rings(done.polygons) == (done.class_ids == 1)).all()
    assert largest_overlap(done.polygons) < 1e-6


def test_min_area_counts_filled_holes_and_holds_at_the_end(pixel_grid, noise_classes, pixel_objects):
    classes = np.zeros((20, 20), np.uint8)
    classes[2:8, 2:8] = 1  # 9 m² with its hole of 4 m² filled
    classes[3:7, 3:7] = 0
    grid = pixel_grid()
    for fill, kept in ((0.0, 0), (5.0, 1)):
        options = PolygonOptions(min_area=8.0, fill_holes=fill)
        assert len(finish_objects(pixel_objects(classes, grid, options), grid, options).areas) == kept
    for right_angles in (False, True):
        options = PolygonOptions(min_area=3.0, simplify=1.0, right_angles=right_angles)
        done = finish_objects(pixel_objects(noise_classes(), grid, options), grid, options)
        assert len(done.areas) > 3 and done.areas.min() >= 3.0


@pytest.mark.parametrize("simplify", [0.0, 0.7])
@pytest.mark.parametrize("seed", SEEDS)
def test_right_angled_neighbours_do_not_overlap(pixel_grid, noise_classes, pixel_objects, seed, simplify):
    grid = pixel_grid()
    table = pixel_objects(noise_classes(seed, blur=2.0), grid, PLAIN)
    done = finish_objects(table, grid, PolygonOptions(right_angles=True, simplify=simplify))
    assert shapely.is_valid(done.polygons).all()
    assert (shapely.get_type_id(done.polygons) == shapely.GeometryType.POLYGON).all()
    assert largest_overlap(done.polygons) < 1e-6
    assert len(set(done.object_ids)) == len(done.object_ids)
    assert set(done.object_ids) <= set(table.object_ids)
    assert len(done.object_ids) >= 0.9 * len(table.object_ids)
    assert not shapely.equals(done.polygons, table.polygons[np.isin(table.object_ids, done.object_ids)]).all()


def test_a_right_angled_outline_does_not_swallow_a_small_neighbour(pixel_grid, pixel_objects):
    classes = np.zeros((50, 50), np.uint8)
    classes[5:45, 5:45] = 1
    classes[5:7, 20:26] = 2  # in a notch that is too shallow to be meant
    grid = pixel_grid()
    done = finish_objects(pixel_objects(classes, grid, PLAIN), grid, PolygonOptions(right_angles=True))
    assert done.class_ids.tolist() == [1, 2]
    assert done.areas == pytest.approx([397, 3], rel=0.2)
    assert largest_overlap(done.polygons) < 1e-6


def test_overlapping_outlines_are_finished_each_on_its_own(pixel_grid):
    grid = pixel_grid()
    rows, columns = np.mgrid[:60, :60]
    masks = [np.hypot(rows - 30, columns - c) < 18 for c in (22, 34)]
    masks.append((np.hypot(rows - 12, columns - 12) < 8) | (np.hypot(rows - 45, columns - 45) < 8))
    outlines = np.array([mask_outline(mask, 5, 7, grid) for mask in masks], dtype=object)
    assert shapely.get_num_geometries(outlines).tolist() == [1, 1, 2]
    options = PolygonOptions(simplify=0.5, fill_holes=3.0, min_area=1.0)
    together = finish_outlines(outlines, grid, options, overlapping=True)
    assert together.kept.tolist() == [0, 1, 2] and shapely.is_valid(together.polygons).all()
    for i, outline in enumerate(outlines):
        alone = finish_outlines(np.array([outline], dtype=object), grid, options, overlapping=True)
        assert alone.polygons[0].equals(together.polygons[i])
        union = shapely.union(alone.polygons[0], outline).area
        assert shapely.intersection(alone.polygons[0], outline).area / union > 0.95


def test_the_outline_of_a_mask_draws_back_to_it(pixel_grid, noise_classes):
    grid = pixel_grid()
    mask = noise_classes() == 1
    outline = mask_outline(mask, 3, 4, grid)
    assert outline.is_valid
    assert len(outline.geoms) == sum(1 for _ in shapes(mask.astype(np.uint8), mask, connectivity=4))
    back = rasterize([outline], mask.shape, transform=grid.transform @ Affine.translation(4, 3))
    assert np.array_equal(back > 0, mask)
    assert mask_outline(np.zeros((3, 3), bool), 0, 0, grid) is None


@pytest.mark.parametrize(
    "options", [PLAIN, PolygonOptions(fill_holes=5.0, simplify=1.0, right_angles=True, min_area=1.0)]
)
def test_nothing_to_finish(pixel_grid, options):
    grid = pixel_grid(crs=CRS.from_epsg(4326), transform=from_origin(10, 60, 1e-5, 1e-5))
    done = finish_outlines(np.array([], dtype=object), grid, options)
    assert len(done.polygons) == len(done.kept) == len(done.areas) == 0
