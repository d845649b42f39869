from __future__ import annotations

from dataclasses import replace

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from rasterio.transform import Affine, from_origin
from shapely.geometry import LineString, Point, box

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.job import ReferenceSource
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED
from refsam_qgis.engine.references.gather import MAX_CHIPS, gather_references
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, UTM, Recorder, painted


def on_map(geometry, transform=HALF_METRE):
    return shapely.transform(geometry, lambda x, y: transform * (x, y), interleaved=False)


def squares(*corners, side=20):
    return [on_map(box(x, y, x + side, y + side)) for x, y in corners]


@pytest.fixture
def scene():
    """One blue and two red squares of 20 pixels on 400 x 500."""
    patches = [
        (slice(100, 120), slice(100, 120), RED),
        (slice(150, 170), slice(160, 180), RED),
        (slice(130, 150), slice(100, 120), BLUE),
    ]
    return painted(400, 500, patches)


def read(raster, vector, recorder=None, ground_size=None, **options):
    source = ReferenceSource(vector, **options)
    return gather_references(source, raster, None, "auto", recorder or Recorder(), ground_size)


@pytest.mark.parametrize("annotation", ["complete", "partial"])
def test_masks_of_polygons(write_raster, write_vector, scene, annotation):
    raster = write_raster(scene)
    vector = write_vector(squares((100, 100), (160, 150), (100, 130)), kind=["red", "red", "blue"])
    found = read(raster, vector, class_field="kind", annotation=annotation)
    blue, red = found.classes
    assert [(c.name, c.class_id) for c in found.classes] == [("blue", 1), ("red", 2)]
    assert red.shots.images.shape == (1, 3, 256, 256)
    image, mask = red.shots.images[0].numpy(), red.shots.masks[0].numpy()
    is_red, is_blue = ((image == np.array(c)[:, None, None]).all(axis=0) for c in (RED, BLUE))
    assert is_red.sum() == 800
    assert (mask[is_red] == FOREGROUND).all() and (mask[is_blue] == BACKGROUND).all()
    assert (mask[~is_red & ~is_blue] == (BACKGROUND if annotation == "complete" else UNMARKED)).all()
    assert (blue.shots.masks[0].numpy() == FOREGROUND).sum() == 400


def test_where_marks_of_two_classes_overlap_each_is_shown_as_its_own(write_raster, write_vector, scene):
    vector = write_vector(squares((100, 100), (110, 100)), kind=["a", "b"])
    for of_class in read(write_raster(scene), vector, class_field="kind").classes:
        mask = of_class.shots.masks[0].numpy()
        assert (mask == FOREGROUND).sum() == 400


def test_invalid_pixels_are_ignored(write_raster, write_vector, scene):
    hole = np.full((400, 500), 255, np.uint8)
    hole[:, 110:] = 0
    found = read(write_raster(scene, mask=hole), write_vector(squares((100, 100))))
    shots = found.classes[0].shots
    assert (shots.masks[~shots.valid] == IGNORE).all() and (~shots.valid).any()
    assert (shots.masks == FOREGROUND).sum() == 200


@pytest.mark.parametrize(("annotation", "rest"), [("complete", BACKGROUND), ("partial", UNMARKED)])
@pytest.mark.parametrize("shape", [LineString([(100, 105), (120, 105)]), Point(110, 105)], ids=["line", "point"])
def test_a_guard_ring_surrounds_scribbles(write_raster, write_vector, scene, annotation, rest, shape):
    found = read(write_raster(scene), write_vector([on_map(shape)]), annotation=annotation)
    shots = found.classes[0].shots
    mask, side = shots.masks[0].numpy(), shots.masks.shape[-1]
    drawn = np.argwhere(mask == FOREGROUND)
    assert 4 <= len(drawn) <= 75
    rows, columns = np.mgrid[:side, :side]
    distance = np.sqrt(np.min((rows[..., None] - drawn[:, 0]) ** 2 + (columns[..., None] - drawn[:, 1]) ** 2, axis=-1))
    guard = 4 * side / 64
    others = mask[distance > 0]
    far = distance[distance > 0] > guard + 1.5
    near = distance[distance > 0] < guard - 0.5
    assert (others[near] == IGNORE).all() and (others[far] == rest).all()


def test_other_classes_are_background_inside_a_guard_ring(write_raster, write_vector, scene):
    lines = [on_map(LineString([(100, 110), (119, 110)])), on_map(LineString([(100, 120), (119, 120)]))]
    found = read(write_raster(scene), write_vector(lines, c=["a", "b"]), class_field="c", annotation="partial")
    a, b = (c.shots.masks[0].numpy() for c in found.classes)
    assert (a[b == FOREGROUND] == BACKGROUND).all() and (b[a == FOREGROUND] == BACKGROUND).all()


def test_marks_in_another_crs_fall_on_the_same_pixels(write_raster, write_vector, scene):
    raster = write_raster(scene)
    shapes = gpd.GeoSeries(squares((100, 100), (160, 150)), crs=UTM)
    here = read(raster, write_vector(list(shapes), "utm.gpkg"))
    there = read(raster, write_vector(list(shapes.to_crs(4326)), "wgs.gpkg", crs="EPSG:4326"))
    assert (here.classes[0].shots.masks == there.classes[0].shots.masks).float().mean() > 0.9999


@pytest.mark.parametrize("column", [40, 225, 270], ids=["west", "across", "east"])
def test_marks_on_either_side_of_the_antimeridian(write_raster, write_vector, column):
    """The meridian of 180° is that of column 240; the zone that the marks are in ends there."""
    transform = Affine(5e-6, 0, 179.9988, 0, -5e-6, -17)
    raster = write_raster(
        painted(300, 300, [(slice(100, 120), slice(column, column + 30), RED)]), crs="EPSG:4326", transform=transform
    )
    here = gpd.GeoSeries([on_map(box(column, 100, column + 30, 120), transform)], crs="EPSG:4326")
    vector = write_vector(list(here.to_crs(32760)), crs="EPSG:32760")
    shots = read(raster, vector).classes[0].shots
    marked = shots.images.permute(0, 2, 3, 1)[shots.masks == FOREGROUND].numpy()
    assert len(marked) == 600 and (marked == RED).all()


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.5, 0, 320000, 0, 0.5, 2790000),
        Affine.translation(320000, 2790000) * Affine.rotation(30) * Affine.scale(0.5, -0.5),
    ],
    ids=["south-up", "rotated"],
)
def test_any_orientation(write_raster, write_vector, scene, transform):
    raster = write_raster(scene, transform=transform)
    shots = read(raster, write_vector([on_map(box(100, 100, 120, 120), transform)])).classes[0].shots
    marked = shots.images.permute(0, 2, 3, 1)[shots.masks == FOREGROUND]
    assert len(marked) == 400 and (marked.numpy() == RED).all()


def test_missing_crs_is_assumed_and_told(write_raster, write_vector, scene):
    recorder = Recorder()
    read(write_raster(scene), write_vector(squares((100, 100)), crs=None), recorder)
    assert "has no CRS" in recorder.messages[0]
    pixels = write_vector([box(100, 100, 120, 120)], "pixels.gpkg", crs=None)
    found = read(write_raster(scene, "plain.tif", crs=None, transform=Affine.identity()), pixels)
    assert (found.classes[0].shots.masks == FOREGROUND).sum() == 400 and found.gsd == 1


def test_chip_side_follows_the_objects(write_raster, write_vector, scene):
    raster = write_raster(np.tile(scene, (1, 4, 4)))
    for side, expected in ((20, 256), (60, 480), (200, 1024)):
        found = read(raster, write_vector(squares((100, 100), side=side), f"{side}.gpkg"))
        assert found.classes[0].shots.images.shape[-1] == expected
        assert found.chip_ground_size == pytest.approx(expected * 0.5, rel=1e-3)
    small = read(write_raster(scene[:, :130, :130], "small.tif"), write_vector(squares((100, 100)), "s.gpkg"))
    assert small.classes[0].shots.images.shape[-1] == 160
    scribble = on_map(LineString([(100, 110), (160, 110)]))
    for marks, expected in (([scribble], 480), ([scribble, *squares((300, 300))], 256)):  # polygons say it best
        found = read(raster, write_vector(marks, f"{len(marks)}.gpkg"))
        assert found.classes[0].shots.images.shape[-1] == expected
    given = read(raster, write_vector(squares((100, 100)), "given.gpkg"), ground_size=100.0)
    assert given.classes[0].shots.images.shape[-1] == 200 and given.chip_ground_size == 100.0


def test_chips_spread_over_all_marks(write_raster, write_vector):
    corners = [(x, y) for x in range(50, 2400, 400) for y in range(50, 800, 400)]
    raster = write_raster(painted(900, 2500, [(slice(y, y + 20), slice(x, x + 20), RED) for x, y in corners]))
    recorder = Recorder()
    shots = read(raster, write_vector(squares(*corners[:10])), recorder).classes[0].shots
    assert (shots.masks == FOREGROUND).flatten(1).sum(1).tolist() == [400] * MAX_CHIPS and not recorder.messages
    shots = read(raster, write_vector(squares(*corners), "more.gpkg"), recorder).classes[0].shots
    assert len(shots.images) == MAX_CHIPS and recorder.messages[0].startswith("2 of 12 marks")


def test_large_polygons_are_shown_with_their_surroundings(write_raster, write_vector):
    raster = write_raster(painted(3000, 3000, [(slice(500, 2500), slice(500, 2500), BLUE)]))
    shots = read(raster, write_vector(squares((500, 500), side=2000)), ground_size=200.0).classes[0].shots
    share = (shots.masks == FOREGROUND).flatten(1).float().mean(1)
    assert len(share) == MAX_CHIPS and (share == 1).any() and (share <= 0.9).sum() >= 4


def test_polygons_between_pixel_centres_are_not_lost(write_raster, write_vector, scene):
    shots = read(write_raster(scene), write_vector([on_map(box(100.6, 100.6, 101.3, 101.3))])).classes[0].shots
    assert (shots.masks == FOREGROUND).sum() == 4


def test_numbers_are_classes_by_value(write_raster, write_vector, scene):
    vector = write_vector(squares((100, 100), (160, 150), (100, 130)), kind=[10, 2, None])
    recorder = Recorder()
    found = read(write_raster(scene), vector, recorder, class_field="kind")
    assert [c.name for c in found.classes] == ["2", "10"]
    assert "1 marks" in recorder.messages[0]


def test_another_reference_raster(write_raster, write_vector, scene):
    reference = write_raster(scene[::-1, ::2, ::2], "снимок образца.tif", transform=from_origin(320000, 2790000, 1, 1))
    target = write_raster(np.zeros((4, 50, 50), np.uint8), "target.tif")
    source = ReferenceSource(write_vector(squares((100, 100))), reference)
    found = gather_references(source, target, None, "auto", Recorder())
    assert found.gsd == pytest.approx(1, rel=1e-3)
    image = found.classes[0].shots.images[0].permute(1, 2, 0)
    assert (image[found.classes[0].shots.masks[0] == FOREGROUND].numpy() == RED[::-1]).all()


def test_unusable_references_are_one_sentence(tmp_path, write_raster, write_vector, scene):
    raster = write_raster(scene)
    good = squares((100, 100))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "foreign.gpkg").write_text("no vector")
    hole = np.full((400, 500), 255, np.uint8)
    hole[90:130, 90:130] = 0
    named = write_vector([*good, *squares((9000, 9000))], "named.gpkg", kind=["a", "b"])
    cases = [
        (raster, str(tmp_path / "none.gpkg"), {}, "does not exist"),
        (raster, str(tmp_path / "foreign.gpkg"), {}, "cannot be read as a vector"),
        (raster, str(tmp_path / "table.csv"), {}, "has no geometry"),
        (raster, write_vector([], "empty.gpkg"), {}, "is empty"),
        (raster, write_vector([None], "null.gpkg"), {}, "has no geometry"),
        (raster, write_vector(squares((9000, 9000)), "far.gpkg"), {}, "No geometry of .* falls on raster"),
        (raster, named, {"class_field": "class"}, "has no field 'class'; it has kind"),
        (raster, named, {"class_field": "kind"}, "Class 'b' of .* marks no valid pixel"),
        (raster, named, {"layer": "other"}, "has no layer 'other'; it has named"),
        (raster, write_vector(good, "blank.gpkg", kind=[" "]), {"class_field": "kind"}, "is empty; fill in"),
        (write_raster(scene, "holed.tif", mask=hole), write_vector(good, "h.gpkg"), {}, "marks no valid pixel"),
    ]
    for image, vector, options, sentence in cases:
        with pytest.raises(RefSAMError, match=sentence) as caught:
            read(image, vector, **options)
        assert caught.value.code == "reference" and str(caught.value).endswith(".")


def test_no_mark_is_lost_to_its_geometry(write_raster, write_vector, scene):
    bow_tie = shapely.Polygon([(100, 100), (120, 120), (120, 100), (100, 120)])
    pair = shapely.MultiPolygon([box(200, 200, 220, 220), box(240, 240, 260, 260)])
    raised = shapely.force_3d(on_map(box(300, 200, 320, 220)), 5.0)
    shots = read(write_raster(scene), write_vector([on_map(bow_tie), on_map(pair), raised])).classes[0].shots
    assert (shots.masks == FOREGROUND).sum() == pytest.approx(1400, abs=30)


def test_an_outline_marks_its_area_alone_and_a_line_its_course(write_raster, write_vector, scene):
    raster, square = write_raster(scene), box(100, 100, 120, 120)
    plain = read(raster, write_vector([on_map(square)], "plain.gpkg"))
    spiked = shapely.Polygon([(100, 100), (120, 100), (120, 120), (180, 150), (120, 120), (100, 120)])
    nested = shapely.GeometryCollection([shapely.GeometryCollection([shapely.MultiPolygon([square])])])
    for number, shape in enumerate((spiked, nested)):
        found = read(raster, write_vector([on_map(shape)], f"{number}.gpkg"))
        assert found.digest == plain.digest and found.typical_example == plain.typical_example
    stroke = shapely.LineString([(140, 130), (160, 130)])
    alone = read(raster, write_vector([on_map(square), on_map(stroke)], "two.gpkg"))
    both = read(raster, write_vector([on_map(shapely.GeometryCollection([square, stroke]))], "both.gpkg"))
    assert both.digest == alone.digest and (both.classes[0].shots.masks == FOREGROUND).sum() > 400 + 40


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
def test_negatives_are_background_and_a_class_of_their_own(write_raster, write_vector, scene, crs):
    raster = write_raster(scene)
    reds = write_vector(squares((100, 100), (160, 150)), "reds.gpkg")
    shape = gpd.GeoSeries(squares((100, 130)), crs=UTM).to_crs(crs)
    negatives = write_vector(list(shape), "negatives.gpkg", crs=crs, kind=["any"])
    found = read(raster, reds, annotation="partial", negatives=negatives)
    assert [c.name for c in found.classes] == ["object"]
    shots, hidden = found.classes[0].shots, found.negative
    for chip, mine, other in ((shots, RED, BLUE), (hidden, BLUE, RED)):
        image, mask = chip.images[0].permute(1, 2, 0), chip.masks[0]
        assert (image[mask == FOREGROUND].numpy() == mine).all() and (image[mask == BACKGROUND].numpy() == other).all()
    assert [int((chip.masks == FOREGROUND).sum()) for chip in (shots, hidden)] == [800, 400]
    assert [int((chip.masks == BACKGROUND).sum()) for chip in (shots, hidden)] == [400, 800]
    assert (hidden.masks == UNMARKED).any()
    assert found.digest != read(raster, reds, annotation="partial").digest


def test_nobody_was_asked_to_mark_all_negatives(write_raster, write_vector, scene):
    reds, blue = write_vector(squares((100, 100)), "a.gpkg"), write_vector(squares((100, 130)), "b.gpkg")
    found = read(write_raster(scene), reds, negatives=blue)
    assert not (found.classes[0].shots.masks == UNMARKED).any() and (found.negative.masks == UNMARKED).any()


def test_negatives_beside_the_raster_are_told_of(write_raster, write_vector, scene):
    raster, reds = write_raster(scene), write_vector(squares((100, 100)))
    for negatives in (write_vector(squares((9000, 9000)), "far.gpkg"), write_vector([], "empty.gpkg")):
        recorder = Recorder()
        found = read(raster, reds, recorder, negatives=negatives)
        assert found.negative is None and found.digest == read(raster, reds).digest
        told = f"No negative of '{negatives}' falls on raster '{raster}'; it is searched without."
        assert recorder.messages == [told]
    with pytest.raises(RefSAMError, match=r"'none.gpkg' does not exist"):
        read(raster, reds, negatives="none.gpkg")


def test_marks_that_are_left_out_are_counted(write_raster, write_vector, scene):
    raster = write_raster(scene)
    far = squares((9000, 100), (9000, 200), (-50, 100))
    pair = shapely.MultiPolygon([*squares((100, 100), (0, 9000))])
    flat = shapely.Polygon([HALF_METRE * (50, 50)] * 4)
    marks = write_vector([pair, *far, flat, *squares((9000, 300))], kind=["a", "a", "b", "a", "a", None])
    negatives = write_vector([*squares((100, 130)), *far, flat], "negatives.gpkg")
    recorder = Recorder()
    found = read(raster, marks, recorder, annotation="partial", negatives=negatives)
    assert (found.classes[0].shots.masks == FOREGROUND).sum() == 400
    assert recorder.messages == [
        f"5 marks of '{marks}' lie beside raster '{raster}' and are left out.",
        f"1 polygons of '{marks}' have no area and are left out.",
        f"3 marks of '{negatives}' lie beside raster '{raster}' and are left out.",
        f"1 polygons of '{negatives}' have no area and are left out.",
    ]
    recorder = Recorder()
    with pytest.raises(RefSAMError, match="Class 'b' of"):
        read(raster, marks, recorder, class_field="kind")
    # What has no class is counted as such.
    assert [message.split(" of ")[0] for message in recorder.messages] == ["1 marks", "4 marks", "1 polygons"]


def test_the_digest_is_of_the_content(write_raster, write_vector, scene):
    marks = write_vector(squares((100, 100)), kind=["a"])
    first = read(write_raster(scene), marks, class_field="kind").digest
    assert len(first) == 64
    assert read(write_raster(scene, "copy.tif"), marks, class_field="kind").digest == first
    others = [
        read(write_raster(scene // 2, "dark.tif"), marks, class_field="kind"),
        read(write_raster(scene), marks),
        read(write_raster(scene), write_vector(squares((101, 100)), "b.gpkg", kind=["a"]), class_field="kind"),
        read(write_raster(scene), marks, class_field="kind", ground_size=100.0),
        read(write_raster(scene), marks, class_field="kind", negatives=write_vector(squares((160, 150)), "n.gpkg")),
        read(write_raster(scene), marks, class_field="kind", negatives=write_vector(squares((161, 150)), "o.gpkg")),
    ]
    others += [replace(others[0], gsd=1.0), replace(others[0], chip_ground_size=1.0)]
    assert len({first, *(other.digest for other in others)}) == 9


def test_reading_can_be_cancelled(write_raster, write_vector, scene):
    with pytest.raises(JobCancelled):
        read(write_raster(scene), write_vector(squares((100, 100))), Recorder(cancel_after=-1))


def test_the_typical_example_is_of_whole_objects_of_the_smallest_class(write_raster, write_vector, scene):
    raster = write_raster(scene)
    boxes = [(100, 100, 120, 120), (160, 150, 172, 160), (200, 150, 202, 151), (0, 0, 4, 4), (60, 60, 90, 90)]
    vector = write_vector([on_map(box(*corners)) for corners in boxes], kind=["small"] * 4 + ["large"])
    whole = read(raster, vector, ground_size=128.0, class_field="kind")  # the mark in the corner is cut by its chip
    assert whole.typical_example == pytest.approx(12 * 10 * 0.5**2)
    assert read(raster, write_vector([on_map(box(0, 0, 500, 400))])).typical_example == 0


@pytest.mark.parametrize(
    ("crs", "pixel", "row"), [("EPSG:3857", 200, 60), ("EPSG:3857", 200, 9900), ("EPSG:4326", 0.002, 60)]
)
def test_examples_are_measured_on_the_ground_where_they_lie(write_raster, write_vector, crs, pixel, row):
    """On a map as large as a country, pixels of one size are of several on the ground."""
    transform = from_origin(*((1.1e6, 11e6) if pixel > 1 else (5, 71)), pixel, pixel)
    raster = write_raster(np.full((3, 10000, 400), 90, np.uint8), crs=crs, transform=transform, compress="deflate")
    square = on_map(box(100, row, 140, row + 40), transform)
    found = read(raster, write_vector([square], crs=crs))
    outline = gpd.GeoSeries([shapely.segmentize(square, pixel)], crs=crs).to_crs(4326)[0]
    expected = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(outline)[0])
    assert found.typical_example == pytest.approx(expected, rel=1e-4)


def test_units_that_touch_are_objects_of_their_own(write_raster, write_vector, scene):
    """Row houses: in the mask they are one."""
    row = squares(*((100 + 20 * unit, 100) for unit in range(5)))
    assert read(write_raster(scene), write_vector(row)).typical_example == pytest.approx(20 * 20 * 0.5**2)


def test_a_scribble_is_as_large_as_it_is_drawn(write_raster, write_vector, scene):
    stroke = on_map(LineString([(100, 110), (120, 110)]))
    assert 0 < read(write_raster(scene), write_vector([stroke])).typical_example < 20 * 5 * 0.5**2
