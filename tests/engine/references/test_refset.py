from __future__ import annotations

import datetime
import json
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from PIL import Image
from rasterio.transform import Affine, from_origin
from shapely.geometry import box

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.job import ReferenceSource, RefsetJob, SegmentJob, SegmentOutputs
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND
from refsam_qgis.engine.references import gather as gather_module
from refsam_qgis.engine.references import refset
from refsam_qgis.engine.references.gather import gather_references
from refsam_qgis.engine.references.refset import run_refset
from refsam_qgis.engine.runner import run_job
from tests.engine.stand_ins import BLUE, GROUND, HALF_METRE, RED, UTM, ColourSegmenter, Recorder, painted


def squares(*corners, side=20, transform=HALF_METRE):
    return [
        shapely.transform(box(x, y, x + side, y + side), lambda x, y: transform * (x, y), interleaved=False)
        for x, y in corners
    ]


@pytest.fixture
def scene(write_raster, write_vector):
    """A raster of 400 x 500 with two red squares and a blue one, and layers of marks on them."""
    patches = [
        (slice(100, 120), slice(100, 120), RED),
        (slice(150, 170), slice(160, 180), RED),
        (slice(130, 150), slice(100, 120), BLUE),
    ]
    raster = write_raster(painted(400, 500, patches), "scene.tif")
    marks = write_vector(squares((100, 100), (160, 150), (100, 130)), "marks.gpkg", kind=["red", "red", "blue"])
    return ReferenceSource(marks, raster, class_field="kind")


@pytest.fixture
def coarse(write_raster, write_vector):
    """The same ground at 1 m in longitude and latitude: one red and one green square of 20 m."""
    degrees = from_origin(55.2, 25.2, 1 / 100_700, 1 / 110_800)
    patches = [(slice(40, 60), slice(40, 60), RED), (slice(90, 110), slice(40, 60), (20, 200, 20))]
    raster = write_raster(painted(200, 220, patches), "coarse.tif", crs="EPSG:4326", transform=degrees)
    shapes = gpd.GeoSeries(squares((40, 40), (40, 90), transform=degrees), crs="EPSG:4326").to_crs(UTM)
    return ReferenceSource(write_vector(list(shapes), "coarse.gpkg", kind=["red", "green"]), raster, class_field="kind")


def build(tmp_path, *sources, name="set.refset", reporter=None, **options):
    path = str(tmp_path / name)
    return path, run_refset(RefsetJob(tuple(sources), path, **options), reporter or Recorder())


def gather(path, ground_size=None):
    return gather_references(ReferenceSource(refset=path), "", None, "auto", Recorder(), ground_size)


def marked_colours(shots):
    return np.unique(shots.images.permute(0, 2, 3, 1)[shots.masks == FOREGROUND].numpy(), axis=0).tolist()


def test_examples_on_an_image_without_georeference(tmp_path, write_vector):
    picture = tmp_path / "picture.png"
    Image.fromarray(painted(200, 200, [(slice(40, 80), slice(60, 100), RED)]).transpose(1, 2, 0)).save(picture)
    path, _ = build(tmp_path, ReferenceSource(write_vector([box(60, -80, 100, -40)], crs=None), str(picture)))
    assert marked_colours(gather(path).classes[0].shots) == [list(RED)]


@pytest.mark.parametrize("negatives", [False, True])
def test_a_set_shows_what_the_marks_show(tmp_path, scene, write_vector, negatives):
    if negatives:
        source = ReferenceSource(
            scene.vector, scene.raster, None, "kind", "partial", write_vector(squares((300, 300)), "negatives.gpkg")
        )
    else:
        source = scene
    path, result = build(tmp_path, source)
    marks = gather_references(source, source.raster, None, "auto", Recorder())
    found = gather(path)
    assert found.digest == marks.digest and (found.negative is not None) == negatives
    assert (found.chip_ground_size, found.gsd) == (marks.chip_ground_size, marks.gsd)
    assert [c.name for c in found.classes] == ["blue", "red"]
    for one, expected in zip(found.classes, marks.classes, strict=True):
        for tensor in ("images", "masks", "valid"):
            assert (getattr(one.shots, tensor) == getattr(expected.shots, tensor)).all()
    assert result == {
        "classes": [{"name": "blue", "chips": 1, "chips_added": 1}, {"name": "red", "chips": 1, "chips_added": 1}],
        "negative_chips": int(negatives),
        "chips_added": 2 + negatives,
        "chips_skipped": 0,
        "chip_ground_size": marks.chip_ground_size,
        "outputs": {"refset": path},
    }


def test_segmenting_with_a_set_equals_segmenting_with_the_marks(tmp_path, scene, monkeypatch):
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "home"))
    path, _ = build(tmp_path, scene)
    masks = []
    for name, source in (("marks", scene), ("set", ReferenceSource(refset=path))):
        mask = tmp_path / f"{name}.tif"
        job = SegmentJob(scene.raster, source, SegmentOutputs(mask=str(mask)))
        run_job(job, Recorder(), lambda options: ColourSegmenter())
        masks.append(mask.read_bytes())
    assert masks[0] == masks[1]


def test_bands_that_nothing_names_are_told_once_for_all_rasters(tmp_path, scene, write_raster):
    image = painted(400, 500, [])
    four = [write_raster(np.concatenate([image, image[:1]]), f"{name}.tif", photometric="minisblack") for name in "ab"]
    recorder = Recorder()
    build(tmp_path, *(replace(scene, raster=path) for path in four), reporter=recorder)
    told = "Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands."
    assert recorder.messages.count(told) == 1


def test_rasters_of_other_resolution_and_crs_join(tmp_path, scene, coarse):
    path, result = build(tmp_path, scene, coarse)
    found = gather(path)
    assert [c.name for c in found.classes] == ["blue", "green", "red"]
    blue, green, red = (c.shots for c in found.classes)
    # 10 m and 20 m squares: the median of the five is 10 m, and 256 pixels of the finest raster are more.
    assert result["chip_ground_size"] == pytest.approx(128, rel=1e-3) and found.gsd == pytest.approx(0.5, rel=1e-3)
    assert blue.images.shape[-1] == 256 and green.images.shape[-1] == 128 and red.images.shape == (2, 3, 256, 256)
    assert marked_colours(green) == [[20, 200, 20]]
    reds = red.images.permute(0, 2, 3, 1)[red.masks == FOREGROUND].float().mean(0)
    assert np.abs(reds.numpy() - RED).max() < 6  # scaled edges mix with the ground
    # Both red squares of the one and the square of the other, all in pixels of half a metre.
    assert (red.masks[0] == FOREGROUND).sum() == 800
    assert int((red.masks[1] == FOREGROUND).sum()) == pytest.approx(1600, rel=0.06)
    # The green square is another class in the red one's chip: it is background there.
    far = red.images[1].permute(1, 2, 0)[red.masks[1] == BACKGROUND].numpy()
    assert (far == (20, 200, 20)).all(axis=1).any() and (far == GROUND).all(axis=1).any()


def test_the_median_object_of_all_sources_sets_the_size(tmp_path, scene, write_raster, write_vector):
    metre = from_origin(320000.0, 2790000.0, 1.0, 1.0)
    large = write_raster(painted(1000, 1000, []), "large.tif", transform=metre)
    corners = ((100, 100), (300, 300), (500, 500), (700, 700))
    marks = write_vector(squares(*corners, side=50, transform=metre), "large.gpkg")
    _, result = build(tmp_path, scene, ReferenceSource(marks, large))
    assert result["chip_ground_size"] == pytest.approx(8 * 50, rel=1e-3)
    _, given = build(tmp_path, scene, ReferenceSource(marks, large), chip_size=60.0)
    assert given["chip_ground_size"] == 60.0


def test_shots_are_added_behind_what_is_there(tmp_path, scene, coarse):
    path, first = build(tmp_path, scene)
    _, second = build(tmp_path, coarse, base=path)
    assert second["chip_ground_size"] == first["chip_ground_size"]
    assert second["classes"] == [
        {"name": "blue", "chips": 1, "chips_added": 0},
        {"name": "red", "chips": 2, "chips_added": 1},
        {"name": "green", "chips": 1, "chips_added": 1},
    ]
    alone = gather(build(tmp_path, scene, name="alone.refset")[0])
    red = gather(path).classes[1].shots
    assert (red.images[0] == alone.classes[1].shots.images[0]).all()


def test_what_is_there_already_is_skipped(tmp_path, scene):
    recorder = Recorder()
    path, _ = build(tmp_path, scene)
    before = Path(path).read_bytes()
    _, result = build(tmp_path, scene, base=path, reporter=recorder)
    assert (result["chips_added"], result["chips_skipped"]) == (0, 2) and len(recorder.messages) == 2
    assert Path(path).read_bytes() == before
    twice = build(tmp_path, scene, scene, name="twice.refset")[1]
    assert (twice["chips_added"], twice["chips_skipped"]) == (2, 2)


def test_a_full_class_takes_the_best_of_every_source(tmp_path, write_raster, write_vector, monkeypatch):
    monkeypatch.setattr(refset, "MAX_SET_CHIPS", 5)
    corners = [(x, 50) for x in range(50, 2400, 400)]
    sources = []
    for number, name in enumerate("abc"):
        colour = (200, 30, number)
        image = painted(400, 2500, [(slice(y, y + 20), slice(x, x + 20), colour) for x, y in corners])
        image[1] = np.arange(2500) % 256  # no two places look alike
        raster = write_raster(image, f"{name}.tif")
        sources.append(ReferenceSource(write_vector(squares(*corners), f"{name}.gpkg"), raster))
    recorder = Recorder()
    path, result = build(tmp_path, *sources, reporter=recorder)
    assert (result["chips_added"], result["chips_skipped"]) == (5, 13)
    assert recorder.messages == ["Chips of class 'object' that are left out, since a set holds 5 of each: 13."]
    shots = gather(path).classes[0].shots
    assert [int(image[2][mask == FOREGROUND][0]) for image, mask in zip(shots.images, shots.masks, strict=True)] == [
        0, 0, 1, 1, 2,
    ]  # fmt: skip
    more = build(tmp_path, sources[2], base=path)[1]
    assert (more["chips_added"], more["chips_skipped"]) == (0, 6)


def test_a_class_may_lie_on_one_raster_only(tmp_path, scene, write_raster):
    both = ReferenceSource(scene.vector, write_raster(painted(140, 130, []), "part.tif"), class_field="kind")
    _, result = build(tmp_path, scene, both)
    assert [c["chips"] for c in result["classes"]] == [2, 2]
    cut = ReferenceSource(scene.vector, write_raster(painted(125, 130, []), "less.tif"), class_field="kind")
    with pytest.raises(RefSAMError, match=r"Class 'blue' of '.*marks.gpkg' marks no valid pixel of raster '.*less.tif"):
        build(tmp_path, cut)
    assert [c["chips"] for c in build(tmp_path, scene, cut)[1]["classes"]] == [1, 2]


def test_negatives_of_several_sources_join(tmp_path, scene, coarse, write_vector):
    negatives = write_vector(squares((300, 300)), "negatives.gpkg")
    first, second = (
        ReferenceSource(one.vector, one.raster, None, "kind", "complete", negatives) for one in (scene, coarse)
    )
    recorder = Recorder()
    path, result = build(tmp_path, first, second, reporter=recorder)
    assert result["negative_chips"] == 1
    assert [message for message in recorder.messages if "coarse.tif" in message] == [
        f"No negative of '{negatives}' falls on raster '{coarse.raster}'; it is searched without."
    ]
    assert marked_colours(gather(path).negative) == [list(GROUND)]


@pytest.mark.parametrize("ground_size", [60.0, 300.0])
def test_a_segment_job_may_need_another_ground_size(tmp_path, scene, ground_size):
    path, _ = build(tmp_path, scene)
    found = gather(path, ground_size)
    assert found.chip_ground_size == ground_size
    for reference in found.classes:
        assert reference.shots.images.shape[-1] == 2 * ground_size
        assert marked_colours(reference.shots) == [list(RED if reference.name == "red" else BLUE)]


def test_equal_jobs_write_equal_bytes(tmp_path, scene, coarse, monkeypatch):
    first = Path(build(tmp_path, scene, coarse)[0]).read_bytes()
    (tmp_path / "elsewhere").mkdir()
    moved = ReferenceSource(
        scene.vector, str(Path(scene.raster).rename(tmp_path / "elsewhere" / "scene.tif")), class_field="kind"
    )
    path, _ = build(tmp_path, moved, coarse, name="again.refset")
    assert Path(path).read_bytes() == first
    digest = gather(path).digest

    class Later(datetime.date):
        @classmethod
        def today(cls):
            return datetime.date(2050, 1, 2)

    monkeypatch.setattr(refset.datetime, "date", Later)
    later, _ = build(tmp_path, moved, coarse, name="later.refset")
    assert Path(later).read_bytes() != first and gather(later).digest == digest


def test_the_origin_is_told_without_the_users_folders(tmp_path, coarse):
    path, _ = build(tmp_path, coarse)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("refset.json").decode()
    assert str(tmp_path) not in text and Path.home().name + "/" not in text
    origin = json.loads(text)["chips"][0]["origin"]
    assert origin["raster"] == "coarse.tif" and origin["crs"] == "EPSG:4326" and origin["bands"] == [1, 2, 3]
    assert origin["stretch"] == "auto" and origin["annotation"] == "complete"
    assert origin["centre"] == pytest.approx([origin["longitude"], origin["latitude"]], abs=1e-6)
    assert origin["longitude"] == pytest.approx(55.201, abs=1e-3) and origin["made_by"].startswith("RefSAM ")
    datetime.date.fromisoformat(origin["made"])


def test_rasters_without_a_place(tmp_path, write_raster, write_vector):
    marks = write_vector([box(10, 10, 30, 30)], crs=None)
    plain = write_raster(painted(64, 64, []), "plain.tif", crs=None, transform=Affine.scale(1.0, 1.0))
    mars = "+proj=eqc +R=3396190 +units=m"
    on_mars = write_raster(painted(64, 64, []), "mars.tif", crs=mars, transform=from_origin(0, 40, 1, 1))
    path, _ = build(tmp_path, ReferenceSource(marks, plain), ReferenceSource(marks, on_mars))
    with zipfile.ZipFile(path) as archive:
        first, second = (chip["origin"] for chip in json.loads(archive.read("refset.json"))["chips"])
    assert first["crs"] is None and second["crs"] and "longitude" not in {*first, *second}


def test_the_picture_shows_chips_and_masks(tmp_path, scene, write_vector):
    source = ReferenceSource(
        scene.vector, scene.raster, None, "kind", "partial", write_vector(squares((300, 300)), "negatives.gpkg")
    )
    picture = tmp_path / "picture.png"
    build(tmp_path, source, picture=str(picture))
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"))
    seen = Counter(map(tuple, pixels.reshape(-1, 3).tolist()))
    # Outlines (one pixel around squares of 20) in the colours of class, negative and rival; chips at their own scale.
    assert seen[(255, 214, 0)] >= 3 * 84 and seen[(255, 80, 60)] >= 84 and seen[(0, 200, 255)] >= 3 * 84
    tinted = tuple(round(0.75 * own + 0.25 * tint) for own, tint in zip(RED, (255, 214, 0), strict=True))
    assert seen[tinted] == 800


def test_a_class_name_of_several_lines_is_drawn_on_one(tmp_path, scene, write_raster, write_vector):
    pictures = []
    for number, name in enumerate(("flat roof", "flat\r\nroof")):
        marks = write_vector(squares((300, 300)), f"marks {number}.gpkg", kind=[name])
        picture = tmp_path / f"picture {number}.png"
        build(tmp_path, ReferenceSource(marks, scene.raster, None, "kind"), picture=str(picture))
        with Image.open(picture) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    assert (pictures[0] == pictures[1]).all()


def test_a_failure_leaves_the_set_as_it_was(tmp_path, scene, coarse, write_vector):
    path, _ = build(tmp_path, scene)
    before = Path(path).read_bytes()
    far = ReferenceSource(write_vector(squares((9000, 9000)), "far.gpkg"), scene.raster)
    with pytest.raises(RefSAMError, match=r"No geometry of .* falls on raster"):
        build(tmp_path, far, base=path)
    with pytest.raises(JobCancelled):
        build(tmp_path, coarse, base=path, reporter=Recorder(cancel_after=1))
    assert Path(path).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".refset" or p.name.startswith(".")] == ["set.refset"]


CORNER = HALF_METRE * (200, 200)
FLAT = {
    "one point": shapely.Polygon([CORNER] * 4),
    "there and back": shapely.Polygon([CORNER, (CORNER[0] + 1, CORNER[1]), (CORNER[0] + 2, CORNER[1]), CORNER]),
    "askew": shapely.Polygon([CORNER, (CORNER[0] + 1, CORNER[1] + 1), (CORNER[0] + 3, CORNER[1] + 3), CORNER]),
}


@pytest.mark.parametrize("flat", FLAT.values(), ids=FLAT.keys())
def test_polygons_without_area_do_not_spoil_a_set(tmp_path, scene, write_vector, flat):
    path, _ = build(tmp_path, scene)
    marks = write_vector([*squares((160, 150)), flat], "flat.gpkg", kind=["red", "blue"])
    recorder = Recorder()
    more = ReferenceSource(marks, scene.raster, class_field="kind", annotation="partial")
    _, result = build(tmp_path, more, base=path, reporter=recorder)
    assert result["chips_added"] == 1
    assert recorder.messages == [f"1 polygons of '{marks}' have no area and are left out."]
    found = gather(path)
    assert [len(c.shots.images) for c in found.classes] == [1, 2] and found.typical_example == pytest.approx(100)
    alone = write_vector([flat], "alone.gpkg")
    with pytest.raises(RefSAMError, match=r"The polygons of .*alone.gpkg' on raster .* have no area; outline the ex"):
        build(tmp_path, ReferenceSource(alone, scene.raster), name="alone.refset")


def test_a_set_that_cannot_be_read_again_replaces_none(tmp_path, scene, coarse, monkeypatch):
    path, _ = build(tmp_path, scene)
    before = Path(path).read_bytes()
    monkeypatch.setattr(gather_module, "_whole_areas", lambda *cut: (-1.0,))
    with pytest.raises(
        RefSAMError, match=r"set\.refset' came out damaged \(-1\.0 is no size\) and is not kept"
    ) as caught:
        build(tmp_path, coarse, base=path)
    assert f"'{path}'" in str(caught.value) and Path(path).read_bytes() == before


def test_bad_jobs_are_one_sentence(tmp_path, scene):
    path, _ = build(tmp_path, scene)
    old = Path(path).rename(tmp_path / "old.refset")
    cases = [
        ({"base": str(old), "chip_size": 60.0}, "input", "are 128 m wide, not 60 m; leave the chip size"),
        ({"base": scene.raster}, "reference", "is not a whole reference set"),
        ({"name": "set.zip"}, "input", "must end in .refset"),
        ({"picture": str(tmp_path / "picture.jpg")}, "input", "must end in .png"),
        ({"picture": str(tmp_path / "set.refset")}, "input", "must end in .png"),
        ({"chip_size": 9000.0}, "reference", "covers 18000 pixels of the reference raster"),
    ]
    for options, code, sentence in cases:
        with pytest.raises(RefSAMError, match=sentence) as caught:
            build(tmp_path, scene, **options)
        assert caught.value.code == code and str(caught.value).endswith(".")
    assert not (tmp_path / "set.refset").exists()
    assert build(tmp_path, scene, base=str(old), chip_size=128.0)[1]["chips_added"] == 0


def test_a_raster_that_is_damaged_elsewhere_gives_its_chips(tmp_path, write_raster, write_vector):
    values = np.random.default_rng(1).integers(0, 256, (3, 400, 400), dtype=np.uint8)
    damaged = write_raster(values, "half.tif", compress="deflate")
    with open(damaged, "r+b") as stream:
        stream.truncate(300_000)
    source = ReferenceSource(write_vector(squares((20, 20))), damaged)
    path, result = build(tmp_path, source, chip_size=32.0)
    assert result["chips_added"] == 1 and gather(path).classes[0].shots.valid.all()
