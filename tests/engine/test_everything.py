from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from benchmarks.accuracy.sam_reference import as_pixels, segment_anything_own
from refsam_qgis.engine import everything
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.everything import run_everything
from refsam_qgis.engine.job import EverythingJob, ObjectOutputs, PolygonOptions, RasterOptions
from tests.engine.models.test_automatic_masks import BlobDecoder, ask_blobs
from tests.engine.models.test_promptable import picture
from tests.engine.pocket_sam import pocket_sam
from tests.engine.prompt_stand_in import PatchPrompter
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, Recorder, painted


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "home"))


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "résultats 結果"
    folder.mkdir()
    return ObjectOutputs(*(str(folder / name) for name in ("p.gpkg", "m.tif", "r.json")))


@pytest.fixture
def model(monkeypatch):
    """Finds patches, and nothing in the other two masks of a prompt: they cover all and are rated badly."""
    stand_in = PatchPrompter()
    monkeypatch.setattr(everything, "load_promptable", lambda options, load: stand_in)
    return stand_in


def scattered(height, width):
    """Patches of all sizes, one across several tiles, and where they are: ``(h, w)`` numbers of first pixels."""
    rng = np.random.default_rng(3)
    patches = [
        (slice(y, y + int(rng.integers(12, 22))), slice(x, x + int(rng.integers(12, 22))), RED)
        for y in range(5, height - 40, 40) for x in range(5, width - 25, 30)
    ]  # fmt: skip
    patches.append((slice(height - 16, height - 3), slice(10, width - 10), BLUE))
    truth = np.zeros((height, width), np.int32)
    for rows, columns, _ in patches:
        truth[rows, columns] = 1 + rows.start * width + columns.start
    return painted(height, width, patches), truth


def run(raster, outputs, reporter=None, tile_size=100, points=10, extent=None, **shapes):
    job = EverythingJob(
        raster, extent, points, min_predicted_iou=0.8, outputs=outputs, raster=RasterOptions(tile_size=tile_size),
        polygons=PolygonOptions(**shapes),
    )  # fmt: skip
    return run_everything(job, reporter or Recorder(), lambda options: None)


def mask_of(outputs):
    with rasterio.open(outputs.mask) as dataset:
        return dataset.read(1)


def test_the_outputs_are_whole_and_right(write_raster, outputs, model):
    image, truth = scattered(180, 220)
    raster = write_raster(image, "bild 影像.tif")
    reporter = Recorder()
    result = run(raster, outputs, reporter)
    with rasterio.open(outputs.mask) as mask, rasterio.open(raster) as source:
        assert np.array_equal(mask.read(1), truth)
        assert (mask.crs, mask.transform, mask.dtypes) == (source.crs, source.transform, ("int32",))
    objects = gpd.read_file(outputs.polygons, layer="objects")
    assert list(objects.columns) == ["object_id", "score", "stability", "area_m2", "geometry"]
    assert objects["object_id"].tolist() == np.unique(truth)[1:].tolist() and objects.is_valid.all()
    pixels = np.array([(truth == number).sum() for number in objects["object_id"]])
    assert np.allclose(objects["area_m2"], pixels / 4, rtol=2e-3)
    assert result["object_count"] == len(objects) and result["tiles"] == 6 and result["tile_size"] == 100
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert report["model"]["adapters"] is None
    assert report["result"] == result and report["tiles"] == {"side": 100, "overlap": 12, "skipped": 0}
    fractions = [fraction for fraction, _, _ in reporter.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert len(list(Path(outputs.mask).parent.iterdir())) == 3
    assert not list((Path(outputs.mask).parent.parent / "home").rglob("tiles"))


@pytest.mark.parametrize(("tile_size", "overlap", "points"), [(64, 50, 6), (67, 50, 6), (90, 25, 9), (1000, 12.5, 18)])
def test_tilings_agree(write_raster, outputs, model, tile_size, overlap, points):
    image, truth = scattered(150, 200)
    job = EverythingJob(
        write_raster(image), None, points, 0.8, outputs=outputs,
        raster=RasterOptions(tile_size=tile_size, overlap=overlap),
    )  # fmt: skip
    run_everything(job, Recorder(), lambda options: None)
    assert np.array_equal(mask_of(outputs), truth)


@pytest.mark.parametrize(("overlap", "tile_size", "told"), [(0, 64, True), (0.5, 64, True), (0, 1000, False)])
def test_objects_stay_whole_however_little_overlap_is_asked_for(write_raster, outputs, model, overlap, tile_size, told):
    image, truth = scattered(150, 200)
    reading, reporter = RasterOptions(tile_size=tile_size, overlap=overlap), Recorder()
    job = EverythingJob(write_raster(image), None, 20, 0.8, outputs=outputs, raster=reading)
    assert run_everything(job, reporter, lambda options: None)["object_count"] == len(np.unique(truth)) - 1
    assert (mask_of(outputs) != truth).mean() < 0.001  # what no point hits may be missing
    assert any("so that objects across their borders stay whole" in text for text in reporter.messages) is told


def test_bands_that_nothing_names_are_told(write_raster, outputs, model):
    image, _ = scattered(100, 100)
    four = write_raster(image[[0, 1, 2, 0]], "four.tif", photometric="minisblack")
    reporter = Recorder()
    run(four, outputs, reporter)
    assert "Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands." in reporter.messages


def test_one_tile_equals_segment_anything(write_raster, outputs, monkeypatch):
    ask_blobs(monkeypatch)
    image = picture(100, 160)
    sam = copy.deepcopy(pocket_sam())
    sam.mask_decoder = BlobDecoder()

    class Loaded:
        pass

    Loaded.sam = sam
    job = EverythingJob(write_raster(image), None, 4, 0.5, 0.8, 0.5, outputs)
    run_everything(job, Recorder(), lambda options: Loaded())
    theirs = (
        segment_anything_own()
        .SamAutomaticMaskGenerator(
            sam, 4, points_per_batch=4, pred_iou_thresh=0.5, stability_score_thresh=0.8, box_nms_thresh=0.5
        )
        .generate(as_pixels(image))
    )
    objects = gpd.read_file(outputs.polygons)
    assert len(objects) == len(theirs) > 3 and objects["object_id"].is_unique
    drawn = [rasterio.features.geometry_mask([one], (100, 160), HALF_METRE, invert=True) for one in objects.geometry]
    for other in theirs:
        same = [index for index, mask in enumerate(drawn) if np.array_equal(mask, other["segmentation"])]
        assert len(same) == 1
        assert objects["score"][same[0]] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert objects["stability"][same[0]] == pytest.approx(other["stability_score"], abs=1e-3)
    best = max(theirs, key=lambda other: other["predicted_iou"])["segmentation"]
    assert len(np.unique(mask_of(outputs)[best])) == 1


def test_an_extent_cuts_objects_off(write_raster, outputs, model):
    image, truth = scattered(180, 220)
    left, top = HALF_METRE * (31, 47)
    right, bottom = HALF_METRE * (203, 180)
    run(write_raster(image), outputs, extent=(left, bottom, right, top))
    mask = mask_of(outputs)
    assert mask.shape == (133, 172) and np.array_equal(mask > 0, truth[47:, 31:203] > 0)
    whole = {int(v) for v in np.unique(truth[47:, 31:203])} - {int(v) for v in np.unique(truth[:, :31])}
    assert whole - {int(v) for v in np.unique(truth[:47])} <= {int(v) for v in np.unique(mask)}
    with rasterio.open(outputs.mask) as dataset:
        assert dataset.transform * (0, 0) == (left, top)
    with pytest.raises(RefSAMError, match="holds no pixel"):
        run(write_raster(image), outputs, extent=(0, 0, 1, 1))


def test_rotated_extent(write_raster, outputs, model):
    transform = HALF_METRE * Affine.rotation(30)
    image, _ = scattered(150, 200)
    raster = write_raster(image, transform=transform)
    x, y = transform * (100, 75)
    run(raster, outputs, extent=(x - 25, y - 25, x + 25, y + 25))
    objects = gpd.read_file(outputs.polygons)
    assert len(objects) > 3 and shapely.box(x - 25, y - 25, x + 25, y + 25).buffer(1e-6).covers(objects.union_all())
    with rasterio.open(outputs.mask) as dataset:
        assert set(np.unique(dataset.read(1))) - {0} <= set(objects["object_id"])


def test_nodata_is_skipped(write_raster, outputs, model):
    image, truth = scattered(150, 300)
    image[:, :, :190] = 0
    result = run(write_raster(image, nodata=0), outputs)
    assert result["tiles"] == 4 and np.array_equal(mask_of(outputs) > 0, (truth > 0) & (np.arange(300) >= 190))


def test_shapes_are_finished(write_raster, outputs, model):
    image, truth = scattered(150, 200)
    result = run(write_raster(image), outputs, min_area=50)
    sizes = {int(v): int((truth == v).sum()) for v in np.unique(truth)[1:]}
    assert sorted(sizes[v] > 200 for v in np.unique(mask_of(outputs))[1:])[0]
    assert result["object_count"] == sum(size > 200 for size in sizes.values()) < len(sizes)


def test_nothing_found_is_a_valid_result(write_raster, outputs, model):
    result = run(write_raster(painted(70, 80, [])), outputs)
    assert result["object_count"] == 0 and not mask_of(outputs).any() and len(gpd.read_file(outputs.polygons)) == 0


def test_a_cancelled_run_goes_on_where_it_stopped(write_raster, outputs, model):
    image, _ = scattered(180, 220)
    raster = write_raster(image)
    run(raster, outputs)
    whole = Path(outputs.mask).read_bytes(), gpd.read_file(outputs.polygons)
    for path in (outputs.mask, outputs.polygons, outputs.report):
        Path(path).unlink()
    model.encoded.clear()
    with pytest.raises(JobCancelled, match="4 finished tiles are kept"):
        run(raster, outputs, Recorder(cancel_after=4 * 14 + 8))
    assert not list(Path(outputs.mask).parent.iterdir())
    result = run(raster, outputs)
    assert result["tiles_kept"] == 4 and result["tiles"] == 2 and len(model.encoded) == 7
    assert Path(outputs.mask).read_bytes() == whole[0]
    assert gpd.read_file(outputs.polygons).equals(whole[1])


def test_no_tile_is_kept_of_a_raster_that_might_change_unnoticed(write_raster, outputs, model, private_home):
    image, _ = scattered(180, 220)
    raster = write_raster(image)
    with pytest.raises(JobCancelled, match="no output was written"):
        run(f"/vsisubfile/0_{os.path.getsize(raster)},{raster}", outputs, Recorder(cancel_after=4 * 14 + 8))
    assert model.encoded and not list(private_home.glob("journals/*"))


def test_outputs_may_not_be_inputs(write_raster, write_virtual, model):
    raster = write_raster(painted(70, 80, []))
    with pytest.raises(RefSAMError, match="also an input"):
        run(raster, ObjectOutputs(mask=raster))
    with pytest.raises(RefSAMError, match="also an input"):
        run(write_virtual(raster, "virtual.vrt", (3, 70, 80)), ObjectOutputs(mask=raster))
