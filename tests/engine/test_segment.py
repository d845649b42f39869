from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from rasterio.transform import Affine, from_origin
from shapely.geometry import box

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.job import PolygonOptions, RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs
from refsam_qgis.engine.models import checkpoints
from refsam_qgis.engine.segment import run_segment
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, ColourSegmenter, RampSegmenter, Recorder, painted

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "geotiff"


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "résultats 結果"
    folder.mkdir()
    return SegmentOutputs(*(str(folder / name) for name in ("p.gpkg", "m.tif", "q.tif", "r.json")))


@pytest.fixture(autouse=True)
def no_checkpoint(monkeypatch):
    monkeypatch.setattr(checkpoints, "describe_model", lambda options: {"model": options.model})


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
    source = ReferenceSource(marks, class_field="kind")
    job = SegmentJob(raster, source, outputs, raster=reading, polygons=shapes, **options)
    return run_segment(job, reporter or Recorder(), lambda _: model or ColourSegmenter())


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


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
    assert objects["object_id"].tolist() == [1, 2, 3, 4]
    assert objects["class"].tolist() == ["red", "blue", "red", "blue"]
    assert np.allclose(objects["area_m2"], [100, 100, 3000, 4050], rtol=2e-3)
    assert objects.crs.to_epsg() == 32640
    assert result["object_count"] == 4 and result["tiles"] == 12 and result["device"] == "cpu"
    assert [(c["name"], c["object_count"]) for c in result["classes"]] == [("blue", 2), ("red", 2)]
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert report["result"] == result and report["job"]["raster"]["tile_size"] == 224 and report["versions"]["torch"]
    fractions = [fraction for fraction, _, _ in reporter.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert len(list(Path(outputs.mask).parent.iterdir())) == 4


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


@pytest.mark.parametrize(("tile_size", "overlap"), [(64, 50), (200, 0), (1000, 12.5), (333, 30)])
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


def test_nothing_found_is_a_valid_empty_layer(scene, outputs):
    _, raster, marks = scene
    result = run(raster, marks, outputs, min_area=1e6)
    objects = gpd.read_file(outputs.polygons, layer="objects")
    assert result["object_count"] == 0 and len(objects) == 0
    assert "area_m2" in objects.columns and objects.crs.to_epsg() == 32640


class Failing(ColourSegmenter):
    def __init__(self, error):
        self._error, self._calls = error, 0

    def encode(self, images, valid):
        self._calls += 1
        if self._calls == 3:
            raise self._error
        return super().encode(images, valid)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"), "memory"),
        (RuntimeError("a fault of ours"), None),
    ],
)
def test_a_failure_leaves_nothing(scene, outputs, error, code):
    _, raster, marks = scene
    with pytest.raises(RefSAMError if code else RuntimeError) as caught:
        run(raster, marks, outputs, Failing(error))
    assert getattr(caught.value, "code", None) == code
    assert list(Path(outputs.mask).parent.iterdir()) == []


def test_cancelling_leaves_nothing(scene, outputs):
    _, raster, marks = scene
    with pytest.raises(JobCancelled):
        run(raster, marks, outputs, reporter=Recorder(cancel_after=5))
    assert list(Path(outputs.mask).parent.iterdir()) == []


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
    with pytest.raises(RefSAMError, match="holds no pixel"):
        run_segment(SegmentJob(raster, ReferenceSource(marks), outputs, extent=(0, 0, 1, 1)), Recorder(), load)


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
    result = run(path, marks, outputs, tile_size=256, extent=(left, bottom, right, top))
    mask = read(outputs.mask)[0]
    assert mask.shape == (450, 550) and np.array_equal(mask == 255, ~valid)
    objects = gpd.read_file(outputs.polygons)
    assert len(objects) == result["object_count"] > 0 and objects.is_valid.all()
    drawn = rasterize(objects.geometry, mask.shape, transform=transform * Affine.translation(150, 200))
    assert np.array_equal(drawn == 1, mask == 1)
