"""Generated scenes: reproducible, with labels that agree with each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from refsam_qgis.engine.training.scenes import CLASSES, Scene, SceneStyle, render_scene, sample_style
from refsam_qgis.engine.training.scenes.classes import REGION_CLASSES
from refsam_qgis.engine.training.scenes.grounds import base_canvas
from refsam_qgis.engine.training.scenes.regions import connected_regions
from refsam_qgis.engine.training.scenes.structures import draw_building


def style_of(seed: int, gsd: float | None = None) -> SceneStyle:
    return sample_style(np.random.default_rng(seed), gsd)


def scene_of(seed: int, gsd: float | None = 0.3, focus: str | None = None, size: int | tuple[int, int] = 128) -> Scene:
    return render_scene(style_of(seed, gsd), np.random.default_rng(seed + 1000), size, focus)


def test_equal_seeds_give_equal_scenes():
    first, second = scene_of(3), scene_of(3)
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.classes, second.classes)
    assert np.array_equal(first.instances, second.instances)


def test_another_seed_gives_another_tile_of_the_same_place():
    style = style_of(3)
    first, second = (render_scene(style, np.random.default_rng(seed), 128) for seed in (1, 2))
    assert not np.array_equal(first.classes, second.classes)
    assert first.gsd == second.gsd == style.gsd


@pytest.mark.parametrize("seed", range(12))
def test_labels_agree(seed):
    scene = scene_of(seed, gsd=None, size=(96, 160))
    assert scene.image.shape == (96, 160, 3)
    assert scene.image.dtype == np.uint8
    assert scene.classes.dtype == np.uint8
    assert scene.instances.dtype == np.uint16
    assert scene.classes.max() < len(CLASSES)
    assert np.array_equal(scene.instances > 0, scene.classes > 0)
    pairs = np.unique(np.stack([scene.instances.ravel(), scene.classes.ravel()]), axis=1)
    numbers = pairs[0]
    assert len(numbers) == len(set(numbers.tolist())), "an object with two classes"
    assert numbers.max(initial=0) == np.count_nonzero(numbers), "gaps in the numbering"


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_connected_and_complete(seed):
    scene = scene_of(seed, gsd=1.0)
    parts = connected_regions(scene.classes.astype(np.int64))
    for name in REGION_CLASSES:
        inside = scene.classes == CLASSES.index(name)
        pairs = np.unique(np.stack([scene.instances[inside], parts[inside]]), axis=1)
        assert pairs.shape[1] == len(set(pairs[0].tolist())) == len(set(pairs[1].tolist()))


@pytest.mark.parametrize("name", CLASSES[1:])
def test_the_focus_appears(name):
    wanted = CLASSES.index(name)
    for seed in range(3):
        assert (scene_of(seed, focus=name, size=192).classes == wanted).any()


def test_an_unknown_focus_is_refused():
    with pytest.raises(ValueError, match="castle"):
        scene_of(0, focus="castle")


def test_a_shadow_keeps_the_class_of_the_ground():
    style = dataclasses.replace(style_of(1, gsd=0.5), shadow=(2.0, 0.0), lean=(0.0, 0.0))
    canvas = base_canvas(style, np.random.default_rng(0), 128, 128)
    before = np.asarray(canvas.labels).copy()
    draw_building(canvas, 100.0, 128.0, 40.0, 30.0, 0.0)
    labels, shadows = np.asarray(canvas.labels), np.asarray(canvas.shadows) > 0
    on_building = np.array(canvas.class_of)[labels] == CLASSES.index("building")
    fallen = shadows & ~on_building
    assert fallen.sum() > 100
    assert fallen[128, 125:140].all(), "the shadow falls away from the sun"
    assert np.array_equal(labels[~on_building], before[~on_building])


def test_connected_regions_of_a_spiral():
    keys = np.array([[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]], np.int64)
    expected = np.array([[0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert np.array_equal(connected_regions(keys), expected)


def test_the_ground_size_is_kept_or_drawn_within_the_range():
    assert style_of(0, gsd=0.37).gsd == 0.37
    drawn = [style_of(seed).gsd for seed in range(40)]
    assert 0.1 <= min(drawn) < 0.25
    assert 0.8 < max(drawn) <= 2.0


def test_a_focus_makes_the_class_more_plentiful():
    building = CLASSES.index("building")
    plain = sum((scene_of(seed, gsd=0.5).classes == building).mean() for seed in range(8))
    focused = sum((scene_of(seed, gsd=0.5, focus="building").classes == building).mean() for seed in range(8))
    assert focused > plain
