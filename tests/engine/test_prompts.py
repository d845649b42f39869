from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from rasterio.transform import Affine
from shapely.geometry import LineString, MultiPoint, Point, box

from benchmarks.accuracy.sam_reference import as_pixels, segment_anything_own
from refsam_qgis.engine import prompt_layers
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import ObjectOutputs, PolygonOptions, PromptsJob, RasterOptions
from refsam_qgis.engine.prompt_layers import PromptedObject, read_prompts
from refsam_qgis.engine.prompts import prompt_windows, run_prompts
from refsam_qgis.engine.rasters.source import RasterSource
from tests.engine.models.test_promptable import picture
from tests.engine.pocket_sam import pocket_sam
from tests.engine.prompt_stand_in import PatchPrompter
from tests.engine.stand_ins import BLUE, GROUND, HALF_METRE, RED, UTM, Recorder, painted

PATCHES = [(slice(40, 60), slice(30, 60)), (slice(100, 140), slice(200, 260)), (slice(150, 154), slice(20, 24))]


@pytest.fixture
def outputs(tmp_path):
    folder = tmp_path / "résultats 結果"
    folder.mkdir()
    return ObjectOutputs(*(str(folder / name) for name in ("p.gpkg", "m.tif", "r.json")))


@pytest.fixture
def model(monkeypatch):
    stand_in = PatchPrompter()
    monkeypatch.setattr("refsam_qgis.engine.prompts.load_promptable", lambda options, load: stand_in)
    return stand_in


@pytest.fixture
def scene(write_raster):
    """Three patches on ground, 30 by 20, 60 by 40 and 4 by 4 pixels."""
    image = painted(200, 300, [(*patch, colour) for patch, colour in zip(PATCHES, (RED, BLUE, RED), strict=True)])
    return write_raster(image, "bild 影像.tif")


def at(*pixels, transform=HALF_METRE):
    return [Point(transform * pixel) for pixel in pixels]


def rectangle(x0, y0, x1, y1, transform=HALF_METRE):
    return shapely.transform(box(x0, y0, x1, y1), lambda x, y: transform * (x, y), interleaved=False)


def run(raster, outputs, reporter=None, tile_size=0, simplify=0.0, min_area=0.0, **options):
    job = PromptsJob(
        raster, outputs=outputs, raster=RasterOptions(tile_size=tile_size),
        polygons=PolygonOptions(simplify=simplify, min_area=min_area), **options,
    )  # fmt: skip
    return run_prompts(job, reporter or Recorder(), lambda options: None)


def truth(*chosen):
    mask = np.zeros((200, 300), np.int32)
    for number, index in chosen:
        mask[PATCHES[index]] = number
    return mask


def mask_of(outputs):
    with rasterio.open(outputs.mask) as dataset:
        return dataset.read(1)


def test_the_outputs_are_whole_and_right(scene, outputs, model, write_vector):
    points = write_vector(at((210.5, 120.5), (22, 152)), "punkte.gpkg")
    boxes = write_vector([rectangle(25, 35, 65, 65)], "kästen.gpkg")
    reporter = Recorder()
    result = run(scene, outputs, reporter, points=points, boxes=boxes)
    with rasterio.open(outputs.mask) as mask, rasterio.open(scene) as source:
        assert np.array_equal(mask.read(1), truth((1, 0), (2, 1), (3, 2)))
        assert (mask.crs, mask.transform, mask.dtypes) == (source.crs, source.transform, ("int32",))
    objects = gpd.read_file(outputs.polygons, layer="objects")
    assert list(objects.columns) == ["object_id", "score", "stability", "area_m2", "geometry"]
    assert objects["object_id"].tolist() == [1, 2, 3] and objects.crs.to_epsg() == 32640
    assert np.allclose(objects["area_m2"], [150, 600, 4], rtol=2e-3) and objects.is_valid.all()
    assert np.allclose(objects["score"], 0.9) and (objects["stability"] == 1).all()
    assert (result["object_count"], result["prompted"], result["windows"], result["device"]) == (3, 3, 1, "cpu")
    report = json.loads(Path(outputs.report).read_text(encoding="utf-8"))
    assert report["model"]["adapters"] is None
    assert report["result"] == result and report["job"]["boxes"] == boxes and report["windows"][0]["objects"] == 3
    fractions = [fraction for fraction, _, _ in reporter.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert len(list(Path(outputs.mask).parent.iterdir())) == 3


def test_bands_that_nothing_names_are_told(scene, outputs, model, write_raster, write_vector):
    with rasterio.open(scene) as dataset:
        four = write_raster(dataset.read([1, 2, 3, 1]), "four.tif", photometric="minisblack")
    reporter = Recorder()
    run(four, outputs, reporter, points=write_vector(at((22, 152)), "points.gpkg"))
    assert "Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands." in reporter.messages


def test_one_tile_equals_segment_anything(outputs, write_raster, write_vector):
    image = picture(150, 200)
    raster = write_raster(image, "one.tif")
    places = [(60.5, 70.5), (150.25, 20.75), (20.5, 120.5)]
    points = write_vector(at(*places), "points.gpkg", label=[1, 0, 1], object=["a", "a", "b"])
    boxes = write_vector([rectangle(10, 20, 90, 110)], "boxes.gpkg", object=["a"])

    class Loaded:
        sam = pocket_sam()

    options = {"points": points, "boxes": boxes, "label_field": "label", "object_field": "object"}
    run_prompts(PromptsJob(raster, outputs=outputs, **options), Recorder(), lambda options: Loaded())
    predictor = segment_anything_own().SamPredictor(pocket_sam())
    predictor.set_image(as_pixels(image))
    # Their pixel (0, 0) is the middle of the first pixel.
    masks, ious, _ = predictor.predict(
        np.array(places[:2]) - 0.5, np.array([1, 0]), np.array([9.5, 19.5, 89.5, 109.5]), multimask_output=False
    )
    single, rated, _ = predictor.predict(np.array(places[2:]) - 0.5, np.array([1]), multimask_output=True)
    expected = [(masks[0], ious[0]), (single[rated.argmax()], rated.max())]
    objects = gpd.read_file(outputs.polygons)
    assert objects["object_id"].tolist() == [1, 2]
    for (mask, score), outline, found in zip(expected, objects.geometry, objects["score"], strict=True):
        drawn = rasterio.features.geometry_mask([outline], (150, 200), HALF_METRE, invert=True)
        assert 0 < mask.sum() < mask.size and np.array_equal(drawn, mask) and found == pytest.approx(score, abs=1e-4)


def test_labels_boxes_and_objects_are_put_together(scene, outputs, model, write_vector):
    points = write_vector(
        at((45, 50), (230, 120), (40, 45), (21, 151), (120, 20)), "p.gpkg",
        label=["Yes", "1", "False", "TRUE", "0"], object=["10", "9", "10", "x", "9"],
    )  # fmt: skip
    boxes = write_vector([rectangle(30, 40, 50, 50), rectangle(45, 45, 60, 60)], "b.gpkg", object=["10", "10"])
    run(scene, outputs, points=points, boxes=boxes, label_field="label", object_field="object")
    assert np.array_equal(mask_of(outputs), truth((1, 1), (2, 0), (3, 2)))
    asked = {(p.points.shape[1], p.boxes is not None): (p, three) for p, three in model.asked}
    both, three = asked[2, True]
    assert both.points[0].tolist() == [[44.5, 49.5], [39.5, 44.5]] and both.labels[0].tolist() == [1, 0]
    assert both.boxes[0].tolist() == [29.5, 39.5, 59.5, 59.5] and not three
    alone, three = asked[1, False]
    assert alone.labels.tolist() == [[1]] and three


def test_without_an_object_field_boxes_take_their_points(scene, outputs, model, write_vector):
    points = write_vector(at((45, 50), (22, 152), (28, 150), (270, 130)), "p.gpkg", label=[0, 1, 0, 0])
    boxes = write_vector([rectangle(30, 40, 60, 60), rectangle(200, 100, 260, 140)], "b.gpkg")
    run(scene, outputs, points=points, boxes=boxes, label_field="label")
    assert np.array_equal(mask_of(outputs), truth((1, 0), (2, 1), (3, 2)))
    labels = sorted((p.boxes is not None, p.labels.tolist()) for p, _ in model.asked)
    assert labels == [(False, [[1, 0]]), (True, [[0], [0]])]


def test_own_numbers_are_kept(scene, outputs, model, write_vector):
    points = write_vector(at((45, 50), (230, 120)), "p.gpkg", object=[700, 12])
    run(scene, outputs, points=points, object_field="object")
    assert np.array_equal(mask_of(outputs), truth((700, 0), (12, 1)))
    assert gpd.read_file(outputs.polygons)["object_id"].tolist() == [12, 700]


def test_objects_come_in_the_order_of_their_numbers_whatever_that_of_their_windows(scene, outputs, model, write_vector):
    points = write_vector(at((22, 152), (230, 120), (45, 50)), "p.gpkg")
    assert run(scene, outputs, points=points, tile_size=64)["windows"] == 3
    assert gpd.read_file(outputs.polygons)["object_id"].tolist() == [1, 2, 3]
    assert mask_of(outputs)[[152, 120, 50], [22, 230, 45]].tolist() == [1, 2, 3]


def test_prompts_far_apart_are_no_matter_where_the_whole_raster_is_a_window():
    far = PromptedObject(1, np.array([[10.0, 10.0], [5000.0, 7000.0]]), np.ones(2, np.int64), None)
    ((window, objects),) = prompt_windows([far], (8000, 6000), 0)
    assert (window.col_off, window.row_off, window.width, window.height) == (0, 0, 6000, 8000) and objects == [far]
    with pytest.raises(RefSAMError, match="6990 pixels apart"):
        prompt_windows([far], (8000, 8200), 0)


def test_points_of_one_feature_are_one_object(scene, outputs, model, write_vector):
    points = write_vector([MultiPoint([*at((45, 50)), *at((50, 55))])], "p.gpkg")
    assert run(scene, outputs, points=points)["object_count"] == 1
    assert model.asked[0][0].points.shape == (1, 2, 2)


def many_prompts(write_raster, write_vector, count):
    """A raster with as many boxes and points, half of them beside an object, in pixels and as layers."""
    random = np.random.default_rng(count)
    corners, places = random.integers(0, 180, (2, count, 2))
    boxes = [(x, y, x + 9, y + 9) for x, y in corners.tolist()]
    labels = random.integers(0, 2, count).tolist()
    names = [f"n{i}" for i in range(count)]
    raster = write_raster(np.zeros((3, 200, 200), np.uint8), f"{count}.tif")
    points = write_vector(at(*places.tolist()), f"p{count}.gpkg", label=labels, object=names)
    layer = write_vector([rectangle(*box) for box in boxes], f"b{count}.gpkg", object=names)
    job = PromptsJob(raster, points=points, boxes=layer, label_field="label", outputs=ObjectOutputs(mask="m.tif"))
    return job, boxes, places, labels


def test_boxes_hold_the_points_in_them_and_others_go_to_the_nearest(write_raster, write_vector):
    """Independent: the rule word by word, for every pair. Whole numbers: many lie on borders, many equally far."""
    job, boxes, places, labels = many_prompts(write_raster, write_vector, 60)
    with RasterSource(job.input) as raster:
        found = read_prompts(job, raster, SilentReporter())
    inside = [[x0 <= x <= x1 and y0 <= y <= y1 for x, y in places] for x0, y0, x1, y1 in boxes]
    expected = [[i for i, held in enumerate(row) if held] for row in inside]
    loose = [i for i in range(60) if not any(row[i] for row in inside)]
    frames = [*boxes, *([*places[i], *places[i]] for i in loose if labels[i])]
    expected += [[i] for i in loose if labels[i]]
    for i in loose:
        if not labels[i]:
            x, y = places[i]
            reach = [np.hypot(max(x0 - x, x - x1, 0), max(y0 - y, y - y1, 0)) for x0, y0, x1, y1 in frames]
            expected[int(np.argmin(reach))].append(i)
    assert any(len(of) > 1 for of in expected[:60]) and len(expected) > 60 and len(loose) > len(expected) - 60
    assert [item.object_id for item in found] == list(range(1, len(expected) + 1))
    for item, of, frame in zip(found, expected, frames, strict=True):
        assert item.points.round(6).tolist() == places[of].tolist() and item.labels.tolist() == [labels[i] for i in of]
        assert item.box is None if frame not in boxes else item.box == pytest.approx(frame)


@pytest.mark.parametrize("object_field", [None, "object"])
def test_the_work_grows_with_the_prompts_not_with_their_pairs(write_raster, write_vector, object_field):
    def steps(count):
        """Lines of the module that run."""
        job = replace(many_prompts(write_raster, write_vector, count)[0], object_field=object_field)
        job = job if object_field is None else replace(job, label_field=None)
        seen = 0

        def trace(frame, event, argument):
            nonlocal seen
            if frame.f_code.co_filename != prompt_layers.__file__:
                return None
            seen += event == "line"
            return trace

        with RasterSource(job.input) as raster:
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                read_prompts(job, raster, SilentReporter())
            finally:
                sys.settrace(before)
        return seen

    assert steps(400) < 5 * steps(100)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", None])
def test_prompts_in_another_crs(scene, outputs, model, write_vector, crs):
    shapes = gpd.GeoSeries(at((45, 50)), crs=UTM)
    shapes = shapes.to_crs(crs) if crs else shapes
    reporter = Recorder()
    run(scene, outputs, reporter, points=write_vector(list(shapes), "p.gpkg", crs=crs))
    assert np.array_equal(mask_of(outputs), truth((1, 0)))
    assert any("no CRS" in message for message in reporter.messages) == (crs is None)


def test_rotated_raster(write_raster, outputs, model, write_vector):
    transform = HALF_METRE * Affine.rotation(30)
    raster = write_raster(painted(200, 300, [(*PATCHES[1], BLUE)]), transform=transform)
    run(raster, outputs, boxes=write_vector([rectangle(190, 90, 270, 150, transform)], "b.gpkg"))
    assert np.array_equal(mask_of(outputs), truth((1, 1)))
    assert gpd.read_file(outputs.polygons)["area_m2"][0] == pytest.approx(600, rel=2e-3)


def test_the_better_score_wins_and_the_mask_shows_what_is_kept(scene, outputs, model, write_vector, monkeypatch):
    points = write_vector(at((45, 50), (46, 50), (22, 152)), "p.gpkg", object=[1, 2, 3])
    predict = model.predict

    def rated(image, asked, multimask):
        logits, rating = predict(image, asked, multimask)
        return logits, rating + torch.tensor([[-0.4], [-0.1], [0.0]])

    monkeypatch.setattr(model, "predict", rated)
    result = run(scene, outputs, points=points, object_field="object", min_area=10)
    assert np.array_equal(mask_of(outputs), truth((2, 0))) and result["object_count"] == 2


def test_an_object_in_the_hole_of_another_leaves_its_outline_as_if_it_were_alone(
    write_raster, outputs, model, write_vector
):
    ring = painted(200, 300, [(slice(40, 80), slice(40, 80), RED), (slice(50, 70), slice(50, 70), GROUND),
                              (slice(55, 65), slice(55, 65), BLUE)])  # fmt: skip
    points = write_vector(at((45, 45), (60, 60)), "p.gpkg")
    shapes = PolygonOptions(fill_holes=200.0)
    run_prompts(PromptsJob(write_raster(ring), points=points, outputs=outputs, polygons=shapes), Recorder(), None)
    assert gpd.read_file(outputs.polygons)["area_m2"].tolist() == pytest.approx([400, 25], rel=2e-3)


def test_nothing_found_is_a_valid_result(scene, outputs, model, write_vector):
    reporter = Recorder()
    result = run(scene, outputs, reporter, points=write_vector(at((5, 5)), "p.gpkg"))
    assert result["object_count"] == 0 and result["area_m2"] == 0 and not mask_of(outputs).any()
    assert len(gpd.read_file(outputs.polygons)) == 0 and "nothing at the prompts of 1 of 1" in reporter.messages[0]


def test_nodata_is_no_part_of_objects(write_raster, outputs, model, write_vector):
    image = painted(200, 300, [(*PATCHES[0], RED)])
    image[:, 40:50, 30:60] = 0
    run(write_raster(image, nodata=0), outputs, points=write_vector(at((45, 55)), "p.gpkg"))
    mask = mask_of(outputs)
    assert mask.sum() == 300 and mask[50:60, 30:60].all()


def test_what_is_drawn_over_nodata_is_no_part_of_objects(write_raster, outputs, model, write_vector, monkeypatch):
    predict = model.predict

    def spilled(image, asked, multimask):
        logits, rating = predict(image, asked, multimask)
        return torch.nn.functional.max_pool2d(logits, 21, 1, 10), rating

    monkeypatch.setattr(model, "predict", spilled)
    image = painted(200, 300, [(*PATCHES[0], RED)])
    image[:, :, :28] = 0
    run(write_raster(image, nodata=0), outputs, points=write_vector(at((45, 50)), "p.gpkg"))
    expected = np.zeros((200, 300), bool)
    expected[30:70, 28:70] = True
    assert np.array_equal(mask_of(outputs) > 0, expected)


def test_no_output_appears_after_a_late_cancel(scene, outputs, model, write_vector, monkeypatch):
    reporter = Recorder()
    reporter.cancel_once_reported(monkeypatch)
    with pytest.raises(JobCancelled):
        run(scene, outputs, reporter, points=write_vector(at((45, 50)), "p.gpkg"))
    assert not list(Path(outputs.mask).parent.iterdir())


def test_prompts_beside_the_raster_are_left_out(scene, outputs, model, write_vector):
    reporter = Recorder()
    partly = MultiPoint([*at((-3, 50)), *at((22, 152)), *at((310, 2))])
    # The far edges are no pixels of the raster.
    points = write_vector([*at((45, 50), (-5, 50), (300, 50), (45, 200)), partly], "p.gpkg")
    assert run(scene, outputs, reporter, points=points)["prompted"] == 2
    assert "4 prompts" in reporter.messages[0] and "beside" in reporter.messages[0]
    assert np.array_equal(mask_of(outputs), truth((1, 0), (2, 2)))
    assert [prompts.points.shape[1] for prompts, _ in model.asked] == [1]


def test_a_box_that_only_touches_the_raster_is_left_out(scene, outputs, model, write_vector):
    reporter = Recorder()
    boxes = write_vector([rectangle(300, 10, 320, 30), rectangle(30, 40, 60, 60), rectangle(5, -9, 30, 0)], "b.gpkg")
    assert run(scene, outputs, reporter, boxes=boxes)["prompted"] == 1
    assert "2 prompts" in reporter.messages[0] and np.array_equal(mask_of(outputs), truth((1, 0)))


def test_an_object_reaches_over_its_points_and_its_box():
    points = np.array([[5.0, 50.0], [90.0, 20.0]])
    assert PromptedObject(1, points, np.ones(2, np.int64), (10.0, 30.0, 40.0, 60.0)).bounds == (5, 20, 90, 60)
    assert PromptedObject(1, points[:0], np.ones(0, np.int64), (10.0, 30.0, 40.0, 60.0)).bounds == (10, 30, 40, 60)


def test_prompts_without_an_object_are_left_out(scene, outputs, model, write_vector):
    reporter = Recorder()
    points = write_vector(at((45, 50), (22, 152)), "p.gpkg", object=["b", None])
    boxes = write_vector([rectangle(18, 148, 26, 156), rectangle(200, 100, 260, 140)], "b.gpkg", object=[None, "a"])
    assert run(scene, outputs, reporter, points=points, boxes=boxes, object_field="object")["prompted"] == 2
    assert np.array_equal(mask_of(outputs), truth((1, 1), (2, 0)))
    assert sum("1 prompts" in text and "have no object" in text for text in reporter.messages) == 2


def test_an_object_called_0_is_numbered_anew(scene, outputs, model, write_vector):
    """0 is where the mask holds nothing."""
    run(scene, outputs, points=write_vector(at((45, 50), (230, 120)), "p.gpkg", object=[0, 7]), object_field="object")
    assert np.array_equal(mask_of(outputs), truth((1, 0), (2, 1)))


def test_of_equal_scores_the_first_object_wins(scene, outputs, model, write_vector):
    run(scene, outputs, points=write_vector(at((45, 50), (46, 50), (47, 50)), "p.gpkg"))
    assert np.array_equal(mask_of(outputs), truth((1, 0)))


@pytest.mark.parametrize(
    ("kind", "shapes", "fields", "options", "words"),
    [
        ("points", [Point(0, 0)], {}, {}, "No prompt of"),
        ("points", at((5, 5)), {"a": [1]}, {"label_field": "b"}, "no field 'b'; it has a"),
        ("points", at((5, 5)), {"a": [1]}, {"object_field": "b"}, "no field 'b'; it has a"),
        ("points", at((5, 5), (6, 6)), {"a": ["1", "ship"]}, {"label_field": "a"}, "says 'ship' in feature 2"),
        ("points", at((5, 5), (6, 6)), {"a": ["1", None]}, {"label_field": "a"}, "says nothing in feature 2"),
        ("points", at((5, 5)), {"a": [0]}, {"label_field": "a"}, "only points beside objects"),
        ("points", at((5, 5)), {"a": [0], "o": [4]}, {"label_field": "a", "object_field": "o"}, "Object '4'"),
        ("points", [rectangle(1, 1, 9, 9)], {}, {}, "holds polygons; give a layer of points"),
        ("points", [LineString(at((1, 1), (9, 9)))], {}, {}, "holds linestrings; give a layer of points"),
        ("boxes", at((5, 5)), {}, {}, "holds points; give a layer of rectangles"),
        ("points", [], {}, {}, "is empty; draw points"),
    ],
)
def test_bad_prompts(scene, outputs, model, write_vector, kind, shapes, fields, options, words):
    layer = write_vector(shapes, "bad.gpkg", **fields)
    with pytest.raises(RefSAMError, match=words) as caught:
        run(scene, outputs, **{kind: layer}, **options)
    assert caught.value.code == "input" and not list(Path(outputs.mask).parent.iterdir())


def test_files_that_are_no_prompts(scene, outputs, model, tmp_path):
    with pytest.raises(RefSAMError, match="does not exist"):
        run(scene, outputs, points=str(tmp_path / "no.gpkg"))
    with pytest.raises(RefSAMError, match="cannot be read as a vector"):
        run(scene, outputs, boxes=scene)


def test_outputs_may_not_be_inputs(scene, model, write_vector, write_virtual):
    points = write_vector(at((45, 50)), "p.gpkg")
    with pytest.raises(RefSAMError, match="also an input"):
        run(scene, ObjectOutputs(polygons=points), points=points)
    with pytest.raises(RefSAMError, match="also an input"):
        run(scene, ObjectOutputs(mask=scene), points=points)
    with rasterio.open(scene) as dataset:
        virtual = write_virtual(scene, "virtual.vrt", (dataset.count, *dataset.shape))
    with pytest.raises(RefSAMError, match="also an input"):
        run(virtual, ObjectOutputs(mask=scene), points=points)


def test_cancelling_leaves_nothing(scene, outputs, model, write_vector):
    points = write_vector(at((45, 50), (230, 120)), "p.gpkg")
    with pytest.raises(JobCancelled):
        run(scene, outputs, Recorder(cancel_after=2), points=points)
    assert not list(Path(outputs.mask).parent.iterdir())


def test_reading_prompts_can_be_cancelled(scene, write_vector):
    layer = write_vector([rectangle(25, 35, 65, 65)], "b.gpkg")
    with RasterSource(scene) as raster, pytest.raises(JobCancelled):
        read_prompts(PromptsJob(scene, boxes=layer, outputs=ObjectOutputs("p.gpkg")), raster, Recorder(cancel_after=-1))


def prompted(number, *points, box=None):
    return PromptedObject(number, np.array(points, float).reshape(-1, 2), np.ones(len(points), int), box)


def test_windows_hold_their_prompts_well():
    rng = np.random.default_rng(0)
    objects = [prompted(i, (x, y)) for i, (x, y) in enumerate(rng.uniform(0, (5000, 4000), (200, 2)), 1)]
    objects += [
        prompted(i, box=(x, y, min(x + s, 5000), min(y + s, 4000)))
        for i, (x, y, s) in enumerate(rng.uniform((0, 0, 5), (4900, 3900, 700), (200, 3)), 1000)
    ]
    found = prompt_windows(objects, (4000, 5000), 0)
    assert sum(len(of_window) for _, of_window in found) == 400 and len(found) < 200
    for window, of_window in found:
        right, bottom = window.col_off + window.width, window.row_off + window.height
        assert 0 <= window.col_off and right <= 5000 and 0 <= window.row_off and bottom <= 4000
        for item in of_window:
            x0, y0, x1, y1 = item.bounds
            for low, high, start, stop, size in (
                (x0, x1, window.col_off, right, 5000), (y0, y1, window.row_off, bottom, 4000),
            ):  # fmt: skip
                # An eighth of the window lies around the prompts, but for the raster's own border.
                assert low >= start + (stop - start) / 8 - 1 or start == 0
                assert high <= stop - (stop - start) / 8 + 1 or stop == size
            if item.box is None:
                assert window.width == window.height == 1024
            else:
                reach = max(x1 - x0, y1 - y0)
                assert window.width == 256 or 4 * reach <= window.width < 8 * reach + 1


def test_windows_of_a_given_side_and_of_small_rasters():
    near = [prompted(1, (100, 100)), prompted(2, (120, 130)), prompted(3, (900, 900))]
    found = prompt_windows(near, (2000, 2000), 300)
    assert [(w.width, len(of)) for w, of in found] == [(300, 2), (300, 1)]
    assert [w.width for w, _ in prompt_windows([prompted(1, (0, 0), (200, 0))], (2000, 2000), 300)] == [600]
    assert [(w.width, w.height) for w, _ in prompt_windows(near, (950, 3000), 1024)] == [(1024, 950)] * 2
    near.append(prompted(4, box=(400, 10, 404, 14)))
    assert [(w.width, w.height) for w, _ in prompt_windows(near, (950, 940), 0)] == [(940, 950)]
    assert len(prompt_windows(near, (950, 940), 256)) == 3
    with pytest.raises(RefSAMError, match="object 7 are 9000 pixels apart"):
        prompt_windows([prompted(7, (0, 0), (9000, 5))], (20000, 20000), 0)
