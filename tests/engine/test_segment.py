from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import torch
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window
from shapely.geometry import box

from refsam_qgis import __version__
from refsam_qgis.engine import encodings, tile_key
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.job import (
    ModelOptions,
    PolygonOptions,
    RasterOptions,
    ReferenceSource,
    SegmentJob,
    SegmentOutputs,
    to_dict,
)
from refsam_qgis.engine.models.weight_files import COMPACT_SAM
from refsam_qgis.engine.rasters.source import RasterSource
from refsam_qgis.engine.rasters.writers import MASK_NODATA, PROBABILITY_NODATA
from refsam_qgis.engine.references.gather import gather_references
from refsam_qgis.engine.segment import run_segment
from refsam_qgis.engine.tensor_files import write_tensors
from tests.engine.stand_ins import (
    BLUE,
    HALF_METRE,
    RED,
    CoarseSegmenter,
    ColourSegmenter,
    PortableSegmenter,
    RampSegmenter,
    Recorder,
    painted,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "geotiff"


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "résultats 結果"
    folder.mkdir()
    return SegmentOutputs(*(str(folder / name) for name in ("p.gpkg", "m.tif", "q.tif", "r.json")))


@pytest.fixture
def scene(write_raster, write_vector):
    """Red and blue objects, one across four tiles, and marks on one of each."""
    image = painted(
        700, 600, [
            (slice(40, 60), slice(40, 60), RED), (slice(100, 120), slice(50, 70), BLUE),
            (slice(180, 300), slice(190, 290), RED), (slice(500, 530), slice(20, 560), BLUE),
        ],
    )  # fmt: skip
    marks = [mark_at(HALF_METRE, 40, 40), mark_at(HALF_METRE, 50, 100)]
    return image, write_raster(image, "bild 影像.tif"), write_vector(marks, "märks.gpkg", kind=["red", "blue"])


def mark_at(transform, x, y, side=20):
    return shapely.transform(box(x, y, x + side, y + side), lambda a, b: transform * (a, b), interleaved=False)


def run(raster, marks, outputs, model=None, reporter=None, **options):
    reading = RasterOptions(**{k: options.pop(k) for k in ("bands", "stretch", "overlap") if k in options},
                            tile_size=options.pop("tile_size", 224))  # fmt: skip
    shapes = PolygonOptions(**{k: options.pop(k) for k in ("min_area", "simplify") if k in options})
    source = ReferenceSource(marks, class_field="kind", negatives=options.pop("negatives", None))
    network = ModelOptions(method=options.pop("method", "auto"))
    job = SegmentJob(raster, source, outputs, raster=reading, polygons=shapes, model=network, **options)
    return run_segment(job, reporter or Recorder(), lambda _: model or ColourSegmenter())


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_bands_that_nothing_names_are_told_once(scene, outputs, write_raster):
    """Examples and tiles are read from the same raster."""
    image, _, marks = scene
    four = write_raster(np.concatenate([image, image[:1]]), "four.tif", photometric="minisblack")
    reporter = Recorder()
    run(four, marks, outputs, reporter=reporter)
    sentence = "Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands."
    assert reporter.messages.count(sentence) == 1


def test_the_outputs_are_whole_and_right(scene, outputs):
    image, raster, marks = scene
    reporter = Recorder()
    result = run(raster, marks, outputs, reporter=reporter)
    truth = np.zeros((700, 600), np.uint8)
    truth[(image == np.array(BLUE)[:, None, None]).all(0)] = 1
    truth[(image == np.array(RED)[:, None, None]).all(0)] = 2
    with rasterio.open(outputs.mask) as mask, rasterio.open(raster) as source:
        assert np.array_equal(mask.read(1), truth)
        assert (mask.crs, mask.transform, mask.nodata) == (source.crs, source.transform, 255)
        assert mask.tags(1)["CLASS_2"] == "red"
    with rasterio.open(outputs.probability) as probability:
        assert probability.descriptions == ("blue", "red") and probability.dtypes == ("float32",) * 2
        assert np.array_equal(probability.read().max(0) >= 0.5, truth > 0)
    objects = gpd.read_file(outputs.polygons, layer="objects")
    assert list(objects.columns) == ["object_id", "class", "class_id", "score", "area_m2", "geometry"]
    first_pixels = [(40, 40), (100, 50), (180, 190), (500, 20)]
    assert objects["object_id"].tolist() == [1 + 600 * row + column for row, column in first_pixels]
    assert objects["class"].tolist() == ["red", "blue", "red", "blue"]
    assert np.allclose(objects["area_m2"], [100, 100, 3000, 4050], rtol=2e-3)
    assert objects.crs.to_epsg() == 32640
    assert result["object_count"] == 4 and result["tiles"] == 12 and result["device"] == "cpu"
    assert [(c["name"], c["object_count"]) for c in result["classes"]] == [("blue", 2), ("red", 2)]
    assert [c["area_m2"] for c in result["classes"]] == pytest.approx([4150, 3100], rel=2e-3)
    fractions = [fraction for fraction, _, _ in reporter.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert len(list(Path(outputs.mask).parent.iterdir())) == 4


def test_results_lie_over_an_image_without_georeference(tmp_path, write_vector, outputs):
    """QGIS shows such an image from (0, 0) downwards, and what is drawn on it has those coordinates."""
    patches = [(slice(40, 60), slice(40, 60), RED), (slice(100, 120), slice(150, 180), RED)]
    picture = tmp_path / "picture.png"
    Image.fromarray(painted(200, 300, patches).transpose(1, 2, 0)).save(picture)
    marks = write_vector([box(40, -60, 60, -40)], crs=None, kind=["red"])
    run(str(picture), marks, outputs)
    with rasterio.open(outputs.mask) as mask:
        assert mask.crs is None and tuple(mask.bounds) == (0, -200, 300, 0)
        assert mask.read(1)[100:120, 150:180].all() and mask.read(1).sum() == 400 + 600
    bounds = sorted(gpd.read_file(outputs.polygons).bounds.to_numpy().tolist())
    assert bounds == [[40, -60, 60, -40], [150, -120, 180, -100]]
    run(str(picture), marks, outputs, extent=(140, -130, 190, -90))
    with rasterio.open(outputs.mask) as mask:
        assert tuple(mask.bounds) == (140, -130, 190, -90) and mask.read(1).sum() == 600


@pytest.mark.parametrize("model", [ColourSegmenter(), RampSegmenter()])
def test_a_run_on_an_extent_equals_the_whole_inside_it(scene, outputs, model):
    _, raster, marks = scene
    run(raster, marks, outputs, model)
    whole = read(outputs.mask), read(outputs.probability)
    left, top = HALF_METRE * (131, 77)
    right, bottom = HALF_METRE * (403, 600)
    run(raster, marks, outputs, model, extent=(left, bottom, right, top))
    for full, path in zip(whole, (outputs.mask, outputs.probability), strict=True):
        assert np.array_equal(read(path), full[:, 77:600, 131:403])
    with rasterio.open(outputs.mask) as mask:
        assert mask.transform * (0, 0) == (left, top)


@pytest.mark.parametrize(("tile_size", "overlap"), [(64, 50), (67, 50), (200, 0), (1000, 12.5), (333, 30)])
def test_tilings_agree(scene, outputs, tile_size, overlap):
    image, raster, marks = scene
    run(raster, marks, outputs, tile_size=tile_size, overlap=overlap)
    mask = read(outputs.mask)[0]
    assert np.array_equal(mask > 0, (image != image[:, :1, :1]).any(0))
    assert len(gpd.read_file(outputs.polygons)) == 4


def test_tiles_are_equal_on_the_ground(write_raster, write_vector, outputs):
    """References at 0.25 m and a target at 1 m: 256 pixels of the one are 64 of the other."""
    fine = from_origin(320000, 2790000, 0.25, 0.25)
    reference = write_raster(painted(400, 400, [(slice(40, 60), slice(40, 60), RED)]), "fine.tif", transform=fine)
    coarse = write_raster(
        painted(300, 300, [(slice(99, 104), slice(99, 104), RED)]), "coarse.tif",
        transform=from_origin(320000, 2790000, 1, 1),
    )  # fmt: skip
    source = ReferenceSource(write_vector([mark_at(fine, 40, 40)]), reference)
    result = run_segment(SegmentJob(coarse, source, outputs), Recorder(), lambda _: ColourSegmenter())
    assert result["tile_size"] == 64 and result["object_count"] == 1


@pytest.mark.parametrize(("threshold", "found"), [(0.6, True), (0.65, False), (0.3, True)])
def test_a_pixel_is_of_the_class_from_the_threshold_asked_for(write_raster, write_vector, outputs, threshold, found):
    """A paler red has a logit of 0.5, a probability of 0.62."""
    pale = (slice(100, 120), slice(100, 120), (172, 30, 30))
    raster = write_raster(painted(224, 224, [(slice(40, 60), slice(40, 60), RED), pale]))
    run(raster, write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"]), outputs, threshold=threshold)
    mask = read(outputs.mask)[0]
    assert mask[40:60, 40:60].all() and mask.sum() == (800 if found else 400)


def test_tiles_are_never_too_small_and_chips_follow(write_raster, write_vector, outputs):
    """References at 0.25 m and a target at 2 m: 256 pixels would be 32; chips of the ground of 64 are shown instead."""
    fine = from_origin(320000, 2790000, 0.25, 0.25)
    reference = write_raster(painted(600, 600, [(slice(40, 60), slice(40, 60), RED)]), "fine.tif", transform=fine)
    coarse = write_raster(painted(100, 100, []), "coarse.tif", transform=from_origin(320000, 2790000, 2, 2))
    source, reporter = ReferenceSource(write_vector([mark_at(fine, 40, 40)]), reference), Recorder()
    result = run_segment(SegmentJob(coarse, source, outputs), reporter, lambda _: ColourSegmenter())
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert result["tile_size"] == report["tiles"]["side"] == 64
    assert report["references"]["chip_ground_size"] == pytest.approx(128, rel=2e-3)
    assert any("ask for tiles of 32 pixels; 64 are used" in text for text in reporter.messages)


def test_an_extent_across_the_pixels_of_a_rotated_raster_leaves_out_what_is_beside_it(
    write_raster, write_vector, outputs
):
    transform = HALF_METRE * Affine.rotation(30)
    patches = [(slice(40, 60), slice(40, 60), RED), (slice(100, 280), slice(190, 300), RED)]
    raster = write_raster(painted(320, 400, patches), "rotated.tif", transform=transform)
    marks = write_vector([mark_at(transform, 40, 40)], kind=["red"])
    x, y = transform * (210, 190)
    extent = (x - 30, y - 25, x + 30, y + 25)
    run(raster, marks, outputs, extent=extent, tile_size=96)
    with rasterio.open(outputs.mask) as dataset:
        mask, here = dataset.read(1), dataset.transform
    rows, columns = np.indices(mask.shape) + 0.5
    east, north = here * (columns, rows)
    inside = (east > extent[0]) & (east < extent[2]) & (north > extent[1]) & (north < extent[3])
    column, row = ~transform * (east, north)
    red = (column > 190) & (column < 300) & (row > 100) & (row < 280)
    assert np.array_equal(mask, np.where(inside, red, MASK_NODATA)) and red[inside].any() and not red[inside].all()
    assert (read(outputs.probability)[0][~inside] == PROBABILITY_NODATA).all()
    assert box(*extent).buffer(0.5).covers(gpd.read_file(outputs.polygons).union_all())


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32640", Affine(0.5, 0, 320000, 0, 0.5, 2790000)),
        ("EPSG:32640", Affine.translation(320000, 2790000) * Affine.rotation(30) * Affine.scale(0.5, -0.5)),
        ("EPSG:4326", from_origin(55.2, 25.2, 5e-6, 5e-6)),
        (None, from_origin(10, 900, 2, 2)),
    ],
    ids=["south-up", "rotated", "geographic", "none"],
)
def test_rasters_come_out_where_they_went_in(write_raster, write_vector, outputs, crs, transform):
    image = painted(300, 300, [(slice(40, 60), slice(40, 60), RED), (slice(200, 230), slice(100, 240), RED)])
    marks = write_vector([mark_at(transform, 40, 40)], crs=crs, kind=["red"])
    run(write_raster(image, crs=crs, transform=transform), marks, outputs, tile_size=128)
    truth = (image == np.array(RED)[:, None, None]).all(0)
    with rasterio.open(outputs.mask) as mask:
        assert mask.transform.almost_equals(transform) and (mask.crs.to_string() if mask.crs else None) == crs
        assert np.array_equal(mask.read(1), truth)
    objects = gpd.read_file(outputs.polygons)
    drawn = rasterize(objects.geometry, truth.shape, transform=transform)
    assert len(objects) == 2 and np.array_equal(drawn, truth)


def test_nodata_is_nodata_in_the_outputs_and_empty_tiles_are_skipped(write_raster, write_vector, outputs):
    image = painted(400, 600, [(slice(40, 60), slice(40, 60), RED)])
    alpha = np.full((1, 400, 600), 255, np.uint8)
    alpha[:, :, 250:] = 0
    rgba = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    raster = write_raster(np.concatenate([image, alpha]), colorinterp=rgba)
    result = run(raster, write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"]), outputs, tile_size=128)
    assert result["tiles"] == 12  # of 24
    mask, probability = read(outputs.mask)[0], read(outputs.probability)[0]
    assert (mask[:, 250:] == 255).all() and (mask[:, :250] != 255).all()
    assert (probability[:, 250:] == -1).all() and (probability[:, :250] >= 0).all()


def test_the_report_tells_parameters_versions_digests_device_and_times(scene, outputs):
    _, raster, marks = scene
    before = datetime.now().astimezone().replace(microsecond=0)
    result = run(raster, marks, outputs, threshold=0.4, stretch="percentile", origin="a command")
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert report["result"] == result
    assert report["job"]["origin"] == "a command" and report["references"]["examples"] == 2
    assert report["job"]["threshold"] == 0.4 and report["job"]["raster"]["tile_size"] == 224
    assert report["refsam"] == __version__ and report["versions"]["torch"] == version("torch")
    weights = hashlib.sha256(COMPACT_SAM.read_bytes()).hexdigest()
    assert report["model"]["checkpoint_sha256"] == weights
    with RasterSource(raster) as opened:
        side = 224 * opened.gsd
    source = ReferenceSource(marks, class_field="kind")
    references = gather_references(source, raster, None, "percentile", Recorder(), side)
    assert report["references"]["chips"] == {"blue": 1, "red": 1}
    assert report["references"]["digest"] == references.digest
    assert report["device"]["device"] == "cpu" and report["device"]["threads"] == torch.get_num_threads()
    stat = os.stat(raster)
    assert report["input"]["files"] == [[raster, stat.st_size, stat.st_mtime_ns]]
    assert len(report["input"]["stretched_between"]) == 3
    started, finished = (datetime.fromisoformat(report["time"][name]) for name in ("started", "finished"))
    assert before <= started <= finished <= datetime.now().astimezone()
    stages = report["time"]["stages"]
    assert {"references", "model", "descriptions", "tiles", "polygons", "writing"} == set(stages)
    assert sum(stages.values()) <= report["time"]["seconds"] + 0.01
    assert report["files"]["mask"] == {"path": outputs.mask, "size": os.path.getsize(outputs.mask)}


def test_examples_may_go_once_they_are_read(scene, outputs):
    """QGIS's temporary files may be swept while a run lasts for hours."""
    _, raster, marks = scene

    class Sweeping(ColourSegmenter):
        def describe(self, shots, encodings=()):
            Path(marks).unlink(missing_ok=True)
            return super().describe(shots, encodings)

    run(raster, marks, outputs, Sweeping())
    assert not Path(marks).exists()
    assert json.loads(Path(outputs.report).read_text(encoding="utf-8"))["references"]["examples"] == 2


def test_logits_of_low_resolution_are_scaled_to_the_tile(write_raster, write_vector, outputs):
    """One tile: the probability is what torch makes of the model's own logits."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3, 128, 128), dtype=np.uint8)
    image[:, 40:60, 40:60] = np.array(RED, np.uint8)[:, None, None]
    raster, marks = write_raster(image), write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"])
    run(raster, marks, outputs, CoarseSegmenter(), tile_size=128)
    own = 4 - (torch.from_numpy(image).float() - torch.tensor(RED).float()[:, None, None]).norm(dim=0) / 8
    coarse = torch.nn.functional.avg_pool2d(own[None, None], 4)
    expected = torch.nn.functional.interpolate(coarse, (128, 128), mode="bilinear", align_corners=False)[0, 0]
    assert np.allclose(read(outputs.probability)[0], expected.sigmoid(), atol=1e-6)


def test_what_is_marked_as_a_negative_is_not_found(write_raster, write_vector, outputs):
    """A dark red that the class reaches but the negative's own colour wins."""
    dark = (180, 30, 30)
    patches = [(slice(40, 60), slice(40, 60), RED), (slice(150, 190), slice(150, 190), RED)]
    patches += [(slice(100, 120), slice(40, 60), dark), (slice(220, 260), slice(100, 140), dark)]
    image = painted(300, 300, patches)
    raster, marks = write_raster(image), write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"])
    negatives = write_vector([mark_at(HALF_METRE, 40, 100)], "not.gpkg")
    without = run(raster, marks, outputs, tile_size=128)
    found = read(outputs.mask)[0]
    result = run(raster, marks, outputs, tile_size=128, negatives=negatives)
    red = (image == np.array(RED)[:, None, None]).all(0)
    assert without["object_count"] == 4 and (found > 0).sum() > red.sum()
    assert result["object_count"] == 2 and np.array_equal(read(outputs.mask)[0] == 1, red)
    assert [c["name"] for c in result["classes"]] == ["red"] and len(read(outputs.probability)) == 1


def test_touching_objects_are_parted_where_the_probability_dips(write_raster, write_vector, outputs, monkeypatch):
    """Whether they are is the business of `separate_touching`; here it is that it is asked, with the probabilities."""
    image = painted(300, 300, [(slice(40, 60), slice(40, 60), RED), (slice(150, 190), slice(150, 190), RED)])
    raster, marks = write_raster(image), write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"])
    asked = []

    def separate(table, grid, read_probability, dip, reporter):
        asked.append((dip, read_probability(1, Window(30, 40, 60, 20))))
        return table

    monkeypatch.setattr("refsam_qgis.engine.segment.separate_touching", separate)
    run(raster, marks, outputs, separate=0.25)
    whole = read(outputs.probability)[0]
    alone = dataclasses.replace(outputs, probability=None)
    Path(outputs.probability).unlink()
    run(raster, marks, alone, separate=0.25)
    assert [dip for dip, _ in asked] == [0.25, 0.25]
    for _, probability in asked:
        assert np.array_equal(probability, whole[40:60, 30:90])
    assert sorted(path.name for path in Path(outputs.mask).parent.iterdir()) == ["m.tif", "p.gpkg", "r.json"]


def test_nothing_found_is_a_valid_empty_layer(scene, outputs):
    _, raster, marks = scene
    result = run(raster, marks, outputs, min_area=1e6)
    objects = gpd.read_file(outputs.polygons, layer="objects")
    assert result["object_count"] == 0 and len(objects) == 0
    assert "area_m2" in objects.columns and objects.crs.to_epsg() == 32640


def test_what_is_far_smaller_than_the_examples_is_left_out_unless_asked_for(write_raster, write_vector, outputs):
    specks = [(slice(row, row + 4), slice(300, 304), RED) for row in (100, 200, 300)]
    image = painted(700, 600, [(slice(40, 60), slice(40, 60), RED), (slice(400, 405), slice(400, 405), RED), *specks])
    raster, marks = write_raster(image), write_vector([mark_at(HALF_METRE, 40, 40)], kind=["red"])
    reporter = Recorder()
    found = run(raster, marks, outputs, reporter=reporter)
    assert found["object_count"] == 2  # 25 of 400 pixels are enough, 16 are not
    assert any("below 5 m²" in message for message in reporter.messages)
    assert run(raster, marks, outputs, min_area=0.0)["object_count"] == 5


class Failing(ColourSegmenter):
    def __init__(self, error):
        self._error, self._calls = error, 0

    def encode(self, images, valid):
        self._calls += 1
        if self._calls == 3:
            raise self._error
        return super().encode(images, valid)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("ours")])
def test_a_failure_leaves_nothing(scene, outputs, error):
    _, raster, marks = scene
    with pytest.raises(type(error)):
        run(raster, marks, outputs, Failing(error))
    assert list(Path(outputs.mask).parent.iterdir()) == []


def test_a_failure_to_write_leaves_nothing(wide, outputs, monkeypatch):
    """It happens in another thread, in the middle of the run."""
    raster, marks = wide
    written = []

    def full(self, i, j):
        written.append((i, j))
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("refsam_qgis.engine.rasters.writers.PieceWriter._write_block", full)
    with pytest.raises(RefSAMError, match="cannot be written") as caught:
        run(raster, marks, outputs, CoarseSegmenter())
    assert caught.value.code == "disk" and list(Path(outputs.mask).parent.iterdir()) == []


def test_the_path_moves_no_more_than_it_must(wide, outputs, monkeypatch):
    """Each tile is read once, encoded once, and goes to the model as 8 bits a value."""
    raster, marks = wide
    reads, moved = [], []
    read_window = RasterSource.read

    def counting_read(self, window):
        reads.append((window.col_off, window.row_off, window.width, window.height))
        return read_window(self, window)

    class Counting(CoarseSegmenter):
        def encode(self, images, valid):
            moved.append(images.numel() * images.element_size() + valid.numel() * valid.element_size())
            return super().encode(images, valid)

    model = Counting()
    monkeypatch.setattr(RasterSource, "read", counting_read)
    tiles = run(raster, marks, outputs, model)["tiles"]
    of_tiles = [window for window in reads if window[2:] == (224, 224)]
    assert tiles == 20 and len(of_tiles) == len(set(of_tiles)) == tiles + 1  # one is the reference chip
    assert model.tiles == tiles and moved == [4 * 224 * 224] * tiles


def test_the_raster_is_opened_no_more_than_it_must(wide, outputs, monkeypatch):
    """It may be a mosaic of thousands of files, and one far away."""
    raster, marks = wide
    opened = []
    really = rasterio.open

    def counting(path, mode="r", **options):
        opened.extend([mode] if os.fspath(path) == raster else [])
        return really(path, mode, **options)

    monkeypatch.setattr(rasterio, "open", counting)
    run(raster, marks, outputs, PortableSegmenter())
    # What it consists of, how it is seen, the examples on it, its content, the run itself, and two threads that read.
    assert opened == ["r"] * 7


def test_cancelling_leaves_nothing(scene, outputs):
    _, raster, marks = scene
    with pytest.raises(JobCancelled):
        run(raster, marks, outputs, reporter=Recorder(cancel_after=5))
    assert list(Path(outputs.mask).parent.iterdir()) == []


@pytest.fixture
def wide(write_raster, write_vector):
    """A raster of 24 tiles with something in each, so that every tile matters."""
    image = np.random.default_rng(7).integers(0, 256, (3, 700, 1000), dtype=np.uint8)
    image[:, 100:160, 40:900] = np.array(RED, np.uint8)[:, None, None]
    return write_raster(image, "wide.tif"), write_vector([mark_at(HALF_METRE, 100, 110)], kind=["red"])


def cancelled_run(raster, marks, outputs, tiles, **options):
    """Run until so many tiles are done, then cancel."""
    model = CoarseSegmenter()

    class Cancelling(Recorder):
        def is_cancelled(self):
            return model.tiles >= tiles

    with pytest.raises(JobCancelled) as caught:
        run(raster, marks, outputs, model, Cancelling(), **options)
    return str(caught.value)


def contents(outputs):
    """The bytes of the rasters and the features of the layer."""
    _, _, shapes, fields = pyogrio.raw.read(outputs.polygons)
    rasters = [Path(path).read_bytes() for path in (outputs.mask, outputs.probability)]
    return rasters, shapes.tolist(), [values.tolist() for values in fields]


def test_a_cancelled_run_goes_on_to_the_same_bytes(wide, outputs, private_home):
    raster, marks = wide
    whole = run(raster, marks, outputs, CoarseSegmenter())
    undisturbed = contents(outputs)
    told = cancelled_run(raster, marks, outputs, 9)
    assert told == "The run was cancelled; 9 finished tiles are kept, and the next run goes on from there."
    assert contents(outputs) == undisturbed  # of the run before
    for path in (outputs.mask, outputs.probability, outputs.polygons):
        Path(path).unlink()
    model, reporter = CoarseSegmenter(), Recorder()
    result = run(raster, marks, outputs, model, reporter)
    assert model.tiles == result["tiles"] == whole["tiles"] - 9 and result["tiles_kept"] == 9
    assert f"9 of {whole['tiles']} tiles were done in an earlier run." in reporter.messages
    assert contents(outputs) == undisturbed
    assert list((private_home / "journals").iterdir()) == []


def test_no_tile_is_kept_of_a_raster_that_might_change_unnoticed(wide, outputs, private_home):
    raster, marks = wide
    told = cancelled_run(f"/vsisubfile/0_{os.path.getsize(raster)},{raster}", marks, outputs, 9)
    assert told == "The run was cancelled; no output was written." and not list(private_home.glob("journals/*"))


def test_a_changed_threshold_extent_or_output_goes_on_too(wide, outputs):
    raster, marks = wide
    cancelled_run(raster, marks, outputs, 9, threshold=0.9)
    left, top = HALF_METRE * (600, 50)
    right, bottom = HALF_METRE * (900, 150)
    part = run(raster, marks, outputs, CoarseSegmenter(), threshold=0.2, extent=(left, bottom, right, top))
    assert part["tiles_kept"] > 0
    alone = SegmentOutputs(mask=outputs.mask)
    after = run(raster, marks, alone, CoarseSegmenter(), min_area=10.0)
    assert after["tiles_kept"] == 9  # those beyond the extent were not forgotten


@pytest.mark.parametrize(
    "change", ["reference", "raster", "tile_size", "overlap", "stretch", "model", "method", "device"]
)
def test_what_changes_the_tiles_begins_anew(wide, outputs, write_vector, monkeypatch, change):
    raster, marks = wide
    cancelled_run(raster, marks, outputs, 9)
    model, options = CoarseSegmenter(), {}
    if change == "reference":
        marks = write_vector([mark_at(HALF_METRE, 100, 120)], "other.gpkg", kind=["red"])
    elif change == "raster":
        os.utime(raster)
    elif change == "model":
        model = RampSegmenter()
    elif change == "device":
        monkeypatch.setattr(tile_key, "describe_device", lambda device: "another one")
    elif change == "method":  # two methods of one class, with one checkpoint
        options["method"] = "virefsam"
    else:
        options[change] = {"tile_size": 200, "overlap": 30.0, "stretch": "percentile"}[change]
    assert run(raster, marks, outputs, model, **options)["tiles_kept"] == 0


def test_a_failure_in_the_middle_keeps_the_tiles(wide, outputs):
    raster, marks = wide
    with pytest.raises(RuntimeError):
        run(raster, marks, outputs, Failing(RuntimeError("in the third tile")))
    model = Failing(RuntimeError("never"))
    model._calls = 3
    assert run(raster, marks, outputs, model)["tiles_kept"] == 2


@pytest.fixture
def patient_cache(monkeypatch):
    """Keep every encoding, however slow the disk is."""
    monkeypatch.setattr(encodings, "BEING_WRITTEN", 24)


def test_a_second_class_of_the_same_raster_is_not_encoded_again(
    wide, outputs, write_vector, private_home, patient_cache
):
    """The results are those of a run that has nothing to go by."""
    raster, marks = wide
    other = write_vector([mark_at(HALF_METRE, 300, 400)], "other.gpkg", kind=["other"])
    alone = PortableSegmenter()
    cold = run(raster, other, outputs, alone, keep_encodings=False)
    expected = contents(outputs)
    assert cold["encodings_reused"] == 0 and not (private_home / "cache" / "encodings").exists()
    first = run(raster, marks, outputs, PortableSegmenter())
    assert first["encodings_reused"] == 0
    model = PortableSegmenter()
    second = run(raster, other, outputs, model, overlap=12.5)
    assert (model.tiles, second["tiles"], second["encodings_reused"]) == (0, cold["tiles"], cold["tiles"])
    assert contents(outputs) == expected
    model = PortableSegmenter()
    assert run(raster, other, outputs, model, stretch="percentile")["encodings_reused"] == 0
    assert model.tiles == cold["tiles"]


def test_stored_encodings_of_something_else_are_encoded_again(wide, outputs, private_home, patient_cache):
    raster, marks = wide
    result = run(raster, marks, outputs, PortableSegmenter())
    stored = sorted((private_home / "cache" / "encodings").glob("*/*"))
    assert len(stored) == result["tiles"]
    write_tensors(stored[0], {"foreign": torch.zeros(3)})
    model = PortableSegmenter()
    assert run(raster, marks, outputs, model)["encodings_reused"] == result["tiles"] - 1
    assert model.tiles == 1 and run(raster, marks, outputs, PortableSegmenter())["encodings_reused"] == result["tiles"]


KILLED = """
import os, sys, time
from tests.engine import stand_ins
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import from_dict
from refsam_qgis.engine.segment import run_segment

class CoarseSegmenter(stand_ins.CoarseSegmenter):
    def encode(self, images, valid):
        if self.tiles == 12:
            os.kill(os.getpid(), 9)
        return super().encode(images, valid)

import json
run_segment(from_dict(json.load(sys.stdin)), SilentReporter(), lambda _: CoarseSegmenter())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_goes_on_to_the_same_bytes(wide, outputs):
    raster, marks = wide
    source = ReferenceSource(marks, class_field="kind")
    job = SegmentJob(raster, source, outputs, raster=RasterOptions(tile_size=224))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], input=json.dumps(to_dict(job)), text=True, cwd=ROOT,
        env={**os.environ, **threads},
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert not any(Path(path).exists() for path in (outputs.mask, outputs.probability, outputs.polygons))
    result = run_segment(job, Recorder(), lambda _: CoarseSegmenter())
    resumed = contents(outputs)
    assert result["tiles_kept"] >= 11  # the twelfth may not have been written yet
    assert run_segment(job, Recorder(), lambda _: CoarseSegmenter())["tiles_kept"] == 0
    assert contents(outputs) == resumed
    assert len(list(Path(outputs.mask).parent.iterdir())) == 4


def test_bad_paths_are_refused_before_the_model_is_loaded(scene, outputs, tmp_path):
    _, raster, marks = scene

    def load(options):
        raise AssertionError("loaded")

    cases = [
        (SegmentOutputs(polygons=marks), "also an input"),
        (SegmentOutputs(mask=raster), "also an input"),
        (SegmentOutputs(mask=str(tmp_path / "no" / "m.tif")), "does not exist; create it"),
        (SegmentOutputs(mask=outputs.mask, probability=outputs.mask), "another output"),
    ]
    for bad, sentence in cases:
        with pytest.raises(RefSAMError, match=sentence):
            run_segment(SegmentJob(raster, ReferenceSource(marks), bad), Recorder(), load)
    with pytest.raises(RefSAMError, match="choose an extent that overlaps the raster"):
        run_segment(SegmentJob(raster, ReferenceSource(marks), outputs, extent=(0, 0, 1, 1)), Recorder(), load)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8(scene, outputs, tmp_path):
    """Of the raster: a sentence. Of the weights, which can be read: written so that the same name is read again."""
    _, raster, marks = scene
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    shutil.copy(raster, odd)
    with pytest.raises(RefSAMError, match=r"caf\\udce9\.tif' has a name that is no UTF-8; rename it"):
        run(odd, marks, outputs)
    shutil.copy(COMPACT_SAM, odd)
    job = SegmentJob(raster, ReferenceSource(marks), outputs, ModelOptions(checkpoint=odd))
    run_segment(job, Recorder(), lambda _: CoarseSegmenter())
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert report["job"]["model"]["checkpoint"] == odd


def test_what_a_virtual_raster_consists_of_is_never_replaced(scene, outputs, write_virtual, tmp_path):
    """Neither the input nor the raster of the marks, however many virtual rasters lie between."""
    image, raster, marks = scene
    name = os.path.basename(raster)
    inner = write_virtual(name, "inner.vrt", image.shape)
    virtual = write_virtual("inner.vrt", "outer.vrt", image.shape)
    content = Path(raster).read_bytes()
    other = str(tmp_path / "other.tif")
    shutil.copy(raster, other)
    for read, source in ((inner, None), (virtual, None), (other, virtual)):
        job = SegmentJob(read, ReferenceSource(marks, source), SegmentOutputs(mask=raster))
        with pytest.raises(RefSAMError, match="also an input"):
            run_segment(job, Recorder(), lambda _: CoarseSegmenter())
    assert Path(raster).read_bytes() == content


@pytest.mark.skipif(not REAL.exists(), reason="the development data are not here")
@pytest.mark.parametrize(
    "name", ["RGB_byte.tif", "naip_2020_rgbn_5m.tif", "hirise_mars_rgb.tif", "deepness_fotomap_2cm_rgba.tif"]
)
def test_real_files(name, write_vector, outputs):
    path = str(REAL / name)
    with rasterio.open(path) as dataset:
        transform, crs = dataset.transform, dataset.crs
        valid = dataset.dataset_mask()[200:650, 150:700] > 0
    marks = write_vector([mark_at(transform, 300, 300, 60)], crs=crs.to_wkt(), kind=["x"])
    left, top = transform * (150, 200)
    right, bottom = transform * (700, 650)
    result = run(path, marks, outputs, tile_size=256, extent=(left, bottom, right, top), min_area=0.0)
    mask = read(outputs.mask)[0]
    assert mask.shape == (450, 550) and np.array_equal(mask == 255, ~valid)
    objects = gpd.read_file(outputs.polygons)
    assert len(objects) == result["object_count"] > 0 and objects.is_valid.all()
    drawn = rasterize(objects.geometry, mask.shape, transform=transform * Affine.translation(150, 200))
    assert np.array_equal(drawn == 1, mask == 1)


def test_no_output_appears_after_a_late_cancel(scene, outputs, monkeypatch):
    _, raster, marks = scene
    reporter = Recorder()
    reporter.cancel_once_reported(monkeypatch)
    with pytest.raises(JobCancelled, match="12 finished tiles are kept"):
        run(raster, marks, outputs, reporter=reporter)
    assert list(Path(outputs.mask).parent.iterdir()) == []
