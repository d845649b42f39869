from __future__ import annotations

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from scipy.ndimage import gaussian_filter, label

from refsam_qgis.engine.errors import JobCancelled
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import PolygonOptions
from refsam_qgis.engine.rasters import separate
from refsam_qgis.engine.rasters.outlines import finish_objects
from refsam_qgis.engine.rasters.separate import separate_touching, split


class Listener(SilentReporter):
    def __init__(self, cancelled=False):
        self.messages = []
        self.cancelled = cancelled

    def log(self, message):
        self.messages.append(message)

    def is_cancelled(self):
        return self.cancelled


def discs(*centres, radius=14, shape=(60, 90), noise=0.0, seed=0):
    """Probabilities that fall from the middle of discs to 0.5 at their edge, and on."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    far = np.min([np.hypot(rows - row, columns - column) for row, column in centres], axis=0)
    bumps = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.0)
    return np.clip(1 - 0.5 * far / radius + noise * bumps / bumps.std(), 0, 1).astype(np.float32)


def bumpy(seed, shape=(60, 70), blur=3.0):
    """A large 4-connected object with many peaks."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), blur)
    probability = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    parts, _ = label(probability > 0.35)
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1, probability


def peaks_by_flooding(mask, probability, dip):
    """Independent count of the peaks that rise at least `dip` above every way to a higher one.

    At each level the 4-connected parts above it are labelled; a part's peak dies where parts meet.
    """
    count = 1
    previous, tops = np.zeros(mask.shape, int), {}
    for level in np.unique(probability[mask])[::-1]:
        parts, number = label(mask & (probability >= level))
        now = {}
        for part in range(1, number + 1):
            members = np.unique(previous[parts == part])
            heights = sorted((tops[m] for m in members if m > 0), reverse=True)
            now[part] = heights[0] if heights else level
            count += sum(top - level >= dip for top in heights[1:])
        previous, tops = parts, now
    return count


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_two_touching_discs_are_two_and_one_stays_one(noise):
    for centres, expected in ((((30, 30), (30, 54)), 2), (((30, 45),), 1)):
        probability = discs(*centres, noise=noise)
        parts, _ = label(probability >= 0.5)
        mask = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        labels = split(mask, probability, 0.2)
        assert labels.max() == expected
        if expected == 2:
            cut = np.flatnonzero((np.diff(labels[30]) != 0) & (labels[30, 1:] > 0) & (labels[30, :-1] > 0))
            assert len(cut) == 1 and abs(cut[0] - 41.5) <= 2
        assert split(mask, probability, 0.9).max() == 1


@pytest.mark.parametrize("dip", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_parts_are_as_many_as_the_peaks_that_stand_out(seed, dip):
    mask, probability = bumpy(seed)
    labels = split(mask, probability, dip)
    assert labels.max() == peaks_by_flooding(mask, probability, dip)
    assert np.array_equal(labels > 0, mask)
    for part in range(1, labels.max() + 1):
        assert label(labels == part)[1] == 1


def test_a_plateau_is_one_object():
    mask = np.ones((30, 40), bool)
    assert split(mask, np.full(mask.shape, 0.9, np.float32), 0.01).max() == 1


def test_a_dip_as_deep_as_asked_parts():
    probability = np.array([[1, 0.5, 1]], np.float32)
    assert split(probability > 0, probability, 0.5).max() == 2
    assert split(probability > 0, probability, np.nextafter(0.5, 1)).max() == 1


def test_the_separation_is_that_of_the_turned_object():
    mask, probability = bumpy(5)
    labels = split(mask, probability, 0.1)
    turned = np.rot90(split(np.rot90(mask), np.rot90(probability), 0.1), -1)
    pairs = np.unique(np.stack([labels[mask], turned[mask]]), axis=1)
    assert pairs.shape[1] == labels.max() == turned.max()


def test_parts_replace_their_object(pixel_grid, pixel_objects):
    """Every part has its own id, score and area; the objects beside it stay as they are."""
    probability = np.zeros((60, 140), np.float32)
    probability[:, :90] = discs((30, 30), (30, 54))
    probability[20:40, 100:130] = 0.8
    classes = np.where(probability >= 0.5, 1, 0).astype(np.uint8)
    classes[20:40, 100:130] = 2
    grid = pixel_grid(raster_width=500, origin=(40, 60))
    table = pixel_objects(classes, grid, PolygonOptions(), probability, 16)
    asked = []

    def read(class_id, window):
        asked.append(class_id)
        rows, columns = window.toslices()
        return probability[rows, columns]

    done = separate_touching(table, grid, read, 0.2, SilentReporter())
    assert sorted(asked) == [1, 2]
    assert done.class_ids.tolist() == [1, 1, 2] and len(table.polygons) == 2
    assert done.polygons[2] is table.polygons[1] and done.object_ids[2] == table.object_ids[1]
    assert shapely.is_valid(done.polygons).all()
    assert shapely.union_all(done.polygons[:2]).equals(table.polygons[0])
    assert done.areas[:2].sum() == pytest.approx(table.areas[0])
    drawn = rasterize(zip(done.polygons, (1, 2, 3), strict=True), classes.shape, transform=grid.transform)
    for i, score in enumerate(done.scores, 1):
        assert score == pytest.approx(probability[drawn == i].mean(), abs=1e-6)
        row, column = np.argwhere(drawn == i)[0]
        assert done.object_ids[i - 1] == 1 + (row + 40) * 500 + column + 60
    simple = finish_objects(done, grid, PolygonOptions(simplify=1.0))
    assert simple.object_ids.tolist() == done.object_ids.tolist()
    assert shapely.coverage_is_valid(simple.polygons)
    assert simple.polygons[0].intersection(simple.polygons[1]).length > 5  # still side by side


def test_parts_of_what_fills_its_box_have_their_own_ids(pixel_grid, pixel_objects):
    """There is no pixel beside the parts then."""
    probability = np.broadcast_to(1 - 0.4 * np.cos(np.linspace(-2, 2, 40)), (20, 40)).astype(np.float32)
    grid = pixel_grid(raster_width=500, origin=(7, 9))
    table = pixel_objects(np.ones((20, 40), np.uint8), grid, PolygonOptions(), probability)
    done = separate_touching(table, grid, lambda _, window: probability[window.toslices()], 0.2, SilentReporter())
    drawn = rasterize(zip(done.polygons, (1, 2), strict=True), probability.shape, transform=grid.transform)
    firsts = [np.argwhere(drawn == part)[0] for part in (1, 2)]
    assert done.object_ids.tolist() == [1 + (row + 7) * 500 + column + 9 for row, column in firsts]
    assert len(done.scores) == 2 and done.scores[0] == pytest.approx(probability[drawn == 1].mean(), abs=1e-6)


def test_extent_and_blocks_do_not_change_the_parts(pixel_grid, pixel_objects):
    probability = discs((30, 30), (30, 54), (70, 60), noise=0.02, shape=(100, 110))
    classes = (probability >= 0.5).astype(np.uint8)
    results = []
    for top, left, step in ((0, 0, None), (0, 0, 7), (5, 3, 16)):
        part = probability[top:, left:]
        grid = pixel_grid(raster_width=110, origin=(top, left))
        table = pixel_objects(classes[top:, left:], grid, PolygonOptions(min_area=5.0), part, step)
        results.append(
            separate_touching(table, grid, lambda _, window, part=part: part[window.toslices()], 0.2, SilentReporter())
        )
    for other in results[1:]:
        assert other.object_ids.tolist() == results[0].object_ids.tolist()
        one, two = shapely.normalize(results[0].polygons), shapely.normalize(other.polygons)
        assert shapely.equals_exact(one, two, 1e-6).all()
    assert len(results[0].polygons) == 3


def test_large_objects_stay_whole_and_the_user_hears_it(pixel_grid, pixel_objects, monkeypatch):
    monkeypatch.setattr(separate, "MAX_PIXELS", 100)
    probability = discs((30, 30), (30, 54))
    grid = pixel_grid()
    table = pixel_objects((probability >= 0.5).astype(np.uint8), grid, PolygonOptions(), probability)
    listener = Listener()
    done = separate_touching(table, grid, lambda *_: pytest.fail("read"), 0.2, listener)
    assert done is table and len(listener.messages) == 1
    with pytest.raises(JobCancelled):
        separate_touching(table, grid, lambda *_: probability, 0.2, Listener(cancelled=True))
