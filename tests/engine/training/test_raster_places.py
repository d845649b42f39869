"""The user's rasters with class polygons: what is read, which parts count, how scenes are parted."""

import pickle
import shutil

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.transform import Affine, from_origin

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.image_folder import IGNORE_ID
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.raster_places import read_raster_places
from refsam_qgis.engine.training.split import split_places
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, Recorder, painted

SIZE = 600


def corners(left, top, right, bottom):
    (x0, y0), (x1, y1) = HALF_METRE * (left, top), HALF_METRE * (right, bottom)
    return shapely.box(x0, y1, x1, y0)


def squares():
    """Red roofs and blue pools on a lattice, 24 pixels wide."""
    spots = [(left, top) for top in range(60, 520, 70) for left in range(60, 520, 70)]
    return {(left, top, left + 24, top + 24): "roof" if i % 2 else "pool" for i, (left, top) in enumerate(spots)}


@pytest.fixture
def town(write_raster, write_vector):
    patches = [
        (slice(top, bottom), slice(left, right), RED if name == "roof" else BLUE)
        for (left, top, right, bottom), name in squares().items()
    ]
    image = painted(SIZE, SIZE, patches)
    raster = write_raster(image, "town.tif")
    labels = write_vector([corners(*box) for box in squares()], "labels.gpkg", kind=list(squares().values()))
    return raster, labels


def read(rasters, labels, field="kind", reporter=None):
    places, _ = read_raster_places(rasters, labels, field, None, "auto", reporter or SilentReporter())
    return places


def test_a_lone_raster_is_parted_into_scenes_that_do_not_overlap(town):
    raster, labels = town
    places = read([raster], labels)
    assert len(places) == 9
    boxes = [shapely.box(*place._box) for place in places]
    assert shapely.union_all(boxes).area == pytest.approx(sum(box.area for box in boxes))
    # The lattice reaches from 60 to 504; around it counts as much as an object is wide.
    assert shapely.union_all(boxes).bounds == (36, 36, 528, 528)
    assert len({place.name for place in places}) == 9


def test_views_show_the_labels_in_their_own_part_alone(town):
    raster, labels = town
    truth = np.zeros((SIZE, SIZE), np.uint8)
    for (left, top, right, bottom), name in squares().items():
        truth[top:bottom, left:right] = 1 + (name == "roof")
    rng = np.random.default_rng(0)
    for place in read([raster], labels):
        left, top, right, bottom = place._box
        for focus in (*place.class_names(), None):
            view = place.draw(rng, 100, focus)
            assert view.image.shape == (100, 100, 3) and view.classes.shape == (100, 100)
            red = (view.image == RED).all(-1)
            blue = (view.image == BLUE).all(-1)
            assert (view.classes == np.where(red, 2, np.where(blue, 1, 0))).all()
            assert ((view.instances > 0) == (view.classes > 0)).all()
            assert focus is None or (view.classes == place.class_id(focus)).any()
        whole = place.draw(rng, SIZE, None)
        side = min(right - left, bottom - top)
        assert whole.classes.shape == (side, side)
        assert (whole.classes == truth[top : top + side, left : left + side]).mean() > 0.9


def test_four_rasters_are_a_scene_each(write_raster, town):
    _, labels = town
    image = painted(SIZE, SIZE, [])
    rasters = [write_raster(image, f"scene{i}.tif") for i in range(4)]
    assert [place.name for place in read(rasters, labels)] == ["scene0", "scene1", "scene2", "scene3"]


def test_bands_that_nothing_names_are_told_once_for_all_rasters(write_raster, town):
    _, labels = town
    image = painted(SIZE, SIZE, [])
    four = [write_raster(np.concatenate([image, image[:1]]), f"{name}.tif", photometric="minisblack") for name in "ab"]
    recorder = Recorder()
    read(four, labels, reporter=recorder)
    assert recorder.messages == ["Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands."]


def test_nodata_and_polygons_without_a_class_do_not_count(write_raster, write_vector, monkeypatch):
    image = painted(200, 200, [])
    image[:, :, :90] = 0
    raster = write_raster(image, "half.tif", nodata=0)
    labels = write_vector([corners(60, 60, 120, 120), corners(130, 60, 180, 120)], "l.gpkg", kind=["roof", None])
    recorder = Recorder()
    (place,) = read([raster], labels, reporter=recorder)
    monkeypatch.setattr(place, "_box", (0, 0, 200, 200))
    view = place.draw(np.random.default_rng(0), 200, "roof")
    expected = np.zeros((200, 200), np.uint8)
    expected[60:120, 60:120] = place.class_id("roof")
    expected[60:120, 130:180] = IGNORE_ID
    expected[:, :90] = IGNORE_ID
    assert view.ignore == IGNORE_ID and (view.classes == expected).all()
    assert any("1 polygons" in message and "no class" in message for message in recorder.messages)


def test_each_process_opens_the_raster_for_itself(town):
    raster, labels = town
    place = read([raster], labels)[0]
    copy = pickle.loads(pickle.dumps(place))
    one, other = (each.draw(np.random.default_rng(3), 80, "roof") for each in (place, copy))
    assert (one.image == other.image).all() and (one.classes == other.classes).all()
    opened = place._raster._source()
    place._raster._opened = (-1, opened)
    assert place._raster._source() is not opened


def test_small_polygons_lie_on_top_of_large_ones(write_raster, write_vector):
    raster = write_raster(painted(200, 200, []), "plain.tif")
    labels = write_vector([corners(40, 40, 60, 60), corners(10, 10, 190, 190)], "l.gpkg", kind=["pool", "field"])
    (place,) = read([raster], labels)
    view = place.draw(np.random.default_rng(0), 500, None)
    counts = {name: int((view.classes == place.class_id(name)).sum()) for name in place.class_names()}
    assert counts == {"field": 180 * 180 - 400, "pool": 400}


def test_labels_in_another_crs_and_a_stretched_raster(write_raster, write_vector):
    image = painted(200, 200, [(slice(50, 90), slice(50, 90), RED)]).astype(np.uint16) * 100
    raster = write_raster(image, "deep.tif")
    box = gpd.GeoSeries([corners(50, 50, 90, 90)], crs="EPSG:32640").to_crs("EPSG:4326")
    (place,) = read([raster], write_vector(list(box), "l.gpkg", crs="EPSG:4326"), field=None)
    view = place.draw(np.random.default_rng(0), 200, "object")
    found = view.image[view.classes == 1]
    assert view.image.dtype == np.uint8 and (found[:, 0] > 200).mean() > 0.95


@pytest.mark.parametrize("left", [20, 85, 130])
def test_labels_on_either_side_of_the_antimeridian(write_raster, write_vector, left):
    """The meridian of 180° is that of column 100."""
    transform = Affine(5e-6, 0, 180 - 100 * 5e-6, 0, -5e-6, -17)
    image = painted(200, 200, [(slice(50, 90), slice(left, left + 40), RED)])
    raster = write_raster(image, "fiji.tif", crs="EPSG:4326", transform=transform)
    (x0, y0), (x1, y1) = transform * (left, 50), transform * (left + 40, 90)
    square = gpd.GeoSeries([shapely.box(x0, y1, x1, y0)], crs="EPSG:4326").to_crs("EPSG:32760")
    (place,) = read([raster], write_vector(list(square), "l.gpkg", crs="EPSG:32760"), field=None)
    view = place.draw(np.random.default_rng(0), 200, "object")
    assert (view.image[view.classes == 1] == RED).mean() > 0.95


def test_what_cannot_be_trained_on_is_said_in_a_sentence(town, write_raster, write_vector):
    raster, labels = town

    def message(*arguments):
        with pytest.raises(RefSAMError) as raised:
            read(*arguments)
        assert raised.value.code == "input"
        return str(raised.value)

    far = write_raster(painted(50, 50, []), "far.tif", transform=from_origin(0, 0, 0.5, 0.5))
    assert "far.tif" in message([raster, far], labels)
    assert "has no field 'sort'" in message([raster], labels, "sort")
    assert "fewer than 64 pixels" in message([raster], write_vector([corners(50, 50, 54, 54)], "s.gpkg"), None)
    assert "no polygons" in message([raster], write_vector([shapely.Point(0, 0)], "p.gpkg"), None)
    assert "does not exist" in message(["gone.tif"], labels)


def test_rare_classes_are_named_and_left_out(town, write_vector):
    raster, _ = town
    recorder = Recorder()
    labels = write_vector(
        [corners(100, 100, 160, 160), corners(200, 200, 204, 204)], "l.gpkg", kind=["roof", "chimney"]
    )
    assert {name for place in read([raster], labels, reporter=recorder) for name in place.class_names()} == {"roof"}
    assert any("chimney" in message for message in recorder.messages)


def test_classes_that_nothing_shows_are_named_and_left_out(write_raster, write_vector):
    """Below smaller polygons, and where there is no data, as around a rotated scene."""
    image = painted(400, 400, [(slice(300, 340), slice(300, 340), RED)])
    image[:, :200] = 0
    raster = write_raster(image, "half.tif", nodata=0)
    shapes = [corners(100, 100, 140, 140), corners(300, 300, 340, 340), corners(299, 299, 341, 341)]
    shapes.append(corners(250, 250, 390, 390))
    labels = write_vector(shapes, "l.gpkg", kind=["gap", "roof", "roof", "site"])
    recorder = Recorder()
    places = read([raster], labels, reporter=recorder)
    assert all(place._box[3] > 200 for place in places)  # no scene without data
    assert {name for place in places for name in place.class_names()} == {"roof", "site"}
    assert any(message.startswith("gap covers fewer") and "no data" in message for message in recorder.messages)
    hidden = write_vector(
        [shapes[1], shapes[1].buffer(0.01), corners(250, 250, 390, 390)], "h.gpkg", kind=["top", "below", "site"]
    )
    assert {name for place in read([raster], hidden) for name in place.class_names()} == {"top", "site"}


def test_scenes_of_equal_stems_are_told_apart(town, tmp_path):
    raster, labels = town
    paths = [tmp_path / folder / "town.tif" for folder in ("2019/a", "2020/a", "2020/b")]
    for path in paths:
        path.parent.mkdir(parents=True)
        shutil.copy(raster, path)
    other = tmp_path / "other.tif"
    shutil.copy(raster, other)
    names = [place.name for place in read([*map(str, paths), str(other)], labels)]
    assert names == ["2019/a/town.tif", "2020/a/town.tif", "b/town.tif", "other"]


class Scene:
    def __init__(self, *names):
        self._names = names

    def class_names(self):
        return self._names


def test_the_split_is_deterministic_by_scene_and_keeps_every_class_in_training():
    scenes = [Scene("a", "b"), Scene("a"), Scene("a"), Scene("b"), Scene("c"), Scene("a", "b")]
    splits = [split_places(scenes, 0.34, seed) for seed in range(20)]
    for training, validation in splits:
        assert len(training) + len(validation) == 6 and 1 <= len(validation) <= 2
        assert not set(map(id, training)) & set(map(id, validation))
        assert {name for scene in training for name in scene.class_names()} == {"a", "b", "c"}
    assert split_places(scenes, 0.34, 3)[1] == splits[3][1]
    assert len({tuple(map(id, validation)) for _, validation in splits}) > 1
    assert split_places(scenes, 0.0, 0) == (scenes, [])
    assert split_places(scenes[:1], 0.5, 0) == (scenes[:1], [])
    assert split_places([Scene("a"), Scene("b")], 0.5, 0)[1] == []


def test_validation_references_come_from_other_scenes(town):
    raster, labels = town
    places = read([raster], labels)
    seen = []

    class Watched:
        def __init__(self, place, name):
            self._place, self.name = place, name

        def class_names(self):
            return self._place.class_names()

        def class_id(self, name):
            return self._place.class_id(name)

        def draw(self, rng, side, focus):
            seen.append(self.name)
            return self._place.draw(rng, side, focus)

    training, validation = Watched(places[0], "training"), Watched(places[4], "validation")
    config = EpisodeConfig(steps=6, batch=1, window=128, shots=(1,), real_share=1.0, without_focus_share=0.0)
    drawn = Episodes(config, [validation], (), 4, [training])
    for index in range(len(drawn)):
        drawn[index]
    assert seen[-1] == "validation" and seen.count("validation") == 6 and set(seen[:-1]) == {"training", "validation"}


def test_a_class_that_no_view_shows_ends_the_search(town, monkeypatch):
    monkeypatch.setattr("refsam_qgis.engine.training.episodes.MOST_DRAWS", 5)
    raster, labels = town
    place = read([raster], labels)[0]
    monkeypatch.setattr(place, "_shapes", {"roof": np.array([corners(0, 0, 1, 1)])})
    monkeypatch.setattr(place, "_box", (0, 0, 60, 60))
    config = EpisodeConfig(steps=1, batch=1, window=128, real_share=1.0)
    with pytest.raises(RefSAMError, match="'roof' are too small"):
        Episodes(config, [place])[0]
