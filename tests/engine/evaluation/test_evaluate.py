"""A result against the truth, whole runs."""

import csv
import json
import os
import sys
import zipfile

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.shutil
import shapely
from PIL import Image
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from refsam_qgis import __version__
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.evaluation import evaluate
from refsam_qgis.engine.evaluation.evaluate import run_evaluate
from refsam_qgis.engine.evaluation.layers import Grid
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import EvaluateJob
from tests.engine.stand_ins import HALF_METRE, UTM, Recorder

NAMES = ("road", "Building ")


def patches(seed, shape=(60, 70)):
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 3, (10, 12)), np.ones((7, 7), int))[: shape[0], : shape[1]]
    return labels.astype(np.uint8)


def corners(*pixels):
    """Rectangle of map coordinates from left, top, right, bottom in pixels of `HALF_METRE`."""
    left, top, right, bottom = pixels
    (x0, y0), (x1, y1) = HALF_METRE * (left, top), HALF_METRE * (right, bottom)
    return shapely.box(x0, y1, x1, y0)


def compare(reporter=None, **fields):
    return run_evaluate(EvaluateJob(**fields), reporter or SilentReporter())


def without_clock(record):
    return {key: value for key, value in record.items() if key not in ("seconds", "outputs")}


def test_pixel_figures_equal_scikit_learn(write_raster):
    found, true = patches(0), patches(1)
    true[:5, :9] = 99
    found[20:22] = 255
    record = compare(
        result=write_raster(found[None], "result.tif", nodata=255), truth=write_raster(true[None], "t.tif", nodata=99),
        result_classes=NAMES, truth_classes=("ROAD", "building"),
    )  # fmt: skip
    counted = (true != 99) & (found != 255)
    y = true[counted], found[counted]
    assert record["confusion"]["matrix"] == confusion_matrix(*y).tolist()
    assert record["confusion"]["names"] == ["background", "ROAD", "building"]
    for i, row in enumerate(record["classes"], 1):
        for key, function in (("iou", jaccard_score), ("f1", f1_score), ("precision", precision_score),
                              ("recall", recall_score)):  # fmt: skip
            assert row[key] == pytest.approx(function(*y, labels=[i], average="micro"), abs=1e-4)
    assert record["miou"] == pytest.approx(jaccard_score(*y, labels=[1, 2], average="macro"), abs=1e-4)
    assert record["fb_iou"] == pytest.approx(jaccard_score(y[0] > 0, y[1] > 0, average="macro"), abs=1e-4)
    assert record["accuracy"] == pytest.approx((y[0] == y[1]).mean(), abs=1e-4)
    assert record["grid"]["pixels_compared"] == counted.sum()
    assert record["aligned"] is None


def test_bands_beside_the_classes_do_not_say_where_they_have_data(write_raster):
    found, true = patches(0), patches(1)
    true[:20] = 9
    truth = write_raster(np.stack([true, np.ones_like(true)]), "truth.tif", nodata=9)
    record = compare(result=write_raster(found[None], "result.tif"), truth=truth)
    assert record["grid"]["pixels_compared"] == 40 * 70


@pytest.mark.parametrize("bands", [3, 4])
def test_a_picture_of_classes_in_colours_is_told_of(write_raster, bands):
    """Pools are drawn red in the truth and roofs green: the only class found is taken for the red one."""
    true, found = np.zeros((bands, 60, 70), np.uint8), np.zeros((1, 60, 70), np.uint8)
    true[0, :20], true[1, 30:] = 255, 255
    true[3:] = 255
    found[0, 30:] = 1
    result = write_raster(found, "result.tif")
    recorder = Recorder()
    truth = write_raster(true, "truth.tif", photometric="rgb")
    assert compare(recorder, result=result, truth=truth)["miou"] == 0
    (told,) = [message for message in recorder.messages if "picture" in message]
    assert "truth.tif' is a picture" in told and "the red one alone is read" in told and "export the raw data" in told
    plain = Recorder()
    compare(plain, result=result, truth=write_raster(true, "plain.tif", photometric="minisblack"))
    assert not [message for message in plain.messages if "picture" in message]


def test_blocks_change_nothing(write_raster, monkeypatch):
    result, truth = write_raster(patches(0)[None], "result.tif"), write_raster(patches(1)[None], "truth.tif")
    whole = compare(result=result, truth=truth, tolerance=3)
    monkeypatch.setattr(evaluate, "BLOCK_PIXELS", 7 * 70)
    recorder = Recorder()
    assert without_clock(compare(recorder, result=result, truth=truth, tolerance=3)) == without_clock(whole)
    fractions = [event[0] for event in recorder.events]
    assert len(fractions) > 9 and fractions == sorted(fractions) and fractions[-1] == 1


def test_polygons_equal_the_raster_they_outline(write_raster, write_vector):
    true = np.zeros((40, 50), np.uint8)
    true[4:14, 5:25], true[20:30, 30:44] = 1, 2
    found = np.roll(true, 1, axis=1)
    shapes = [corners(6, 4, 26, 14), corners(31, 20, 45, 30)]
    truth = write_raster(true[None], "truth.tif")
    result = write_vector(shapes, "result.gpkg", kind=["a", "b"])
    names = ("a", "b")
    by_polygons = compare(result=result, truth=truth, result_field="kind", truth_classes=names)
    by_raster = compare(
        result=write_raster(found[None], "r.tif"), truth=truth, result_classes=names, truth_classes=names
    )
    assert without_clock(by_polygons) == without_clock(by_raster)
    assert by_polygons["object_f1"] == 1
    assert by_polygons["classes"][0]["iou"] == pytest.approx(190 / 210, abs=1e-4)


def test_images_without_georeference_meet_what_is_drawn_on_them(tmp_path, write_raster, write_vector):
    true = np.zeros((40, 50), np.uint8)
    true[4:14, 5:25] = 1
    truth = tmp_path / "truth.png"
    Image.fromarray(true).save(truth)
    part = write_raster(true[None, :20, :30], "part.tif", crs=None, transform=Affine(1, 0, 0, 0, -1, 0))
    drawn = write_vector([shapely.box(5, -14, 25, -4)], "drawn.gpkg", crs=None)
    for result in (part, drawn):
        assert compare(result=result, truth=str(truth))["miou"] == 1


def test_two_vector_files_meet_on_a_grid_of_their_own(write_vector):
    truth = [corners(0, 0, 20, 20), corners(20, 0, 40, 20), corners(50, 0, 70, 20)]
    result = write_vector([corners(0, 0, 20, 20), corners(20, 0, 40, 15)], "result.gpkg")
    record = compare(result=result, truth=write_vector(truth, "truth.gpkg"))
    assert record["grid"]["gsd"] == pytest.approx(0.5, rel=0.01)  # a twentieth of an object's side
    assert record["miou"] == pytest.approx((400 + 300) / 1200, abs=0.01)
    row = record["classes"][0]
    assert (row["truth_objects"], row["result_objects"], row["matched_objects"]) == (3, 2, 2)
    assert row["object_iou"] == pytest.approx((1 + 0.75) / 2, abs=0.01)
    coarse = compare(result=result, truth=write_vector(truth, "again.gpkg"), gsd=2.5)
    assert coarse["grid"]["width"] <= 15
    with pytest.raises(RefSAMError, match="pixels along the longer side"):
        compare(result=result, truth=write_vector(truth, "more.gpkg"), gsd=1e-5)


def object_counts(record):
    return [tuple(row[f"{side}_objects"] for side in ("truth", "result", "matched")) for row in record["classes"]]


def test_objects_of_two_vector_files_smaller_than_a_pixel_are_told_apart(write_vector):
    rng = np.random.default_rng(0)
    # Pools of 3 to 8 m in a district of 60 km, found a fifth of their side beside where they are.
    left, bottom, side = *(HALF_METRE * rng.uniform(0, 120_000, (2, 300))), rng.uniform(3, 8, 300)
    pools = [shapely.box(left + shift * side, bottom, left + (1 + shift) * side, bottom + side) for shift in (0, 0.2)]
    truth, result = (write_vector(shapes, f"{name}.gpkg") for shapes, name in zip(pools, "tr", strict=True))
    recorder = Recorder()
    record = compare(recorder, result=result, truth=truth)
    assert record["grid"]["gsd"] > 7
    assert object_counts(record) == [(300, 300, 300)]
    assert record["object_iou"] == pytest.approx(0.8 / 1.2, abs=1e-4)
    (said,) = (message for message in recorder.messages if "GSD" in message)
    assert f"{np.median(side**2) / record['grid']['gsd'] ** 2:.2g} pixels" in said
    advised = float(said.rstrip(".").split()[-1])
    assert advised == pytest.approx(np.sqrt(np.median(side**2) / 20), rel=0.05)
    near = dict(result=result, truth=truth, gsd=2 * record["grid"]["gsd"])
    assert compare(recorder, **near)["object_f1"] == 1 and len([m for m in recorder.messages if "GSD" in m]) == 1


def test_a_pixel_size_that_is_advised_is_allowed(write_vector):
    far = write_vector([corners(0, 0, 1, 1), corners(400_000, 0, 400_001, 1)], "far.gpkg")
    recorder = Recorder()
    record = compare(recorder, result=far, truth=far)
    (said,) = (message for message in recorder.messages if "GSD" in message)
    advised = float(said.rstrip(".").split()[-1])
    assert 0 < 200_000 / advised < evaluate.LARGEST_SIDE
    assert advised < record["grid"]["gsd"]


def test_objects_of_two_vector_files_count_in_the_extent_and_outside_unnamed_areas(write_vector):
    true = [corners(0, 0, 20, 20), corners(30, 0, 50, 20), corners(100, 0, 120, 20), corners(200, 0, 220, 20)]
    found = [corners(0, 0, 20, 20), corners(30, 10, 50, 20), corners(102, 2, 110, 10)]
    record = compare(
        truth=write_vector(true, "truth.gpkg", kind=["a", "a", None, "a"]), truth_field="kind",
        result=write_vector(found, "result.gpkg", kind=["a", "a", "a"]), result_field="kind",
        extent=corners(10, -5, 150, 30).bounds,
    )  # fmt: skip
    assert object_counts(record) == [(2, 2, 2)]
    assert record["object_iou"] == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("block", [2**20, 70])
def test_polygons_that_no_pixel_shows_are_missed_or_wrong(write_raster, write_vector, monkeypatch, block):
    monkeypatch.setattr(evaluate, "BLOCK_PIXELS", block)
    pixels = np.zeros((60, 70), np.uint8)
    pixels[20:50, 20:50] = 1
    pixels[:10] = 9
    raster = write_raster(pixels[None], "raster.tif", nodata=9)
    tiny = [corners(column + 0.1, row + 0.1, column + 0.3, row + 0.3) for row in (5, 15, 25, 35) for column in (2, 30)]
    outside = corners(-9.5, 30, -9.3, 30.2)
    polygons = write_vector([*tiny, outside, corners(20, 20, 50, 50)], "polygons.gpkg")
    recorder = Recorder()
    record = compare(recorder, result=raster, truth=polygons)
    # Two of the eight lie where the raster has no data.
    assert object_counts(record) == [(7, 1, 1)]
    assert (record["object_recall"], record["object_precision"]) == (pytest.approx(1 / 7, abs=1e-4), 1)
    assert any("polygons.gpkg', 6 hold no pixel's centre" in m and "missed" in m for m in recorder.messages)
    turned = compare(recorder, result=polygons, truth=raster)
    assert object_counts(turned) == [(1, 7, 1)]
    assert any("6 hold no pixel's centre" in message and "wrong" in message for message in recorder.messages)
    part = compare(result=raster, truth=polygons, extent=corners(0, 20, 70, 30).bounds)
    assert object_counts(part) == [(3, 1, 1)]


def test_vectors_in_degrees_are_compared_in_metres(write_vector):
    square = shapely.box(8.0, 47.0, 8.001, 47.001)
    path = write_vector([square], "truth.gpkg", crs="EPSG:4326")
    record = compare(result=write_vector([square], "r.gpkg", crs="EPSG:4326"), truth=path, gsd=5.0)
    assert record["grid"]["gsd"] == pytest.approx(5.0, rel=0.01)
    assert record["miou"] == 1


@pytest.mark.parametrize("column", [5, 25, 40])
@pytest.mark.parametrize("drawn", [False, True])
def test_either_side_of_the_antimeridian_is_compared(write_raster, write_vector, column, drawn):
    """The meridian of 180° is that of column 32."""
    transform = Affine(5e-6, 0, 180 - 32 * 5e-6, 0, -5e-6, -17)
    true = np.zeros((40, 60), np.uint8)
    true[10:30, column : column + 15] = 1
    square = shapely.transform(
        shapely.box(column, 10, column + 15, 30), lambda x, y: transform * (x, y), interleaved=False
    )
    result = write_vector(list(gpd.GeoSeries([square], crs=4326).to_crs(32760)), "result.gpkg", crs="EPSG:32760")
    if drawn:
        truth = write_vector([square], "truth.gpkg", crs="EPSG:4326")
    else:
        truth = write_raster(true[None], "truth.tif", crs="EPSG:4326", transform=transform)
    assert compare(result=result, truth=truth)["miou"] == pytest.approx(1, abs=0.001 if drawn else 0)


@pytest.mark.parametrize("crs", ["EPSG:32640", "EPSG:4326"])
def test_a_truth_on_another_grid_is_aligned_and_said_so(write_raster, crs):
    found = np.zeros((80, 80), np.uint8)
    found[20:60, 20:60] = 1
    result = write_raster(found[None], "result.tif")
    with rasterio.open(result) as dataset:
        bounds = rasterio.warp.transform_bounds(dataset.crs, crs, *dataset.bounds)
        box = rasterio.warp.transform_bounds(dataset.crs, crs, *corners(20, 20, 60, 60).bounds)
    # Finer, with an origin of its own, and open at the left: what it does not cover does not count.
    transform = from_origin(bounds[0] + (bounds[2] - bounds[0]) / 10, bounds[3], *((bounds[2] - bounds[0]) / 203,) * 2)
    height = int((bounds[3] - bounds[1]) / transform.a) + 4
    truth = rasterio.features.rasterize([(shapely.box(*box), 1)], (height, 190), transform=transform, dtype="uint8")
    recorder = Recorder()
    record = compare(recorder, result=result, truth=write_raster(truth[None], "t.tif", crs=crs, transform=transform))
    assert record["miou"] > 0.93
    assert record["grid"]["pixels_compared"] < 0.95 * 80 * 80
    assert "aligned" in record["aligned"] and record["aligned"] in recorder.messages


def test_a_shift_by_whole_pixels_is_no_alignment(write_raster):
    labels = patches(3)
    moved = HALF_METRE * Affine.translation(10, 5)
    record = compare(
        result=write_raster(labels[None], "result.tif"),
        truth=write_raster(labels[5:, 10:][None], "truth.tif", transform=moved),
    )
    assert record["aligned"] is None and record["miou"] == 1
    assert record["grid"]["pixels_compared"] == 55 * 60


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("beside", [[], [0], [255], [0, 0], [0, 0, 255]])
def test_neither_bands_beside_nor_the_data_type_change_what_a_shifted_truth_covers(write_raster, beside, dtype):
    labels = patches(3)
    quarter = labels[:30, :35].astype(dtype)
    truth = write_raster(
        np.stack([quarter, *(np.full_like(quarter, value) for value in beside)]), "truth.tif",
        transform=HALF_METRE * Affine.translation(0.4, 0), photometric="MINISBLACK",
    )  # fmt: skip
    record = compare(result=write_raster(labels[None], "result.tif"), truth=truth, truth_classes=("1", "2"))
    assert record["aligned"] and record["grid"]["pixels_compared"] == 30 * 35
    y = labels[:30, :35].ravel()
    assert record["confusion"]["matrix"] == confusion_matrix(y, y, labels=[0, 1, 2]).tolist()


def test_a_shifted_truth_counts_where_its_alpha_band_or_mask_says(write_raster):
    labels = patches(3)
    result = write_raster(labels[None], "result.tif")
    shifted = HALF_METRE * Affine.translation(0.4, 0)
    opaque = np.zeros_like(labels)
    opaque[10:40] = 255
    with_alpha = write_raster(np.stack([labels] * 3 + [opaque]), "r,g,b & 'a'.tif", photometric="RGB", alpha="YES",
                              transform=shifted)  # fmt: skip
    with_mask = write_raster(labels[None], "mask.tif", mask=opaque, transform=shifted)
    for truth in (with_alpha, with_mask):
        record = compare(result=result, truth=truth, truth_classes=("1", "2"))
        assert (record["miou"], record["grid"]["pixels_compared"]) == (1, 30 * 70)


@pytest.mark.parametrize("shift", [0, 0.4])
def test_background_that_a_raster_declares_no_data_counts(write_raster, shift):
    true, found = np.zeros((2, 40, 40), np.uint8)
    true[10:20, 10:20], found[10:20, 10:30] = 1, 1
    result = write_raster(found[None], "result.tif")
    # Its columns are fewer: what it does not cover does not count.
    transform = HALF_METRE * Affine.translation(shift, 0)
    recorder = Recorder()
    record = compare(
        recorder, result=result,
        truth=write_raster(true[None, :, :35], "truth.tif", nodata=0, transform=transform),
    )  # fmt: skip
    assert record["confusion"]["matrix"] == [[40 * 35 - 200, 100], [0, 100]]
    assert record["miou"] == 0.5
    (said,) = (message for message in recorder.messages if "declares 0 to be no data" in message)
    assert "truth.tif" in said


def test_a_result_of_background_alone_missed_everything(write_raster):
    true, found = np.zeros((2, 20, 20), np.uint8)
    true[:10] = 1
    record = compare(
        result=write_raster(found[None], "result.tif", nodata=0), truth=write_raster(true[None], "truth.tif", nodata=0)
    )
    assert record["miou"] == 0 and record["grid"]["pixels_compared"] == 400


def test_rasters_without_any_crs(write_raster):
    labels = patches(3)
    result = write_raster(labels[None], "result.tif", crs=None)
    truth = write_raster(np.kron(labels, np.ones((2, 2), np.uint8))[None], "truth.tif", crs=None,
                         transform=HALF_METRE * Affine.scale(0.5))  # fmt: skip
    record = compare(result=result, truth=truth)
    assert record["aligned"] and record["miou"] == 1


def test_an_extent_in_the_crs_of_the_truth(write_raster, write_vector):
    labels = np.zeros((40, 40), np.uint8)
    labels[10:20, 10:20] = 1
    labels[30:35, 30:35] = 1
    result = write_raster(labels[None], "result.tif")
    truth = write_vector([corners(10, 10, 20, 20)], "truth.gpkg")
    assert compare(result=result, truth=truth)["miou"] == pytest.approx(0.8)
    record = compare(result=result, truth=truth, extent=corners(5, 5, 25, 25).bounds)
    assert record["miou"] == 1 and record["grid"]["pixels_compared"] == 400
    with pytest.raises(RefSAMError, match=r"holds no pixel of .*; choose an extent that overlaps both"):
        compare(result=result, truth=truth, extent=(0, 0, 1, 1))
    square = gpd.GeoSeries([corners(10, 10, 20, 20)], crs=UTM).to_crs(4326)
    degrees = write_vector(list(square), "degrees.gpkg", crs="EPSG:4326")
    with pytest.raises(RefSAMError, match=r"extent cannot be transformed into EPSG:32640; choose one that overlaps"):
        compare(result=result, truth=degrees, extent=(-1e9, -1e9, 1e9, 1e9))


@pytest.mark.parametrize("crs", ["EPSG:32638", "EPSG:3035"])
def test_an_extent_in_another_crs_than_the_pixels_compares_no_more_than_it_holds(write_raster, write_vector, crs):
    """Around the extent, in the CRS of the result, lies a rectangle that is larger by the angle between the two."""
    result = write_raster(np.ones((1, 70, 80), np.uint8), "result.tif")
    truth = write_vector(list(gpd.GeoSeries([corners(10, 10, 70, 60)], crs=UTM).to_crs(crs)), "truth.gpkg", crs=crs)
    rows, columns = np.mgrid[:70, :80] + 0.5
    x, y = pyproj.Transformer.from_crs(UTM, crs, always_xy=True).transform(*(HALF_METRE * (columns, rows)))
    west, south, east, north = extent = np.quantile([x, y], (0.3, 0.7), axis=(1, 2)).ravel().tolist()
    inside = (x >= west) & (x <= east) & (y >= south) & (y <= north)
    assert 100 < inside.sum() < 0.95 * np.ptp(np.nonzero(inside), axis=1).prod()
    assert compare(result=result, truth=truth, extent=extent)["grid"]["pixels_compared"] == inside.sum()


def test_an_extent_in_degrees_crosses_the_antimeridian(write_raster, write_vector):
    """PROJ gives longitudes of -180 to 180 degrees, wherever the extent reaches."""
    truth = write_vector([shapely.box(179.9999, -17.0002, 180.0001, -17)], "truth.gpkg", crs="EPSG:4326")
    x, y = pyproj.Transformer.from_crs(4326, 32760, always_xy=True).transform(180, -17)
    result = write_raster(
        np.ones((1, 60, 70), np.uint8), "r.tif", crs="EPSG:32760", transform=from_origin(x - 17, y + 15, 0.5, 0.5)
    )
    record = compare(result=result, truth=truth, extent=(179.9999, -17.0001, 180.0001, -16.9999))
    assert record["grid"]["pixels_compared"] == pytest.approx(4 * 21.3 * 22.1, rel=0.05)


def test_class_names_come_from_masks_descriptions_and_ids(write_raster, write_vector):
    labels = np.zeros((20, 20), np.uint8)
    labels[:10] = 1
    ours = write_raster(labels[None], "ours.tif")
    with rasterio.open(ours, "r+") as dataset:
        dataset.update_tags(1, CLASS_1="roof", CLASS_2="pool")
    described = write_raster(labels[None], "described.tif")
    with rasterio.open(described, "r+") as dataset:
        dataset.set_band_description(1, "roof")
    by_id = write_vector([corners(0, 0, 20, 10)], "ids.gpkg", code=[1])
    assert compare(result=described, truth=ours)["confusion"]["names"] == ["background", "roof", "pool"]
    bare = write_raster(labels[None], "bare.tif")
    assert compare(result=by_id, truth=bare, result_field="code")["confusion"]["names"] == ["background", "1"]
    assert compare(result=by_id, truth=described)["confusion"]["names"] == ["background", "roof"]


def test_a_description_names_the_class_only_where_there_is_one(write_raster):
    labels = patches(3)
    several = write_raster(labels[None], "several.tif")
    lone = [write_raster((labels == 1).astype(np.uint8)[None], f"{name}.tif") for name in ("roof", "pool")]
    for path, name in zip((several, *lone), ("sealed", "roof", "pool"), strict=True):
        with rasterio.open(path, "r+") as dataset:
            dataset.set_band_description(1, name)
    assert compare(result=several, truth=several)["confusion"]["names"] == ["background", "1", "2"]
    with pytest.raises(RefSAMError, match=r"No class of the result \(roof\) is one of the truth \(pool\)"):
        compare(result=lone[0], truth=lone[1])


def test_ids_may_leave_gaps_and_pixels_without_a_number_do_not_count(write_raster):
    labels = patches(3)
    ids = np.array([0, 5, 200], np.float32)[labels]
    ids[:10] = np.nan
    truth = write_raster(np.array([0, 1, 2], np.uint8)[labels][None], "truth.tif")
    found = write_raster(ids[None], "result.tif")
    same = compare(result=found, truth=found)
    assert same["confusion"]["names"] == ["background", "5", "200"] and same["miou"] == 1
    assert same["grid"]["pixels_compared"] == 50 * 70
    record = compare(result=found, truth=truth, truth_classes=("5", "200"))
    counts = np.bincount(labels[10:].ravel(), minlength=3)
    assert record["confusion"]["matrix"] == np.diag(counts).tolist()


def test_pixels_of_another_crs_are_other_pixels():
    grid = Grid(CRS.from_epsg(32640), HALF_METRE, 20, 30)
    assert grid.shares_pixels(Grid(CRS.from_epsg(32640), HALF_METRE * Affine.translation(5, -7), 9, 9))
    assert not grid.shares_pixels(Grid(CRS.from_epsg(32641), HALF_METRE, 20, 30))
    assert not grid.shares_pixels(Grid(None, HALF_METRE, 20, 30))


def square(value, name=None):
    """How `one_class` writes a raster of one id, with a class name if there is one."""
    return "raster", value, name


def outline(name=None):
    return "polygons", None, name


@pytest.fixture
def one_class(write_raster, write_vector):
    """Return a function that writes a layer of one class and returns its path and field."""

    def write(path, kind, value, name):
        if kind == "polygons":
            fields = {} if name is None else {"kind": [name]}
            return write_vector([corners(0, 0, 20, 10)], f"{path}.gpkg", **fields), next(iter(fields), None)
        pixels = np.zeros((1, 20, 20), np.uint8)
        pixels[:, :10] = value
        written = write_raster(pixels, f"{path}.tif")
        if name is not None:
            with rasterio.open(written, "r+") as dataset:
                dataset.update_tags(1, **{f"CLASS_{value}": name})
        return written, None

    return write


@pytest.mark.parametrize(
    ("result", "truth", "name"),
    [
        (square(1), square(255), "255"),  # 0/1 and 0/255 masks
        (square(255), square(1), "1"),
        (square(255, "roof"), square(1), "roof"),
        (square(1, "roof"), square(255), "roof"),
        (square(1, "roof"), square(1), "roof"),  # RefSAM's own mask and a plain one
        (square(2), square(2, "roof"), "roof"),
        (square(2), outline(), "object"),
        (outline(), square(2), "2"),
        (outline(), square(2, "roof"), "roof"),
        (square(255), outline("roof"), "roof"),
        (outline("roof"), outline(), "roof"),
        (square(255), outline("1"), "1"),
    ],
)
def test_a_lone_class_without_a_name_is_the_other_lone_class_and_said_so(one_class, result, truth, name):
    (found, found_field), (true, true_field) = one_class("result", *result), one_class("truth", *truth)
    recorder = Recorder()
    record = compare(recorder, result=found, truth=true, result_field=found_field, truth_field=true_field)
    assert (record["miou"], record["confusion"]["names"]) == (1, ["background", name])
    (said,) = (message for message in recorder.messages if "is taken for the only one" in message)
    assert f"'{name}'" in said


@pytest.mark.parametrize(
    ("result", "truth", "names"),
    [
        (square(1), square(2), ("1", "2")),
        (square(2, "roof"), square(1), ("roof", "1")),
        (square(1, "roof"), square(1, "pool"), ("roof", "pool")),
        (square(2), outline("1"), ("2", "1")),
        (outline("roof"), outline("pool"), ("roof", "pool")),
    ],
)
def test_lone_classes_that_differ_are_not_taken_for_one(one_class, result, truth, names):
    (found, found_field), (true, true_field) = one_class("result", *result), one_class("truth", *truth)
    with pytest.raises(RefSAMError, match=r"No class of the result \({}\) is one of the truth \({}\)".format(*names)):
        compare(result=found, truth=true, result_field=found_field, truth_field=true_field)


def test_a_plain_mask_of_one_class_is_the_same_number_among_several(write_raster):
    found = patches(3)
    true = (found == 1).astype(np.uint8)
    record = compare(result=write_raster(found[None], "result.tif"), truth=write_raster(true[None], "truth.tif"))
    assert [(row["class"], row["iou"]) for row in record["classes"]] == [("1", 1), ("2", 0)]
    assert record["unmatched"] == {"truth": [], "result": ["2"]}


def test_an_engineering_crs_is_none_on_either_side(write_raster, write_vector):
    site = 'LOCAL_CS["site",UNIT["metre",1]]'
    pixels = np.zeros((1, 20, 20), np.uint8)
    pixels[:, :10] = 1
    raster, polygons = (
        write_raster(pixels, "o.tif", crs=site),
        write_vector([corners(0, 0, 20, 10)], "o.gpkg", crs=None),
    )
    assert compare(result=raster, truth=polygons)["miou"] == 1
    assert compare(result=polygons, truth=raster)["miou"] == 1
    shifted = write_raster(pixels, "shifted.tif", crs=None, transform=HALF_METRE * Affine.translation(0.4, 0))
    assert compare(result=raster, truth=shifted)["miou"] == 1


def test_classes_of_one_side_alone_count_as_missed_or_wrong(write_raster):
    true, found = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    true[:5], true[10:] = 1, 2
    found[:5], found[6:8] = 1, 2
    recorder = Recorder()
    record = compare(
        recorder, result=write_raster(found[None], "r.tif"), truth=write_raster(true[None], "t.tif"),
        result_classes=("road", "pool"), truth_classes=("road", "tree"),
    )  # fmt: skip
    assert [(row["class"], row["iou"]) for row in record["classes"]] == [("road", 1), ("tree", 0), ("pool", 0)]
    assert record["unmatched"] == {"truth": ["tree"], "result": ["pool"]}
    assert any("tree" in message and "missed" in message for message in recorder.messages)


@pytest.mark.parametrize("of_both", [254, 255, 300])
def test_both_sides_together_have_no_more_classes_than_are_told_apart(write_raster, of_both):
    """255 would be the number of what does not count, and more would fit into no byte."""
    true = np.arange(1, 201, dtype=np.uint16).reshape(1, 20, 10)
    paths = {"truth": write_raster(true, "t.tif"), "result": write_raster(true + (of_both - 200), "r.tif")}
    if of_both <= 254:
        record = compare(**paths)
        assert len(record["classes"]) == 254 and record["grid"]["pixels_compared"] == 200
    else:
        with pytest.raises(RefSAMError, match=f"{of_both} different classes together.* numbers of obj") as raised:
            compare(**paths)
        assert raised.value.code == "input"


def test_outputs_hold_the_same_figures(write_raster, tmp_path):
    paths = {name: str(tmp_path / f"out.{suffix}") for name, suffix in
             (("table", "csv"), ("report", "json"), ("picture", "png"))}  # fmt: skip
    record = compare(
        result=write_raster(patches(0)[None], "r.tif"), truth=write_raster(patches(1)[None], "t.tif"), **paths
    )
    assert record["outputs"] == paths
    with open(paths["table"], encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["1", "2", "all"]
    assert float(rows[-1]["iou"]) == record["miou"]
    assert int(rows[-1]["truth_objects"]) == sum(row["truth_objects"] for row in record["classes"])
    with open(paths["report"], encoding="utf-8") as stream:
        report = json.load(stream)
    assert report["result"]["confusion"] == record["confusion"] and report["refsam"] == __version__
    assert Image.open(paths["picture"]).width >= 720


def test_an_empty_result_missed_everything(write_vector, write_raster):
    labels = np.zeros((20, 20), np.uint8)
    labels[:10] = 1
    record = compare(result=write_vector([], "none.gpkg"), truth=write_raster(labels[None], "truth.tif"))
    assert record["miou"] == 0 and record["object_recall"] == 0


@pytest.mark.parametrize("form", ["zip", "gpkg"])
def test_rasters_inside_other_files_are_compared(write_raster, tmp_path, form):
    """QGIS names them so when they are dragged out of its browser."""
    plain = write_raster(patches(0)[None], "plain.tif")
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "rasters.zip", "w") as file:
            file.write(plain, "inner.tif")
        inside = f"/vsizip/{tmp_path}/rasters.zip/inner.tif"
    else:
        rasterio.shutil.copy(plain, tmp_path / "r.gpkg", driver="GPKG", RASTER_TABLE="INNER", TILE_FORMAT="PNG")
        inside = f"GPKG:{tmp_path}/r.gpkg:INNER"
    assert compare(result=inside, truth=plain)["miou"] == 1
    assert compare(result=plain, truth=inside)["miou"] == 1


def test_what_cannot_be_compared_is_said_in_a_sentence(write_raster, write_vector, tmp_path):
    labels = patches(0)
    raster = write_raster(labels[None], "raster.tif")
    here = write_vector([corners(0, 0, 9, 9)], "here.gpkg", kind=["tree"])
    away = write_vector([shapely.box(0, 0, 9, 9)], "away.gpkg")
    text = tmp_path / "notes.txt"
    text.write_text("no layer")
    many = np.arange(400, dtype=np.int32).reshape(1, 20, 20)

    def message(**fields):
        with pytest.raises(RefSAMError) as raised:
            compare(**fields)
        assert raised.value.code == "input"
        return str(raised.value)

    assert "road, pool" in message(result=raster, truth=here, truth_field="kind", result_classes=("road", "pool"))
    assert "has no field 'sort'; it has kind" in message(result=here, truth=raster, result_field="sort")
    assert "has no field 'kind'" in message(result=raster, truth=here, result_field="kind")
    assert "lies where" in message(result=raster, truth=away)
    assert "lie apart" in message(result=here, truth=away)
    assert "has no data where" in message(
        result=raster, truth=write_raster(labels[None], "far.tif", transform=from_origin(0, 0, 0.5, 0.5))
    )
    assert "has no CRS" in message(result=raster, truth=write_raster(labels[None], "bare.tif", crs=None))
    bare = write_raster(np.zeros_like(labels)[None], "background.tif")
    assert "shows no class there" in message(result=raster, truth=bare)
    assert "shows no class there" in message(result=bare, truth=bare)
    assert "neither a raster" in message(result=raster, truth=str(text))
    assert "does not exist" in message(result=str(tmp_path / "gone.tif"), truth=raster)
    assert "does not exist" in message(result=raster, truth=f"/vsizip/{tmp_path}/gone.zip/gone.tif")
    assert "fractions" in message(result=write_raster(np.full((1, 60, 70), 0.5, np.float32), "p.tif"), truth=raster)
    assert "different or negative" in message(result=write_raster(many, "objects.tif"), truth=raster)
    assert "different or negative" in message(
        result=write_raster(labels[None].astype(np.int16) - 1, "negative.tif"), truth=raster
    )
    assert "no polygons" in message(result=write_vector([shapely.Point(0, 0)], "point.gpkg"), truth=raster)
    left, right = labels.copy(), labels.copy()
    left[:, :35], right[:, 35:] = 99, 99
    assert "share no pixel" in message(
        result=write_raster(left[None], "left.tif", nodata=99), truth=write_raster(right[None], "right.tif", nodata=99)
    )
    assert "must end in .csv" in message(result=raster, truth=here, table=str(tmp_path / "t.txt"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf_8_are_refused_as_inputs_and_recorded_as_outputs(write_raster, tmp_path):
    raster = write_raster(patches(0)[None], "r.tif")
    strange = tmp_path / os.fsdecode(b"t\xff")
    strange.mkdir()
    with pytest.raises(RefSAMError, match=r"t\\udcff/t\.tif' has a name that is no UTF-8; rename it"):
        compare(result=raster, truth=str(strange / "t.tif"))
    report = strange / "report.json"
    compare(result=raster, truth=raster, report=str(report))
    assert json.loads(report.read_text(encoding="utf-8"))["job"]["report"] == str(report)


def test_cancelling_leaves_nothing(write_raster, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "BLOCK_PIXELS", 70)
    folder = tmp_path / "out"
    folder.mkdir()
    result, truth = write_raster(patches(0)[None], "r.tif"), write_raster(patches(1)[None], "t.tif")
    with pytest.raises(JobCancelled):
        compare(Recorder(cancel_after=150), result=result, truth=truth, table=str(folder / "t.csv"))
    assert list(folder.iterdir()) == []
