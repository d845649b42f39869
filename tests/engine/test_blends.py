"""The benchmark of ways to join fitted map, decoder and prototypes, on tiny views."""

import itertools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks.accuracy import blends, development_lists
from benchmarks.accuracy.blends import BLENDS, Seen
from refsam_qgis.engine.training.sources import TEST_CLASSES, read_places


def test_one_command_one_table(red_buildings, tmp_path, monkeypatch, capsys):
    record = tmp_path / "blends.json"
    for module in (blends, development_lists):
        monkeypatch.setattr(module, "DRAWS", replace(blends.DRAWS, window=128))
    given = ["--data", red_buildings, "--episodes", 2, "--threads", torch.get_num_threads(), "--record", record]
    monkeypatch.setattr(sys, "argv", ["blends", *map(str, given)])
    blends.main()
    rows = json.loads(record.read_text(encoding="utf-8"))
    assert [row["blend"] for row in rows[:: len(blends.THRESHOLDS)]] == list(BLENDS)
    for row in rows:
        assert list(row["miou"]) == ["generated", "scene within", "scene across", "other sensors"]
        assert row["marked_without_class"].keys() == row["miou"].keys()
    assert max(row["miou"]["scene within"] for row in rows) > 0.5
    assert "(ships)" in capsys.readouterr().out


def test_every_set_is_drawn_from_its_own_images(red_buildings):
    places = read_places(red_buildings)
    known, unseen = [places["east"], places["west"]], [places["tile7"]]
    lists = {f"training, {name}": episodes for name, episodes in blends._training(known, 2).items()}
    lists |= development_lists.targets_with_class(known, unseen, 2)
    drawn = {name: list(episodes) for name, episodes in lists.items()}
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
