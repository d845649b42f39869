from __future__ import annotations

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import Affine
from rasterio.windows import Window

from benchmarks.accuracy.sam_reference import as_pixels, segment_anything_own
from refsam_qgis.engine import everything, tile_key
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.everything import full_tiles, run_everything
from refsam_qgis.engine.job import EverythingJob, ObjectOutputs, PolygonOptions, RasterOptions
from refsam_qgis.engine.rasters.grid import TileGrid
from refsam_qgis.engine.rasters.source import RasterSource
from refsam_qgis.engine.rasters.stitch import SeenObject
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


def test_what_has_no_data_is_neither_asked_about_nor_part_of_an_object(write_raster, outputs, monkeypatch):
    class Spilling(PatchPrompter):
        """Its masks reach ten pixels beyond the patches, over what has no data too."""

        def predict(self, image, prompts, multimask):
            logits, rating = super().predict(image, prompts, multimask)
            return torch.nn.functional.max_pool2d(logits, 21, 1, 10), rating

    stand_in = Spilling()
    monkeypatch.setattr(everything, "load_promptable", lambda options, load: stand_in)
    image = painted(100, 100, [(slice(20, 50), slice(50, 80), RED)])
    image[:, :, :48] = 0
    run(write_raster(image, nodata=0), outputs)
    expected = np.zeros((100, 100), bool)
    expected[10:60, 48:90] = True
    assert np.array_equal(mask_of(outputs) > 0, expected)
    asked = torch.cat([prompts.points[:, 0] for prompts, _ in stand_in.asked])
    assert len(asked) == 50 and bool((asked[:, 0] > 47).all())


@pytest.mark.parametrize("size", [(180, 220), (188, 188), (60, 40)])
@pytest.mark.parametrize("window", [(0, 0, 220, 188), (30, 12, 20, 15), (100, 88, 20, 92), (0, 100, 12, 20)])
def test_tiles_lie_whole_in_the_raster_and_are_those_that_show_what_is_looked_at(size, window):
    left, top, width, height = window
    # Every 88 pixels one of 100; the last ones moved back.
    starts = [
        sorted({min(88 * i, max(0, side - 100)) for i in range(1 + (side > 100) + (side > 188))}) for side in size
    ]
    expected = [
        (row, column) for row in starts[0] for column in starts[1]
        if row < top + height and row + 100 > top and column < left + width and column + 100 > left
    ]  # fmt: skip
    tiles = full_tiles(TileGrid(size[1], size[0], 100, 12), Window(left, top, width, height))
    assert [(tile.row, tile.column) for tile in tiles] == expected


def numbered(write_raster, *boxes):
    """Object numbers and areas of boxes in pixels on a raster of 20 by 30, in the order in which they are kept."""
    seen = [SeenObject(shapely.box(*box), 0.1 * index, 1.0 - 0.1 * index) for index, box in enumerate(boxes)]
    with RasterSource(write_raster(painted(20, 30, [])), None, "auto") as raster:
        found = everything._numbered(seen, raster)
    for outline, score, stability in zip(found.outlines, found.scores, found.stabilities, strict=True):
        (index,) = (i for i, item in enumerate(seen) if item.outline == outline)
        assert (score, stability) == (seen[index].score, seen[index].stability)
    return list(zip(found.object_ids.tolist(), shapely.area(found.outlines).tolist(), strict=True))


def test_objects_with_one_first_pixel_have_numbers_of_their_own(write_raster):
    """The largest has that of the pixel; the others the next ones, and so on where these are taken."""
    found = numbered(write_raster, (4, 2, 6, 4), (5, 2, 6, 3), (4, 2, 9, 9), (4, 2, 7, 5), (0, 0, 1, 2))
    assert found == [(1, 2), (65, 35), (66, 9), (67, 4), (68, 1)]


def test_the_first_pixel_is_that_of_the_first_row():
    slanted = shapely.union_all([shapely.box(9, 2, 12, 3), shapely.box(4, 3, 10, 4)])
    assert everything._first_pixel(slanted) == (2, 9)


def test_a_raster_of_more_pixels_than_a_mask_can_count_has_its_objects_numbered_from_one(write_raster, monkeypatch):
    monkeypatch.setattr(everything, "MAX_ID", 601)
    assert numbered(write_raster, (4, 2, 6, 4)) == [(65, 4)]
    assert numbered(write_raster, (4, 2, 6, 4), (0, 0, 1, 2)) == [(1, 2), (2, 4)]


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


@pytest.mark.parametrize(
    "change",
    [{"points_per_side": 9}, {"min_predicted_iou": 0.7}, {"min_stability": 0.8}, {"max_overlap": 0.6},
     {"raster": RasterOptions(tile_size=110)}, {"raster": RasterOptions(tile_size=100, overlap=20)},
     {"raster": RasterOptions(tile_size=100, bands=(3, 2, 1))}, "touched", "device"],
    ids=str,
)  # fmt: skip
def test_what_changes_the_masks_begins_anew(write_raster, outputs, model, monkeypatch, change):
    image, _ = scattered(180, 220)
    raster = write_raster(image)
    job = EverythingJob(raster, None, 10, 0.8, outputs=outputs, raster=RasterOptions(tile_size=100))
    with pytest.raises(JobCancelled, match="finished tiles are kept"):
        run_everything(job, Recorder(cancel_after=4 * 14 + 8), lambda options: None)
    if change == "touched":
        os.utime(raster)
    elif change == "device":
        monkeypatch.setattr(tile_key, "describe_device", lambda device: "another one")
    else:
        job = replace(job, **change)
    assert run_everything(job, Recorder(), lambda options: None)["tiles_kept"] == 0


def test_no_output_appears_after_a_late_cancel(write_raster, outputs, model, monkeypatch):
    reporter = Recorder()
    reporter.cancel_once_reported(monkeypatch)
    with pytest.raises(JobCancelled, match="6 finished tiles are kept"):
        run(write_raster(scattered(180, 220)[0]), outputs, reporter)
    assert not list(Path(outputs.mask).parent.iterdir())


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
