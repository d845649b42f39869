"""The benchmark of ways to join fitted map, decoder and prototypes, on tiny views."""

import itertools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy import blends
from benchmarks.accuracy.blends import BLENDS, Seen
from refsam_qgis.engine.training.sources import TEST_CLASSES, read_places


@pytest.fixture
def scenes(tmp_path):
    """Three scenes of red buildings on grey ground; the unseen one has images without a building too."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps({"0": "background", "1": "building"}), encoding="utf-8")
    rng = np.random.default_rng(0)
    for name, built in (("east_1", True), ("west_1", True), ("tile7_1", True), ("tile7_2", False)):
        ids = np.zeros((128, 128), np.uint8)
        ids[30:90, 40:100] = built
        colours = np.where(ids[..., None] == 1, (180, 60, 50), (110, 115, 105)) + rng.normal(0, 8, (128, 128, 3))
        Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")
        Image.fromarray(ids).save(folder / f"{name}_mask.png")
    return folder


def test_one_command_one_table(scenes, tmp_path, monkeypatch, capsys):
    record = tmp_path / "blends.json"
    monkeypatch.setattr(blends, "DRAWS", replace(blends.DRAWS, window=128))
    given = ["--data", scenes, "--episodes", 2, "--threads", torch.get_num_threads(), "--record", record]
    monkeypatch.setattr(sys, "argv", ["blends", *map(str, given)])
    blends.main()
    rows = json.loads(record.read_text(encoding="utf-8"))
    assert [row["blend"] for row in rows[:: len(blends.THRESHOLDS)]] == list(BLENDS)
    for row in rows:
        assert list(row["miou"]) == ["generated", "scene within", "scene across", "other sensors"]
        assert row["marked_without_class"].keys() == row["miou"].keys()
    assert max(row["miou"]["scene within"] for row in rows) > 0.5
    assert "(ships)" in capsys.readouterr().out


def test_every_set_is_drawn_from_its_own_images(scenes):
    places = read_places(scenes)
    known, unseen = [places["east"], places["west"]], [places["tile7"]]
    drawn = {name: list(episodes) for name, episodes in blends._sets(known, unseen, 2).items()}
    targets = {name: [batch["target"].numpy().tobytes() for batch in episodes] for name, episodes in drawn.items()}
    assert all(one != other for one, other in itertools.combinations(targets.values(), 2)) and len(targets) == 9
    classes = {name: {batch["classes"][0] for batch in episodes} for name, episodes in drawn.items()}
    assert classes["generated"] <= TEST_CLASSES and not classes["training, generated within"] & TEST_CLASSES
    assert all(classes[name] == {"building"} for name in drawn if "real" in name or "scene" in name)


def seen(prior, truth, closeness=1.0, class_name="building"):
    prior, truth = torch.tensor(prior), torch.tensor(truth)
    return Seen(class_name, prior, *[torch.zeros_like(prior)] * 5, closeness, None, truth, truth >= 0)


def test_figures_by_hand():
    training = [seen([[-2.0, -1.0], [1.0, 2.0]], [[False, False], [True, True]])] * 4
    # Of three pixels found two are right, and one is missed; a class of its own is found whole.
    group = [
        seen([[3.0, 3.0], [3.0, -3.0]], [[True, True], [False, True]]),
        seen([[3.0, -3.0]], [[True, False]], class_name="pool"),
    ]
    absent = [seen([[3.0, -3.0], [-3.0, -3.0]], [[False, False], [False, False]])]
    rows = list(blends._measure("prior", training, {"set": group}, {"set": absent}))
    half = next(row for row in rows if row["threshold"] == 0.5)
    assert half["miou"]["set"] == pytest.approx((2 / 4 + 1) / 2)
    assert half["marked_without_class"]["set"] == 0.25
    assert half["offset"] == pytest.approx(0, abs=0.01) and half["weights"][0] > 1
    assert 0 < half["held_out_loss"] < 0.01  # all four are alike, and told apart


def test_what_ships_is_smoothed_term_by_term():
    one = seen([[1.0, 2.0]], [[True, False]], closeness=0.5)
    one = replace(one, edges=SimpleNamespace(smooth=lambda values: 3 * values))
    plain = "close × (prior, cosine), likeness, trees"
    smoothed = BLENDS[plain + ", learned; smoothed (ships)"](one)
    assert smoothed[0].tolist() == [[1.5, 3.0]]
    assert all(
        torch.equal(ours, 3 * theirs) for ours, theirs in zip(smoothed, [*BLENDS[plain](one), one.learned], strict=True)
    )
