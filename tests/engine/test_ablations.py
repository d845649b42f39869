"""The ablation benchmark, with one step on tiny views."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy import ablations
from refsam_qgis.engine.models.virefsam import ViRefSAM


@pytest.fixture
def scenes(tmp_path):
    """Two scenes of quadrants: roofs, pools, and ground."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    names = {"0": "background", "1": "roof", "2": "pool"}
    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    ids = np.zeros((128, 128), np.uint8)
    ids[:64, :64], ids[64:, 64:] = 1, 2
    for name in ("north_1", "south_1"):
        Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(folder / f"{name}.png")
        Image.fromarray(ids).save(folder / f"{name}_mask.png")
    return folder


@pytest.fixture
def run(scenes, tmp_path, monkeypatch):
    """Return a function that runs the command and returns its record."""

    def main(*flags, variants=("full", "no_queries")):
        record = tmp_path / "record.json"
        given = {
            "data": scenes, "scene": "south", "class": "pool", "steps": 1, "batch": 1, "window": 64, "episodes": 2,
            "workers": 0, "device": "cpu", "work": tmp_path / "work", "record": record,
        }  # fmt: skip
        pairs = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["ablations", *pairs, *flags, "--variants", *variants])
        ablations.main()
        return json.loads(record.read_text(encoding="utf-8"))

    costs = {"encoder_blocks": 12, "seconds_per_image": 1.5}
    monkeypatch.setattr(ablations, "SHOTS", (1, 2))
    monkeypatch.setattr(ablations, "_measure_costs", lambda options: dict.fromkeys(options.variants, costs))
    return main


def test_one_command_one_table(run, capsys, monkeypatch):
    record = run()
    full, other = record["variants"]["full"], record["variants"]["no_queries"]
    assert set(full["miou"]) == {f"{name}{end}" for name in ablations.SETS for end in ("", "_pseudo")}
    assert list(full["miou_by_shots"]) == ["1", "2"] and "miou_by_shots" not in other
    assert full["trainable"] > other["trainable"] and other["model"]["object_queries"] is False
    table = capsys.readouterr().out
    assert "| without object queries |" in table and "| K |" in table

    # Given again, nothing is trained again; another setting is not mixed in.
    monkeypatch.setattr(ablations, "train_adapters", None)
    assert run()["variants"]["full"]["miou"] == full["miou"]
    with pytest.raises(SystemExit, match="other settings"):
        run("--seed", "1")


def test_a_fitted_prior_is_trained_with_and_measured_with(run, monkeypatch):
    measured = []

    def say(model, sets, fitted=False):
        measured.append(fitted)
        return dict.fromkeys([f"{name}{end}" for name in ablations.SETS for end in ("", "_pseudo")], 0.5)

    monkeypatch.setattr(ablations, "mean_ious", say)
    found = run(variants=("prior_fitted", "prior_both", "no_adapters"))["variants"]
    assert measured == [True, True, False]
    assert [one["training"]["fitted_share"] for one in found.values()] == [1.0, 0.7, 0.0]
    assert [one["measured_with"] for one in found.values()] == ["fitted prior", "fitted prior", "cosine"]
    assert found["prior_fitted"]["title"] == "prior: fitted" and found["prior_both"]["title"] == "prior: both"


def test_costs_of_one_full_frame(monkeypatch):
    monkeypatch.setattr(ablations, "TIMINGS", 1)
    names = ["shared_prefix", "prior_fitted"]
    options = ablations.argparse.Namespace(checkpoint=None, seed=0, device="cpu", variants=names)
    costs = ablations._measure_costs(options)
    assert [costs[name]["encoder_blocks"] for name in names] == [6, 12]
    assert all(costs[name]["seconds_per_image"] > 0 for name in names)


def test_neither_scene_nor_class_is_trained_on(scenes):
    options = ablations.argparse.Namespace(data=scenes, scene="south", left_out="pool")
    training, sets = ablations._read_data(options)
    assert [(place.name, place.class_names()) for place in training] == [("scenes/north", ("roof",))]
    found = {name: [(place.name, place.class_names()) for place in places] for name, places in sets.items()}
    assert found == {
        "left_out_class": [("scenes/south", ("pool",))],
        "left_out_scene": [("scenes/south", ("roof",))],
    }


@pytest.mark.parametrize("wrong", [{"scene": "east"}, {"left_out": "tree"}])
def test_what_is_left_out_has_to_be_there(scenes, wrong):
    options = ablations.argparse.Namespace(**{"data": scenes, "scene": "south", "left_out": "pool", **wrong})
    with pytest.raises(ablations.RefSAMError, match=r"north, south and its classes pool, roof"):
        ablations._read_data(options)


def test_variants_start_alike_where_they_can(monkeypatch):
    monkeypatch.setattr(ablations, "load_sam", lambda options: ablations_sam())
    options = ablations.argparse.Namespace(checkpoint=None, seed=4)
    torch.manual_seed(4)
    full = ViRefSAM(ablations_sam()).trainable_state()
    for variant in ablations.VARIANTS.values():
        model = ablations._start(variant, options)
        own = model.trainable_state()
        assert model.config == variant.model
        differing = {name for name, value in own.items() if not torch.equal(value, full[name])}
        # Only the mixing that reads no prototype has another shape.
        assert all(name.endswith("mix.weight") and not variant.model.position_code for name in differing)


def ablations_sam():
    from refsam_qgis.engine.models.sam import build_sam

    generator = torch.random.get_rng_state()
    sam = build_sam("compact")
    torch.random.set_rng_state(generator)
    return sam
