from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.transform import from_origin

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.failures import explain
from refsam_qgis.engine.folder import run_folder
from refsam_qgis.engine.job import (
    FolderJob,
    ModelOptions,
    PolygonOptions,
    RasterOptions,
    ReferenceSource,
    SegmentJob,
    SegmentOutputs,
    to_dict,
)
from refsam_qgis.engine.references.gather import gather_references
from refsam_qgis.engine.segment import run_segment
from tests.engine.stand_ins import HALF_METRE, RED, CoarseSegmenter, Recorder, painted
from tests.engine.test_segment import mark_at

ROOT = Path(__file__).resolve().parents[2]
READING = RasterOptions(tile_size=128)
SHAPE = (3, 260, 260)


class Loads:
    """Gives one stand-in and counts how often it is asked."""

    def __init__(self, model=None):
        self.model = model or CoarseSegmenter()
        self.count = 0

    def __call__(self, options):
        self.count += 1
        return self.model


def scene(seed, side=260):
    image = painted(side, side, [(slice(40, 60), slice(40, 60), RED), (slice(150, 190), slice(100, 140), RED)])
    noise = np.random.default_rng(seed).integers(0, 30, image.shape, dtype=np.uint8)
    return image + noise


@pytest.fixture
def references(write_raster, write_vector):
    """Marks on a raster that is not searched."""
    raster = write_raster(scene(0), "examples/where.tif")
    return ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)], "examples/marks.gpkg"), raster)


@pytest.fixture
def folder(tmp_path, write_raster):
    """Ten rasters, two of them in a folder inside, and two broken ones."""
    names = [f"bild {number} 影.tif" for number in range(8)] + ["inner/bild 1 影.tif", "inner/b.TIFF"]
    for number, name in enumerate(names):
        write_raster(scene(number), f"in/{name}")
    (tmp_path / "in" / "foreign.tif").write_text("no raster")
    damaged = write_raster(np.random.default_rng(1).integers(0, 256, (3, 400, 400), dtype=np.uint8), "in/half.tif",
                           compress="deflate")  # fmt: skip
    with open(damaged, "r+b") as stream:
        stream.truncate(300_000)
    (tmp_path / "in" / "notes.txt").write_text("not searched")
    return tmp_path / "in"


@pytest.fixture
def few(tmp_path, write_raster):
    """Three rasters and a broken one."""
    for name in ("a.tif", "b 影.tif", "inner/b.TIFF"):
        write_raster(scene(len(name)), f"in/{name}")
    (tmp_path / "in" / "foreign.tif").write_text("no raster")
    return tmp_path / "in"


def job(references, folder, **options):
    options = {"recursive": True, "raster": READING, "output_folder": str(folder.parent / "out"), **options}
    return FolderJob(references, folder=str(folder), **options)


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def failures_of(path):
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_bands_that_nothing_names_are_told_once_for_all_rasters(references, tmp_path, write_raster):
    for name in "abc":
        values = scene(ord(name))
        write_raster(np.concatenate([values, values[:1]]), f"in/{name}.tif", photometric="minisblack")
    reporter = Recorder()
    run_folder(job(references, tmp_path / "in"), reporter, Loads())
    assert [message for message in reporter.messages if "Bands" in message] == [
        "Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands."
    ]


def test_rasters_of_other_data_types_than_the_examples_give_the_same(references, tmp_path, write_raster):
    """What is found of words and shares is what is found of bytes that are stretched."""
    image = scene(3)
    write_raster(image.astype(np.uint16) * 12, "in/words.tif")
    write_raster(image.astype(np.float32) / 256, "in/shares.tif")
    write_raster(image, "in/bytes.tif")
    reporter, masks = Recorder(), {}
    for stretch in ("auto", "percentile"):
        reading = RasterOptions(tile_size=128, stretch=stretch)
        out = tmp_path / stretch
        asked = job(references, tmp_path / "in", raster=reading, output_folder=str(out), probability=True)
        assert run_folder(asked, reporter, Loads())["done"] == 3
        for name in ("words", "shares", "bytes"):
            with rasterio.open(out / f"{name}_probability.tif") as probability:
                masks[stretch, name] = probability.read()
    assert np.array_equal(masks["auto", "words"], masks["percentile", "bytes"])
    assert np.array_equal(masks["auto", "shares"], masks["percentile", "bytes"])
    assert not np.array_equal(masks["auto", "bytes"], masks["percentile", "bytes"])
    told = [message for message in reporter.messages if "contrast" in message]
    assert told == ["The contrast of 8-bit examples is stretched, as that of a raster that is searched is."]
    report = json.loads((tmp_path / "auto" / "words.json").read_text(encoding="utf-8"))
    assert report["references"]["stretch"] == "percentile" and report["input"]["stretched_between"]


def test_ten_of_twelve_are_done_and_two_have_reasons(references, folder, tmp_path):
    reporter, load = Recorder(), Loads()
    asked = job(references, folder, failures=str(tmp_path / "failed.csv"))
    result = run_folder(asked, reporter, load)
    assert (result["done"], result["skipped"], result["failed"]) == (10, 0, 2) and load.count == 1
    reasons = {entry["source"]: entry["reason"] for entry in result["failures"]}
    assert set(reasons) == {"foreign.tif", "half.tif"}
    assert "cannot be read as a raster" in reasons["foreign.tif"] and "cannot be read near row" in reasons["half.tif"]
    assert failures_of(tmp_path / "failed.csv") == result["failures"]
    out = tmp_path / "out"
    stems = {path.relative_to(out).with_suffix("").as_posix() for path in out.rglob("*.gpkg")}
    assert stems == {*(f"bild {n} 影" for n in range(8)), "inner/bild 1 影", "inner/b"}
    for stem in stems:
        assert (out / f"{stem}.tif").is_file() and (out / f"{stem}.json").is_file()
    assert result["object_count"] == sum(len(gpd.read_file(out / f"{stem}.gpkg")) for stem in stems) == 20
    assert [entry["status"] for entry in result["rasters"]].count("done") == 10
    assert result["device"] == "cpu"
    fractions = [fraction for fraction, _, _ in reporter.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert all(left is None or left >= 0 for _, _, left in reporter.events)
    assert any("(3 of " in stage and left is not None for _, stage, left in reporter.events)


def test_images_without_georeference_give_results_that_lie_over_them(references, tmp_path):
    (tmp_path / "in").mkdir()
    for seed in (1, 2):
        Image.fromarray(scene(seed).transpose(1, 2, 0)).save(tmp_path / "in" / f"{seed}.png")
    merged = tmp_path / "merged.gpkg"
    result = run_folder(job(references, tmp_path / "in", pattern="*.png", merged=str(merged)), Recorder(), Loads())
    assert result["done"] == 2
    with rasterio.open(tmp_path / "out" / "1.tif") as mask:
        assert tuple(mask.bounds) == (0, -260, 260, 0)
    assert (
        gpd.read_file(merged).bounds.round(-1).to_numpy().tolist() == [[40, -60, 60, -40], [100, -190, 140, -150]] * 2
    )


def test_results_equal_those_of_the_raster_alone(references, few, tmp_path):
    run_folder(job(references, few, probability=True), Recorder(), Loads())
    outputs = SegmentOutputs(*(str(tmp_path / name) for name in ("p.gpkg", "m.tif", "q.tif", "r.json")))
    alone = SegmentJob(str(few / "inner" / "b.TIFF"), references, outputs, raster=READING)
    run_segment(alone, Recorder(), Loads())
    for one, other in ((outputs.mask, "b.tif"), (outputs.probability, "b_probability.tif")):
        assert Path(one).read_bytes() == (tmp_path / "out" / "inner" / other).read_bytes()
    objects, others = (gpd.read_file(path) for path in (outputs.polygons, tmp_path / "out" / "inner" / "b.gpkg"))
    assert objects.equals(others)
    report = json.loads((tmp_path / "out" / "inner" / "b.json").read_text(encoding="utf-8"))
    assert report["source"] == "inner/b.TIFF" and report["job"]["input"].endswith("b.TIFF")


def test_a_second_run_does_nothing(references, folder, tmp_path):
    asked = job(references, folder, failures=str(tmp_path / "failed.csv"))
    first = run_folder(asked, Recorder(), Loads())
    before = snapshot(tmp_path / "out")
    load = Loads()
    second = run_folder(asked, Recorder(), load)
    assert load.count == 0 and snapshot(tmp_path / "out") == before
    assert (second["done"], second["skipped"], second["failed"]) == (0, 10, 2)
    assert second["failures"] == first["failures"] == failures_of(tmp_path / "failed.csv")
    assert second["object_count"] == first["object_count"] and second["device"] is None


QUIET = """
import json, sys, time
start = time.perf_counter()
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import from_dict
from refsam_qgis.engine.runner import run_job
result = run_job(from_dict(json.load(sys.stdin)), SilentReporter())
print(json.dumps([result["skipped"], "torch" in sys.modules, time.perf_counter() - start]))
"""


def test_a_second_run_needs_no_torch(references, few, tmp_path):
    asked = job(references, few)
    run_folder(asked, Recorder(), Loads())
    document = json.dumps(to_dict(asked))
    done = subprocess.run([sys.executable, "-c", QUIET], input=document, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    skipped, torch_is_loaded, seconds = json.loads(done.stdout)
    assert skipped == 3 and not torch_is_loaded and seconds < 5


def copied_marks(references, tmp_path):
    """The same marks in a new file with other bytes, as the host writes them."""
    copy = tmp_path / "another name.gpkg"
    gpd.read_file(references.vector).to_file(copy, layer="renamed")
    return ReferenceSource(str(copy), references.raster)


def test_what_did_not_change_is_not_done_again(references, few, tmp_path):
    run_folder(job(references, few, origin="a command"), Recorder(), Loads())
    assert json.loads((tmp_path / "out" / "a.json").read_text(encoding="utf-8"))["job"]["origin"] == "a command"
    load = Loads()
    for raster in few.glob("[ab]*.tif"):
        Path(f"{raster}.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")  # as QGIS leaves behind
    with open(tmp_path / "out" / "a.gpkg", "ab") as stream:
        stream.write(bytes(100))  # somebody added to it
    result = run_folder(job(copied_marks(references, tmp_path), few, origin="another command"), Recorder(), load)
    assert (result["done"], result["skipped"], load.count) == (0, 3, 0)


def test_what_lies_in_an_archive_is_done_again_when_it_changed(references, few, tmp_path):
    def pack(raster):
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as packing:
            packing.write(raster, "a.tif")

    asked = FolderJob(
        references, str(tmp_path / "out"), inputs=(f"/vsizip/{tmp_path / 'all.zip'}/a.tif",), raster=READING
    )
    pack(few / "a.tif")
    assert [run_folder(asked, Recorder(), Loads())["done"] for _ in range(2)] == [1, 0]
    pack(few / "b 影.tif")
    assert run_folder(asked, Recorder(), Loads())["done"] == 1


@pytest.mark.parametrize("whose", ["its own", "the examples'"])
def test_what_might_change_unnoticed_is_done_each_time(references, few, tmp_path, whose):
    def hidden(raster):
        return f"/vsisubfile/0_{os.path.getsize(raster)},{raster}"

    raster = str(few / "a.tif")
    if whose == "its own":
        raster = hidden(raster)
    else:
        references = ReferenceSource(references.vector, hidden(references.raster))
    asked = FolderJob(references, str(tmp_path / "out"), inputs=(raster,), raster=READING)
    assert [run_folder(asked, Recorder(), Loads())["done"] for _ in range(2)] == [1, 1]


def touch(folder):
    os.utime(folder / "b 影.tif")


def replace(folder):
    shutil.copy(folder / "a.tif", folder / "b 影.tif")


def lose_mask(folder):
    (folder.parent / "out" / "b 影.tif").unlink()


def lose_polygons(folder):
    (folder.parent / "out" / "b 影.gpkg").unlink()


def shorten_mask(folder):
    path = folder.parent / "out" / "b 影.tif"
    path.write_bytes(path.read_bytes()[:-50])


def lose_report(folder):
    (folder.parent / "out" / "b 影.json").write_text("{")


@pytest.mark.parametrize("change", [touch, replace, lose_mask, lose_polygons, shorten_mask, lose_report])
def test_only_what_is_missing_or_changed_is_done_again(references, few, change):
    run_folder(job(references, few), Recorder(), Loads())
    change(few)
    result = run_folder(job(references, few), Recorder(), Loads())
    assert (result["done"], result["skipped"]) == (1, 2)
    assert [entry["source"] for entry in result["rasters"] if entry["status"] == "done"] == ["b 影.tif"]


@pytest.mark.parametrize(
    "change",
    [
        "threshold",
        "marks",
        "redo",
        "tile_size",
        "polygons",
        "separate",
        "probability",
        "annotation",
        "weights",
        "RefSAM",
    ],
)
def test_what_concerns_all_is_done_again_for_all(references, few, write_vector, tmp_path, monkeypatch, change):
    run_folder(job(references, few), Recorder(), Loads())
    options = {"threshold": {"threshold": 0.4}, "redo": {"redo": True}, "separate": {"separate": 0.2},
               "tile_size": {"raster": RasterOptions(tile_size=100)}, "probability": {"probability": True},
               "polygons": {"polygons": PolygonOptions(simplify=1.0)}}  # fmt: skip
    if change == "weights":
        (tmp_path / "own.safetensors").write_bytes(b"others")
        options["weights"] = {"model": ModelOptions(adapters=str(tmp_path / "own.safetensors"))}
    if change == "RefSAM":
        monkeypatch.setattr("refsam_qgis.engine.folder_tasks.__version__", "another")
    if change == "marks":
        other = write_vector([mark_at(HALF_METRE, 40, 40), mark_at(HALF_METRE, 105, 155)], "more.gpkg")
        references = ReferenceSource(other, references.raster)
    if change == "annotation":
        references = ReferenceSource(references.vector, references.raster, annotation="partial")
    result = run_folder(job(references, few, **options.get(change, {})), Recorder(), Loads())
    assert (result["done"], result["failed"]) == (3, 1)


def test_weights_of_another_name_are_the_same(references, few, tmp_path):
    for name, expected in (("one", (3, 0)), ("two", (0, 3))):
        adapters = tmp_path / f"{name}.safetensors"
        adapters.write_bytes(b"adapters")
        asked = job(references, few, model=ModelOptions(adapters=str(adapters)))
        result = run_folder(asked, Recorder(), Loads())
        assert (result["done"], result["skipped"]) == expected


def test_a_mended_raster_is_done(references, folder, write_raster):
    run_folder(job(references, folder), Recorder(), Loads())
    for name in ("half.tif", "foreign.tif"):
        write_raster(scene(5), f"in/{name}")
    result = run_folder(job(references, folder), Recorder(), Loads())
    assert (result["done"], result["skipped"], result["failed"]) == (2, 10, 0)


def test_results_of_equal_stems_do_not_collide(references, tmp_path, write_raster):
    for name in ("a.tif", "a.tiff", "sub/a.tif", "a_tiff.tif", "b.tif", "b_probability.tif", "A.TIF"):
        write_raster(scene(len(name)), f"in/{name}")
    asked = job(references, tmp_path / "in", probability=True)
    result = run_folder(asked, Recorder(), Loads())
    written = [path for entry in result["rasters"] for path in entry["outputs"].values()]
    assert result["done"] == 7 and len({path.lower() for path in written}) == len(written) == 28
    assert run_folder(asked, Recorder(), Loads())["skipped"] == 7


def test_rasters_of_a_list(references, folder, tmp_path):
    paths = [str(folder / "bild 1 影.tif"), str(folder / "inner" / "bild 1 影.tif"), str(folder / "bild 2 影.tif"),
             str(folder / "missing.tif"), str(folder / "bild 2 影.tif")]  # fmt: skip
    asked = FolderJob(references, str(tmp_path / "out"), inputs=tuple(paths), raster=READING)
    result = run_folder(asked, Recorder(), Loads())
    assert (result["done"], result["failed"]) == (3, 1)
    assert "missing.tif' does not exist" in result["failures"][0]["reason"]
    names = [entry["source"] for entry in result["rasters"]]
    assert names == [paths[0], "bild 2 影.tif", paths[1], "missing.tif"]
    assert len(list((tmp_path / "out").glob("*.gpkg"))) == 3


def test_results_of_tables_have_names_that_every_system_takes(references, tmp_path, write_raster):
    """Windows shows in no folder what is written after a colon."""
    path, file = str(tmp_path / "many.gpkg"), write_raster(scene(1), "roofs.tif")
    with rasterio.open(file) as dataset:
        for table in ("NORTH", "SOUTH"):
            options = {"RASTER_TABLE": table, "TILE_FORMAT": "PNG", "APPEND_SUBDATASET": Path(path).exists()}
            rasterio.shutil.copy(dataset, path, driver="GPKG", **options)
    tables = (f"GPKG:{path}:NORTH", f"GPKG:{path}:SOUTH")
    asked = FolderJob(references, str(tmp_path / "out"), inputs=(*tables, file), raster=READING)
    assert run_folder(asked, Recorder(), Loads())["done"] == 3
    stems = {path.stem for path in (tmp_path / "out").glob("*.gpkg")}
    assert stems == {"many", "many_gpkg_SOUTH", "roofs"}
    assert run_folder(asked, Recorder(), Loads())["skipped"] == 3


def test_the_merged_layer_names_its_sources(references, folder, tmp_path):
    merged = tmp_path / "merged.gpkg"
    asked = job(references, folder, merged=str(merged))
    result = run_folder(asked, Recorder(), Loads())
    layer = gpd.read_file(merged)
    assert len(layer) == result["object_count"] == 20
    assert layer.groupby("source").size().to_dict() == {
        entry["source"]: 2 for entry in result["rasters"] if entry["status"] == "done"
    }
    alone = gpd.read_file(tmp_path / "out" / "inner" / "b.gpkg")
    same = layer[layer["source"] == "inner/b.TIFF"].drop(columns="source").reset_index(drop=True)
    assert same.equals(alone)
    merged.unlink()
    assert run_folder(asked, Recorder(), Loads())["done"] == 0
    assert gpd.read_file(merged).equals(layer)


def test_rasters_in_another_crs_are_merged_in_the_first_ones(references, folder, tmp_path, write_raster):
    for name in folder.glob("*.*"):
        name.unlink()
    shutil.rmtree(folder / "inner")
    write_raster(scene(1), "in/a.tif")
    write_raster(scene(2), "in/b.tif", crs="EPSG:32639", transform=from_origin(920000, 2795000, 0.5, 0.5))
    reporter = Recorder()
    run_folder(job(references, folder, merged=str(tmp_path / "m.gpkg")), reporter, Loads())
    layer = gpd.read_file(tmp_path / "m.gpkg")
    alone = gpd.read_file(tmp_path / "out" / "b.gpkg")
    assert layer.crs.to_epsg() == 32640 and alone.crs.to_epsg() == 32639
    moved = alone.to_crs(32640).geometry
    assert moved.geom_equals_exact(layer[layer["source"] == "b.tif"].geometry, 1e-6, align=False).all()
    said = (
        "The merged polygons are in the CRS of 'a.tif'; those of rasters in another one (1) were transformed into it."
    )
    assert said in reporter.messages


@pytest.mark.parametrize("first", [True, False])
def test_rasters_without_a_crs_are_not_merged_with_others(references, tmp_path, write_raster, first):
    names = ("a.tif", "b.tif") if first else ("b.tif", "a.tif")
    write_raster(scene(1), f"in/{names[0]}", crs=None)
    write_raster(scene(2), f"in/{names[1]}")
    write_raster(scene(3), "in/c.tif", crs="EPSG:32639", transform=from_origin(920000, 2795000, 0.5, 0.5))
    reporter = Recorder()
    result = run_folder(job(references, tmp_path / "in", merged=str(tmp_path / "m.gpkg")), reporter, Loads())
    layer = gpd.read_file(tmp_path / "m.gpkg")
    assert result["done"] == 3 and set(layer["source"]) == {names[1], "c.tif"} and layer.crs.to_epsg() == 32640
    (left_out,) = result["not_merged"]
    assert left_out["source"] == names[0] and "has no CRS" in left_out["reason"]
    assert f"'{names[0]}': {left_out['reason']}" in reporter.messages
    assert any("another one (1) were transformed" in message for message in reporter.messages)


def test_rasters_without_a_crs_are_merged_with_their_like(references, tmp_path, write_raster):
    for number in (1, 2):
        write_raster(scene(number), f"in/{number}.tif", crs=None)
    result = run_folder(job(references, tmp_path / "in", merged=str(tmp_path / "m.gpkg")), Recorder(), Loads())
    assert len(gpd.read_file(tmp_path / "m.gpkg")) == result["object_count"] == 4 and result["not_merged"] == []


def test_a_raster_on_a_grid_of_its_own_does_not_stop_the_merging(references, few, tmp_path, write_raster):
    write_raster(scene(3), "in/site.tif", crs='LOCAL_CS["site",UNIT["metre",1]]')
    reporter = Recorder()
    asked = job(references, few, merged=str(tmp_path / "m.gpkg"), failures=str(tmp_path / "failed.csv"))
    result = run_folder(asked, reporter, Loads())
    assert (result["done"], result["failed"]) == (4, 1)
    assert set(gpd.read_file(tmp_path / "m.gpkg")["source"]) == {"a.tif", "b 影.tif", "inner/b.TIFF"}
    assert len(failures_of(tmp_path / "failed.csv")) == 1
    (left_out,) = result["not_merged"]
    assert left_out["source"] == "site.tif" and "Nothing is known that leads from its CRS" in left_out["reason"]
    assert f"'site.tif': {left_out['reason']}" in reporter.messages


@pytest.mark.parametrize("what", ["another layer", "other fields", "no geometry", "damaged"])
def test_what_stands_in_the_place_of_polygons_is_left_out_of_the_merged_layer(references, few, tmp_path, what):
    asked = job(references, few, merged=str(tmp_path / "m.gpkg"))
    run_folder(asked, Recorder(), Loads())
    polygons = tmp_path / "out" / "a.gpkg"
    if what == "damaged":
        polygons.write_bytes(b"\0" * os.path.getsize(polygons))
    else:
        frame, layer = gpd.read_file(polygons), "mended" if what == "another layer" else "objects"
        frame = {"other fields": frame[["geometry"]], "no geometry": frame.drop(columns="geometry")}.get(what, frame)
        polygons.unlink()
        pyogrio.write_dataframe(frame, polygons, layer=layer)
        with open(polygons, "ab") as stream:
            stream.write(bytes(100_000))  # no smaller than the result was
    content = polygons.read_bytes()
    reporter = Recorder()
    result = run_folder(asked, reporter, Loads())
    assert (result["done"], result["skipped"]) == (0, 3) and polygons.read_bytes() == content
    assert set(gpd.read_file(tmp_path / "m.gpkg")["source"]) == {"b 影.tif", "inner/b.TIFF"}
    (left_out,) = result["not_merged"]
    assert left_out["source"] == "a.tif" and f"polygons '{polygons}' are damaged or no longer" in left_out["reason"]
    assert f"'a.tif': {left_out['reason']}" in reporter.messages
    polygons.unlink()
    result = run_folder(asked, Recorder(), Loads())
    assert result["done"] == 1 and result["not_merged"] == []


def test_nothing_that_matches_and_no_folder(references, folder):
    with pytest.raises(RefSAMError, match=r"No file in folder '.*in' matches '\*\.jp2'; change the pattern"):
        run_folder(job(references, folder, pattern="*.jp2", recursive=False), Recorder(), Loads())
    with pytest.raises(RefSAMError, match="does not exist; choose another"):
        run_folder(job(references, folder / "none"), Recorder(), Loads())


@pytest.mark.parametrize(
    ("output", "pattern", "recursive", "refused"),
    [
        ("in", "*.tif", False, "is also an input"),
        ("in", "*.TIFF", False, None),
        ("in", "*.TIFF;*.tif", True, "is also an input"),
        ("in/inner", "*.tif", True, None),
        ("in/results", "*.tif;*.tiff", True, None),
        (".", "*.tif", True, None),
    ],
)
def test_results_are_never_searched(references, few, tmp_path, output, pattern, recursive, refused):
    asked = job(references, few, output_folder=str(tmp_path / output), pattern=pattern, recursive=recursive)
    if refused:
        before = snapshot(few)
        with pytest.raises(RefSAMError, match=refused):
            run_folder(asked, Recorder(), Loads())
        assert snapshot(few) == before
        return
    if pattern == "*.TIFF":
        shutil.copy(few / "inner" / "b.TIFF", few / "b.TIFF")
    first = run_folder(asked, Recorder(), Loads())
    second = run_folder(asked, Recorder(), Loads())
    assert (second["done"], second["skipped"]) == (0, first["done"])


def test_results_that_would_be_found_next_time_are_refused(references, few):
    shutil.copy(few / "inner" / "b.TIFF", few / "b.TIFF")
    asked = job(references, few, output_folder=str(few), pattern="b.tif*", recursive=False)
    with pytest.raises(RefSAMError, match=r"take result '.*b\.tif' for a raster"):
        run_folder(asked, Recorder(), Loads())
    assert not (few / "b.tif").exists()


def test_tables_and_results_that_replace_inputs_are_refused(references, few, tmp_path):
    with pytest.raises(RefSAMError, match="also an input"):
        run_folder(job(references, few, merged=references.vector), Recorder(), Loads())
    merged = str(tmp_path / "out" / "a.gpkg")
    with pytest.raises(RefSAMError, match="also an input or another output"):
        run_folder(job(references, few, merged=merged), Recorder(), Loads())
    with pytest.raises(RefSAMError, match=r"a\.gpkg' is also an input or another output"):
        run_folder(job(references, few, further_tables=(merged,)), Recorder(), Loads())
    assert list((tmp_path / "out").rglob("*")) == []
    examples = job(references, few, output_folder=os.path.dirname(references.raster))
    shutil.copy(few / "a.tif", few / "where.tif")
    with pytest.raises(RefSAMError, match=r"where\.tif' is also an input"):
        run_folder(examples, Recorder(), Loads())


@pytest.mark.parametrize("whose", ["its own", "another one's", "the examples'"])
def test_a_raster_whose_result_would_replace_a_part_of_a_raster_fails_alone(references, few, write_virtual, whose):
    write_virtual("a.tif", "in/a.vrt", SHAPE)
    write_virtual("a.vrt", "in/outer.vrt", SHAPE)
    shutil.copy(few / "a.tif", few / "a.TIFF")
    if whose == "the examples'":
        references = ReferenceSource(references.vector, str(few / "outer.vrt"))
    names = {"its own": ["a.vrt"], "another one's": ["a.TIFF", "outer.vrt"]}.get(whose, ["a.TIFF"])
    before = {path: path.read_bytes() for path in few.rglob("*") if path.is_file()}
    searched = [str(few / name) for name in [*names, "inner/b.TIFF"]]
    result = run_folder(FolderJob(references, str(few), inputs=tuple(searched), raster=READING), Recorder(), Loads())
    assert (result["done"], result["failed"]) == (len(names), 1)
    [failure] = result["failures"]
    assert failure["source"] == names[0] and f"'{few / 'a.tif'}' would replace a part of" in failure["reason"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_table_that_would_replace_a_part_of_a_raster_is_refused(references, few, write_virtual):
    part = shutil.copy(few / "a.tif", few / "part.gpkg")
    write_virtual("part.gpkg", "in/whole.vrt", SHAPE)
    with pytest.raises(RefSAMError, match=r"part\.gpkg' is also an input"):
        run_folder(job(references, few, pattern="*.vrt", merged=str(part)), Recorder(), Loads())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_is_one_rasters_own_failure(references, few, tmp_path, write_virtual):
    shutil.copy(few / "a.tif", os.fsencode(few) + b"/A\xe9.tif")
    named = Path(write_virtual("NAME", "in/c.vrt", SHAPE))
    named.write_bytes(named.read_bytes().replace(b"NAME", b"A\xe9.tif"))
    failures, merged = str(tmp_path / "failed.csv"), str(tmp_path / "merged.gpkg")
    asked = job(references, few, pattern="*.tif;*.tiff;*.vrt", failures=failures, merged=merged)
    result = run_folder(asked, Recorder(), Loads())
    assert (result["done"], result["failed"]) == (3, 3)
    reasons = {entry["source"]: entry["reason"] for entry in failures_of(failures)}
    assert set(reasons) == {"A\\udce9.tif", "c.vrt", "foreign.tif"}
    for name in ("A\\udce9.tif", "c.vrt"):
        assert f"{name}' or a file that it names has a name that is no UTF-8; rename it" in reasons[name]


@pytest.mark.parametrize("name", ["a.tif", "a.gpkg", "a.json", "a_probability.tif"])
@pytest.mark.parametrize("redo", [False, True])
def test_files_of_others_are_not_replaced(references, few, tmp_path, name, redo):
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir()
    if name.endswith(".tif"):
        shutil.copy(few / "b 影.tif", theirs)
    elif name.endswith(".gpkg"):
        shutil.copy(references.vector, theirs)
    else:
        theirs.write_text('{"title": "my notes"}')
    content = theirs.read_bytes()
    asked = job(references, few, redo=redo, probability=True)
    for _ in range(2):
        result = run_folder(asked, Recorder(), Loads())
        assert result["failed"] == 2 and theirs.read_bytes() == content
        reasons = {entry["source"]: entry["reason"] for entry in result["failures"]}
        assert f"'{theirs}' is not RefSAM's" in reasons["a.tif"]
        assert sorted((tmp_path / "out").glob("a*")) == [theirs]
    theirs.unlink()
    assert run_folder(asked, Recorder(), Loads())["failed"] == 1


def test_a_report_of_other_files_vouches_for_none_of_its_name(references, few, tmp_path):
    """Of a run on the raster alone, whose polygons have another name: the user's own have that of the report."""
    out = tmp_path / "out"
    out.mkdir()
    outputs = SegmentOutputs(polygons=str(out / "a_found.gpkg"), report=str(out / "a.json"))
    run_segment(SegmentJob(str(few / "a.tif"), references, outputs, raster=READING), Recorder(), Loads())
    theirs = Path(shutil.copy(references.vector, out / "a.gpkg"))
    content = theirs.read_bytes()
    result = run_folder(job(references, few), Recorder(), Loads())
    reasons = {entry["source"]: entry["reason"] for entry in result["failures"]}
    assert f"'{theirs}' is not RefSAM's" in reasons["a.tif"]
    assert theirs.read_bytes() == content


def test_a_report_of_a_failure_vouches_for_itself_alone(references, few, tmp_path):
    whole = (few / "a.tif").read_bytes()
    damage(few / "a.tif")
    run_folder(job(references, few), Recorder(), Loads())
    theirs = Path(shutil.copy(references.vector, tmp_path / "out" / "a.gpkg"))
    content = theirs.read_bytes()
    (few / "a.tif").write_bytes(whole)
    result = run_folder(job(references, few), Recorder(), Loads())
    assert (result["done"], result["skipped"], result["failed"]) == (0, 2, 2) and theirs.read_bytes() == content
    theirs.unlink()
    assert run_folder(job(references, few), Recorder(), Loads())["done"] == 1


@pytest.mark.parametrize("moved", [False, True])
def test_of_what_a_report_lists_the_damaged_is_replaced_and_the_users_is_not(references, few, tmp_path, moved):
    run_folder(job(references, few), Recorder(), Loads())
    out = tmp_path / "out"
    if moved:
        out = out.rename(tmp_path / "elsewhere")
    (out / "a.gpkg").write_bytes((out / "a.gpkg").read_bytes()[:5000])
    shutil.copy(references.vector, out / "b 影.gpkg")
    content = (out / "b 影.gpkg").read_bytes()
    asked = job(references, few, output_folder=str(out), redo=True)
    result = run_folder(asked, Recorder(), Loads())
    assert {entry["source"] for entry in result["failures"]} == {"b 影.tif", "foreign.tif"}
    assert (out / "b 影.gpkg").read_bytes() == content and len(gpd.read_file(out / "a.gpkg")) == 2


def damage(raster):
    """Its head stays, so it opens; its pixels cannot be read."""
    size = os.path.getsize(raster)
    with open(raster, "r+b") as stream:
        stream.truncate(size // 2)


def test_a_raster_that_fails_keeps_no_results_of_its_earlier_content(references, few, tmp_path):
    asked = job(references, few, probability=True)
    run_folder(asked, Recorder(), Loads())
    out = tmp_path / "out"
    for name in ("a.tif.ovr", "a.qml", "a_notes.tif"):
        (out / name).touch()
    others = snapshot(out / "inner")
    damage(few / "a.tif")
    reporter = Recorder()
    result = run_folder(asked, reporter, Loads())
    assert (result["done"], result["skipped"], result["failed"]) == (0, 2, 2)
    assert sorted(path.name for path in out.glob("a*")) == ["a.json", "a.qml", "a_notes.tif"]
    assert "failure" in json.loads((out / "a.json").read_text(encoding="utf-8"))
    assert snapshot(out / "inner") == others and len(list(out.glob("b*"))) == 4
    assert sum("of an earlier run is deleted" in message for message in reporter.messages) == 3


def test_probabilities_of_earlier_content_do_not_stay_beside_newer_results(references, few, tmp_path):
    run_folder(job(references, few, probability=True), Recorder(), Loads())
    os.utime(few / "a.tif", (1, 1))
    result = run_folder(job(references, few), Recorder(), Loads())
    assert (result["done"], result["skipped"]) == (1, 2)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.glob("a*")) == ["a.gpkg", "a.json", "a.tif"]
    assert (out / "b 影_probability.tif").exists()  # of what did not change


@pytest.mark.parametrize("whose", ["another one's", "the user's", "no file of the report's"])
def test_what_refsam_did_not_write_stays_when_a_raster_fails(references, few, tmp_path, write_virtual, whose):
    asked = job(references, few, probability=whose != "no file of the report's", pattern="*.tif;*.vrt")
    run_folder(asked, Recorder(), Loads())
    theirs = tmp_path / "out" / "a_probability.tif"
    if whose == "another one's":  # the part of a raster that is read
        write_virtual(str(theirs), "in/z.vrt", (1, 260, 260))
    elif whose == "the user's":
        shutil.copy(few / "b 影.tif", theirs)
    else:
        shutil.copy(tmp_path / "out" / "a.tif", theirs)
    content = theirs.read_bytes()
    damage(few / "a.tif")
    run_folder(job(references, few, pattern="*.tif;*.vrt"), Recorder(), Loads())
    assert theirs.read_bytes() == content and not (tmp_path / "out" / "a.tif").exists()


def test_a_result_that_is_held_stays_and_is_told(references, few, tmp_path, monkeypatch):
    asked = job(references, few)
    run_folder(asked, Recorder(), Loads())
    damage(few / "a.tif")
    held, unlink = tmp_path / "out" / "a.gpkg", Path.unlink

    def refuse(path, missing_ok=False):
        if path == held:
            raise PermissionError(13, "held", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr("refsam_qgis.engine.folder_results.Path.unlink", refuse)
    reporter = Recorder()
    assert run_folder(asked, reporter, Loads())["failed"] == 2
    assert held.exists() and not (tmp_path / "out" / "a.tif").exists()
    assert any(f"'{held}' of an earlier run is out of date and cannot" in message for message in reporter.messages)


@pytest.mark.parametrize("lost", [("json",), ("json", "tif"), ("json", "gpkg")])
def test_results_without_their_report_are_replaced(references, few, tmp_path, lost):
    """As a run leaves them that is killed before all results have their names."""
    asked = job(references, few, probability=True)
    run_folder(asked, Recorder(), Loads())
    for ending in lost:
        (tmp_path / "out" / f"a.{ending}").unlink()
    result = run_folder(asked, Recorder(), Loads())
    assert (result["done"], result["skipped"], result["failed"]) == (1, 2, 1)


class Breaking(CoarseSegmenter):
    """Fails at some tile."""

    def __init__(self, error, tile):
        super().__init__()
        self._error, self._tile = error, tile

    def encode(self, images, valid):
        encoding = super().encode(images, valid)
        if self.tiles == self._tile:
            raise self._error
        return encoding


def test_an_unforeseen_failure_is_one_rasters_own_and_tried_again(references, few):
    result = run_folder(job(references, few), Recorder(), Loads(Breaking(ValueError("odd"), 12)))
    assert (result["done"], result["failed"]) == (2, 2)
    assert any("unexpected ValueError" in entry["reason"] for entry in result["failures"])
    result = run_folder(job(references, few), Recorder(), Loads())
    assert (result["done"], result["skipped"], result["failed"]) == (1, 2, 1)


def test_results_outlive_a_failure_that_is_not_the_rasters_own(references, few, tmp_path):
    """What is odd in the engine says nothing of the raster, or of what was found in it before."""
    run_folder(job(references, few), Recorder(), Loads())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("a*")}
    os.utime(few / "a.tif")
    result = run_folder(job(references, few), Recorder(), Loads(Breaking(ValueError("odd"), 1)))
    assert (result["skipped"], result["failed"]) == (2, 2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("a*")} == before


@pytest.mark.parametrize(
    ("error", "code"),
    [(MemoryError(), "memory"), (OSError(28, "No space left on device"), "disk"), (ImportError("x"), "environment")],
)
def test_what_every_raster_would_meet_stops_the_run(references, few, tmp_path, error, code):
    with pytest.raises(RefSAMError) as caught:
        run_folder(job(references, few), Recorder(), Loads(Breaking(error, 12)))
    assert caught.value.code == code
    done = len(list((tmp_path / "out").rglob("*.gpkg")))
    assert done == 1
    result = run_folder(job(references, few), Recorder(), Loads())
    assert result["skipped"] == done and result["done"] == 3 - done


@pytest.mark.parametrize("code", ["disk", "checkpoint", "environment", "memory"])
def test_a_sentence_that_stops_the_run_is_not_its_own_cause(references, few, code):
    """Whoever looks for what it was raised from would never come to an end."""
    error = RefSAMError(code, "The whole run fails of this.")
    with pytest.raises(RefSAMError) as caught:
        run_folder(job(references, few), Recorder(), Loads(Breaking(error, 12)))
    assert caught.value is error and error.__cause__ is not error
    assert explain(caught.value) is error


def test_examples_and_weights_that_are_not_there_stop_the_run(references, few, tmp_path):
    gone = ReferenceSource(str(tmp_path / "gone.gpkg"), references.raster)
    with pytest.raises(RefSAMError, match=r"gone\.gpkg' does not exist"):
        run_folder(job(gone, few), Recorder(), Loads())

    def fail(options):
        raise RefSAMError("checkpoint", "There are no weights.")

    with pytest.raises(RefSAMError, match="no weights"):
        run_folder(job(references, few), Recorder(), fail)


@pytest.mark.parametrize(
    ("content", "what"), [(None, "does not exist"), (b"nothing", "cannot be read as a vector data set")]
)
def test_examples_whose_file_is_lost_are_named_without_gdals_advice(few, tmp_path, write_raster, content, what):
    marks = tmp_path / "marks.geojson"
    if content is not None:
        marks.write_bytes(content)
    source = ReferenceSource(str(marks), write_raster(scene(0), "where.tif"))
    with pytest.raises(RefSAMError) as caught:
        run_folder(job(source, few), Recorder(), Loads())
    assert str(caught.value) == f"'{marks}' {what}; give a file of polygons, lines or points."


def test_a_cancelled_run_keeps_what_is_finished_and_goes_on(references, few, tmp_path):
    run_folder(job(references, few, output_folder=str(tmp_path / "undisturbed")), Recorder(), Loads())
    model = CoarseSegmenter()

    class Cancelling(Recorder):
        def is_cancelled(self):
            return model.tiles >= 12

    merged = str(tmp_path / "m.gpkg")
    with pytest.raises(JobCancelled) as caught:
        run_folder(job(references, few, merged=merged), Cancelling(), Loads(model))
    done = len(list((tmp_path / "out").rglob("*.gpkg")))
    assert done == 1 and not os.path.exists(merged)
    assert str(caught.value) == (
        f"The run was cancelled; {done} of 4 rasters are finished, and the next run goes on from there."
    )
    rest = CoarseSegmenter()
    result = run_folder(job(references, few, merged=merged), Recorder(), Loads(rest))
    assert result["skipped"] == done and result["done"] == 3 - done
    fresh = CoarseSegmenter()
    run_folder(job(references, few, redo=True), Recorder(), Loads(fresh))
    assert model.tiles + rest.tiles == fresh.tiles  # no tile of the running raster twice
    for path in (tmp_path / "undisturbed").rglob("*.tif"):
        assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "undisturbed")).read_bytes()


def test_references_are_read_and_described_once(references, few):
    class Counting(CoarseSegmenter):
        described = 0

        def describe(self, shots, encodings=()):
            self.described += 1
            return super().describe(shots)

    model, reporter = Counting(), Recorder()
    run_folder(job(references, few, raster=RasterOptions()), reporter, Loads(model))
    assert model.described == 1


@pytest.mark.parametrize(("marked", "ways"), [(np.uint8, 2), (np.uint16, 1)])
def test_examples_are_cut_once_for_each_way_they_look(tmp_path, write_raster, write_vector, monkeypatch, marked, ways):
    """Those of 16 bits are stretched beside any raster, those of 8 bits beside others of 16 bits alone."""
    for number, kind in enumerate((np.uint8, np.uint16, np.uint8, np.uint16)):
        write_raster(scene(number).astype(kind), f"in/{number}.tif")
    examples = write_raster(scene(0).astype(marked), "examples.tif")
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)]), examples)
    cuts = []

    def cut(*arguments):
        cuts.append(gather_references(*arguments))
        return cuts[-1]

    monkeypatch.setattr("refsam_qgis.engine.session.gather_references", cut)
    done = run_folder(job(source, tmp_path / "in", raster=RasterOptions()), Recorder(), Loads())
    assert done["done"] == 4
    assert len(cuts) == len({one.digest for one in cuts}) == ways


def test_nothing_to_do_is_quick(references, few):
    asked = job(references, few)
    run_folder(asked, Recorder(), Loads())
    started = time.perf_counter()
    run_folder(asked, Recorder(), Loads())
    assert time.perf_counter() - started < 1.5


def test_a_raster_that_is_also_the_reference_is_read_in_the_bands_asked_for(tmp_path, write_raster, write_vector):
    """Bands 4, 1 and 2 hold the picture; the others are noise that hides it."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 260, 260), dtype=np.uint8)

    def four(seed):
        image = scene(seed)
        return np.concatenate([image[1:2], image[2:3], noise, image[0:1]])

    own = write_raster(four(1), "in/own.tif", photometric="minisblack")
    write_raster(four(2), "in/other.tif", photometric="minisblack")
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)]), own)
    reading = RasterOptions(bands=(4, 1, 2), tile_size=128)
    asked = FolderJob(source, str(tmp_path / "out"), folder=str(tmp_path / "in"), raster=reading)
    run_folder(asked, Recorder(), Loads())
    for name in ("own", "other"):
        with rasterio.open(tmp_path / "out" / f"{name}.tif") as mask:
            assert (mask.read(1)[155:185, 105:135] == 1).all()


@pytest.mark.parametrize("bands", [(4, 1, 2), (3, 1, 2)])
def test_a_raster_of_other_bands_in_first_place_spoils_no_other(tmp_path, write_raster, write_vector, bands):
    """The picture is in the bands asked for; what is in the first three alone is none of the examples."""

    def four(seed):
        image = np.random.default_rng(seed).integers(0, 256, (4, 260, 260), dtype=np.uint8)
        image[[band - 1 for band in bands]] = scene(seed)
        return image

    marked = write_raster(four(1), "examples/where.tif", photometric="minisblack")
    write_raster(four(2), "in/b.tif", photometric="minisblack")
    source = ReferenceSource(write_vector([mark_at(HALF_METRE, 40, 40)]), marked)
    reading = RasterOptions(bands=bands, tile_size=128)
    alone = FolderJob(source, str(tmp_path / "alone"), folder=str(tmp_path / "in"), raster=reading)
    run_folder(alone, Recorder(), Loads())
    write_raster(scene(3), "in/a.tif")
    both = FolderJob(source, str(tmp_path / "both"), folder=str(tmp_path / "in"), raster=reading)
    result = run_folder(both, Recorder(), Loads())
    lacks = 4 in bands
    assert (result["done"], result["failed"]) == (1 if lacks else 2, lacks)
    assert (tmp_path / "both" / "b.tif").read_bytes() == (tmp_path / "alone" / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "both" / "b.tif") as mask:
        assert (mask.read(1)[155:185, 105:135] == 1).all()
    assert run_folder(alone, Recorder(), Loads())["skipped"] == 1
