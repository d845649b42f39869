"""What the record of a training says of its log."""

import json

import pytest

from benchmarks.accuracy.training_curves import read_stage


def test_a_resumed_log_counts_its_time_whole_and_its_steps_once(tmp_path):
    lines = [
        {"step": 25, "seconds": 50.0, "mask": 2.0, "waited": 0.5},
        {"step": 50, "seconds": 100.0, "mask": 1.5, "waited": 0.1},
        {"step": 50, "seconds": 104.0, "development": {"generated_points": 0.4}},
        {"step": 50, "seconds": 30.0, "mask": 1.4, "waited": 0.2},  # resumed from step 40, and stopped at once
        {"step": 75, "seconds": 80.0, "mask": 1.0, "waited": 0.1},
    ]
    log = tmp_path / "sam_1.log"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    card = {"stages": [{"stage": "geometry", "shapes": 3}, {"stage": "sam_1", "steps": 75, "views": 600}]}
    stage = read_stage(log, card)
    assert stage["seconds"] == 184 and stage["samples_per_second"] == pytest.approx(600 / 184, abs=0.01)
    assert stage["losses"] == [(25, 2.0), (50, 1.4), (75, 1.0)]
    assert stage["development"] == [(50, {"generated_points": 0.4})]
    assert stage["waited"] == pytest.approx((12.5 + 2.5 + 2.5) / 184, abs=0.001)
