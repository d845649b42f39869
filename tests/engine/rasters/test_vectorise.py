from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine, from_origin
from scipy.ndimage import label

from refsam_qgis.engine.job import PolygonOptions
from refsam_qgis.engine.rasters.outlines import finish_objects
from refsam_qgis.engine.rasters.vectorise import Vectoriser

UTM = CRS.from_epsg(32640)
NORTH_UP = from_origin(500000, 2790000, 0.5, 0.5)


@pytest.fixture
def vectorise(pixel_grid, pixel_objects):
    def run(classes, step=None, crs=UTM, transform=NORTH_UP, scores=None, across=None, **options):
        grid = pixel_grid(transform, crs, classes.shape[1])
        return pixel_objects(classes, grid, PolygonOptions(**options), scores, step, across)

    return run


def blobs(seed=0, shape=(90, 70)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return np.digitize(noise, [0.0, 0.9]).astype(np.uint8)


@pytest.mark.parametrize(("step", "across"), [(1, None), (7, None), (32, 32), (40, 1), (1, 1), (13, 64)])
@pytest.mark.parametrize("blur", [0.0, 3.0], ids=["specks", "large"])
def test_pieces_do_not_change_the_objects(vectorise, noise_classes, step, across, blur):
    classes = noise_classes(blur=blur)
    scores = np.random.default_rng(1).uniform(0.25, 1, classes.shape).astype(np.float32)
    whole = vectorise(classes, scores=scores)
    pieces = vectorise(classes, step, scores=scores, across=across)
    for name in ("object_ids", "class_ids", "scores"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name))
    assert shapely.equals(whole.polygons, pieces.polygons).all()
    assert np.array_equal(shapely.get_num_coordinates(whole.polygons), shapely.get_num_coordinates(pieces.polygons))


def test_where_there_is_no_piece_there_is_no_object(pixel_grid):
    """Pieces on both sides of a gap, and of a missing row, hold objects of their own."""
    vectoriser = Vectoriser(pixel_grid(raster_width=30), 30, PolygonOptions())
    full = np.ones((5, 10), np.uint8), np.ones((5, 10), np.float32)
    for row, column in ((0, 0), (0, 20), (10, 20), (15, 0), (15, 10), (15, 20)):
        vectoriser.add(row, column, *full)
    table = vectoriser.finish()
    assert table.object_ids.tolist() == [1, 21, 321]
    assert (shapely.area(table.polygons) / 0.25).tolist() == [50, 50, 200]


def test_specks_leave_at_once(pixel_grid):
    """What is too small and touches no later piece is not held until the end of the row."""
    vectoriser = Vectoriser(pixel_grid(raster_width=200), 200, PolygonOptions(min_area=10.0))
    specks = np.zeros((20, 100), np.uint8)
    specks[1:-1:2, 1:-1:2] = 1
    vectoriser.add(0, 0, specks, specks.astype(np.float32))
    assert vectoriser.waiting == 0
    specks[:, -1] = 1
    vectoriser.add(20, 0, specks, specks.astype(np.float32))
    assert vectoriser.waiting == 1


def test_objects_are_those_of_rasterio_and_draw_back_to_the_raster(vectorise):
    classes = blobs()
    table = vectorise(classes, 16)
    expected = sum(1 for _ in shapes(classes, classes > 0, connectivity=4))
    assert len(table.polygons) == expected
    assert shapely.is_valid(table.polygons).all()
    back = rasterize(zip(table.polygons, table.class_ids, strict=True), classes.shape, transform=NORTH_UP)
    assert np.array_equal(back, classes)


def test_scores_are_means_over_the_pixels(vectorise):
    classes = blobs()
    scores = np.random.default_rng(1).random(classes.shape).astype(np.float32)
    table = vectorise(classes, 8, scores=scores)
    means = []
    for class_id in (1, 2):
        labels, count = label(classes == class_id)
        means += [scores[labels == i].mean() for i in range(1, count + 1)]
    assert np.allclose(np.sort(table.scores), np.sort(means), atol=1e-6)


def test_objects_are_ordered_from_top_to_bottom(vectorise):
    classes = np.zeros((40, 40), np.uint8)
    classes[2:38, 30:32] = 1  # starts first and ends last
    classes[10:12, 2:8] = 2
    classes[20:22, 2:8] = 1
    table = vectorise(classes, 5)
    assert table.class_ids.tolist() == [1, 2, 1]
    assert table.polygons[0].bounds[3] > table.polygons[1].bounds[3] > table.polygons[2].bounds[3]


@pytest.mark.parametrize(
    "transform",
    [NORTH_UP, Affine(0.5, 0, 5e5, 0, 0.5, 2.79e6), Affine.translation(5e5, 2.79e6) * Affine.rotation(25)],
    ids=["north-up", "south-up", "rotated"],
)
def test_projected_areas_equal_planar_ones(vectorise, transform):
    classes = blobs()
    table = vectorise(classes, 16, transform=transform)
    planar = shapely.area(table.polygons)
    assert planar.sum() == pytest.approx((classes > 0).sum() * abs(transform.determinant))
    assert np.allclose(table.areas, planar, rtol=1e-3)


def test_geographic_areas_equal_an_equal_area_projection(vectorise):
    transform = from_origin(10, 60, 0.01, 0.005)
    classes = np.zeros((60, 80), np.uint8)
    classes[5:55, 10:70] = 1
    classes[20:30, 20:40] = 0
    table = vectorise(classes, 16, crs=CRS.from_epsg(4326), transform=transform)
    to_equal_area = pyproj.Transformer.from_crs(4326, 6933, always_xy=True).transform
    expected = shapely.transform(shapely.segmentize(table.polygons[0], 0.001), to_equal_area, interleaved=False).area
    assert table.areas == pytest.approx([expected], rel=1e-4)


def test_areas_without_crs_are_planar(vectorise):
    classes = np.zeros((10, 10), np.uint8)
    classes[2:4, 2:7] = 1
    assert vectorise(classes, crs=None, transform=from_origin(0, 0, 3, 3)).areas.tolist() == [90.0]


def test_small_objects_are_left_out(vectorise):
    classes = np.zeros((20, 20), np.uint8)
    classes[1, 1] = classes[5:9, 5:9] = 1
    assert len(vectorise(classes, 3, min_area=1.0).polygons) == 1
    assert len(vectorise(classes, 3, min_area=0.2).polygons) == 2


def test_an_object_of_exactly_the_smallest_area_is_kept(vectorise):
    classes = np.zeros((20, 20), np.uint8)
    classes[1, 1:4] = classes[5:7, 5:7] = classes[9:14, 9] = 1  # 3, 4 and 5 pixels
    table = vectorise(classes, 3, crs=None, transform=from_origin(0, 0, 0.5, 0.5), min_area=1.0)
    assert table.areas.tolist() == [1.0, 1.25]


def test_ids_are_the_first_pixels_in_the_whole_raster(pixel_grid, pixel_objects):
    classes, width = blobs(), 70
    table = pixel_objects(classes, pixel_grid(raster_width=width), PolygonOptions(), step=9)
    firsts = []
    for class_id in (1, 2):
        labels, _ = label(classes == class_id)
        firsts += np.unique(labels, return_index=True)[1][1:].tolist()
    assert table.object_ids.tolist() == [1 + first for first in sorted(firsts)]


@pytest.mark.parametrize("step", [None, 13])
@pytest.mark.parametrize("options", [PolygonOptions(), PolygonOptions(min_area=1.0, simplify=0.6, fill_holes=0.6)])
def test_ids_do_not_depend_on_the_extent(pixel_grid, pixel_objects, options, step):
    classes, top, left = blobs(), 20, 15
    part = classes[top:80, left:60]
    whole_grid, part_grid = pixel_grid(raster_width=70), pixel_grid(raster_width=70, origin=(top, left))
    whole = finish_objects(pixel_objects(classes, whole_grid, options), whole_grid, options)
    found = finish_objects(pixel_objects(part, part_grid, options, step=step), part_grid, options)
    # Objects that do not touch the edge of the part are whole in it.
    edge = whole_grid.to_map(np.array([shapely.box(left, top, 60, 80)]))[0]
    inside = np.array([edge.contains_properly(polygon) for polygon in found.polygons])
    place = {object_id: i for i, object_id in enumerate(whole.object_ids)}
    same = [place[object_id] for object_id in found.object_ids[inside] if object_id in place]
    assert len(same) == inside.sum() > 20
    assert np.array_equal(whole.class_ids[same], found.class_ids[inside])
    assert np.allclose(whole.areas[same], found.areas[inside], rtol=1e-6 if options.simplify == 0 else 0.5)
    assert len(set(whole.object_ids)) == len(whole.object_ids)


def test_wide_rasters_have_ids_beyond_32_bits(pixel_grid, pixel_objects):
    classes = np.ones((2, 2), np.uint8)
    grid = pixel_grid(raster_width=200_000, origin=(150_000, 7), crs=None)
    assert pixel_objects(classes, grid, PolygonOptions()).object_ids.tolist() == [1 + 150_000 * 200_000 + 7]


def test_nothing_found(vectorise):
    table = vectorise(np.zeros((20, 20), np.uint8), 8)
    assert len(table.polygons) == len(table.areas) == 0
