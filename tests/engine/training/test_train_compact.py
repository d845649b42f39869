"""The script that trains the bundled weights, with a step on tiny views."""

import hashlib
import json
import sys
from dataclasses import replace
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from refsam_qgis.engine.training.episodes import Episodes

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "train_compact"
SAM, ADAPTERS = "compact_sam.safetensors", "compact_adapters.safetensors"


@pytest.fixture
def script(monkeypatch):
    loader = SourceFileLoader("train_compact", str(SCRIPT))
    script = module_from_spec(spec_from_loader(loader.name, loader))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(script)
    small = [(replace(draws, window=64, batch=1), trainer) for draws, trainer in script.ADAPTER_STAGES]
    monkeypatch.setattr(script, "SAM_STAGES", [replace(script.SAM_STAGES[0], window=64, places=1)])
    monkeypatch.setattr(script, "ADAPTER_STAGES", small)
    monkeypatch.setattr(script, "VIEWS", replace(script.VIEWS, generated=2, real=1, views=2, window=64))
    monkeypatch.setattr(script, "DEVELOPMENT_WINDOW", 64)
    monkeypatch.setattr(script, "PROMPT_PLACES", 1)
    monkeypatch.setattr(script, "CALIBRATION", partial(script.CALIBRATION, count=2, window=64))
    return script


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    """Return a function that runs the script into a folder and returns its card."""

    def main(name, *flags):
        output = tmp_path / name
        given = ["--output", output, "--work", tmp_path / f"{name}_work", "--workers", 0, "--development-episodes", 1]
        given += ["--device", "cpu", "--adapter-steps", 1, 1, "--embedding-steps", 1, *flags]
        monkeypatch.setattr(sys, "argv", ["train_compact", *map(str, given)])
        script.main()
        return json.loads((output / "compact.json").read_text(encoding="utf-8"))

    return main


@pytest.fixture
def scenes(tmp_path):
    """Two scenes of quadrants: roofs, pools, and ground."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps({"0": "background", "1": "roof", "2": "pool"}), encoding="utf-8")
    ids = np.zeros((128, 128), np.uint8)
    ids[:64, :64], ids[64:, 64:] = 1, 2
    for name in ("north_1", "south_1"):
        Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(folder / f"{name}.png")
        Image.fromarray(ids).save(folder / f"{name}_mask.png")
    return folder


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_from_nothing_then_on_from_there(run, scenes, tmp_path, monkeypatch, script):
    first = run("first", "--scale", 0.001)
    assert [stage["stage"] for stage in first["stages"]] == [
        "geometry",
        "sam_1",
        "adapters_1",
        "adapters_2",
        "embedding",
    ]
    assert [stage["steps"] for stage in first["stages"]] == [1, 1, 1, 1, 1] and first["started_from"] is None
    for scores in (first["development"]["before_adapter_stages"], first["development"]["after_adapter_stages"]):
        assert scores.keys() == {"fitted", "cosine"} and scores["fitted"].keys() == {"generated", "generated_pseudo"}

    start = tmp_path / "first"
    # The adapters' stages leave SAM as its own stage left it, but for rounding to 16 bits.
    taught = torch.load(tmp_path / "first_work" / "sam_1.pt", weights_only=True)["weights"]
    for name, value in load_file(start / SAM).items():
        assert torch.equal(value, taught[name].to(value.dtype)), name

    second = run("second", "--start", start)
    assert [stage["stage"] for stage in second["stages"]] == ["adapters_1", "adapters_2", "embedding"]
    assert second["started_from"]["adapters_sha256"] == digest(start / ADAPTERS)
    without = [{name: value for name, value in card.items() if name != "history"} for card in (first, second)]
    assert first["history"] == [] and second["history"] == without[:1]
    assert script._history(tmp_path / "second") == without and script._history(tmp_path / "nothing") == []
    # It begins where the first ended, but for rounding to 16 bits: both are measured by the same episodes.
    ended = first["development"]["after_adapter_stages"]
    for prior, scores in second["development"]["before_adapter_stages"].items():
        assert scores == pytest.approx(ended[prior], abs=1e-3)
    assert digest(tmp_path / "second" / SAM) == digest(start / SAM)

    # The embedding goes on from the start's unless it is left as it is.
    kept = run("kept", "--start", start, "--embedding-steps", 0)
    assert [stage["stage"] for stage in kept["stages"]] == ["adapters_1", "adapters_2"]
    one, two, three = (_embedding(tmp_path / name / ADAPTERS) for name in ("first", "kept", "second"))
    assert torch.equal(one, two) and 0 < (three - one).abs().max() < 0.01

    # The calibration of other weights, and all the rest of the start.
    run("lent", "--start", tmp_path / "second", "--blend-of", start, "--adapter-steps", 0, 0, "--embedding-steps", 0)
    lent, lender, own = (load_file(tmp_path / name / ADAPTERS) for name in ("lent", "first", "second"))
    for name, value in lent.items():
        assert torch.equal(value, (lender if name.startswith("blend.") else own)[name]), name
    assert any(not torch.equal(own[name], value) for name, value in lender.items() if name.startswith("blend."))

    anew = run("anew", "--start", start, "--new-adapters", "--seed", 2)
    assert anew["started_from"]["adapters_sha256"] is None and digest(tmp_path / "anew" / SAM) == digest(start / SAM)

    more = run("more", "--start", start, "--sam-steps", 2, 0, "--seed", 2)
    assert more["stages"][0]["stage"] == "sam_1" and more["stages"][0]["steps"] == 2
    assert digest(tmp_path / "more" / SAM) != digest(start / SAM)

    decoder = run("decoder", "--start", start, "--sam-steps", 2, 0, "--decoder-only", "--seed", 2)
    assert decoder["stages"][0]["trained"] == "decoder" and more["stages"][0]["trained"] == "all"
    began, ended = load_file(start / SAM), load_file(tmp_path / "decoder" / SAM)
    changed = {name.split(".")[0] for name, value in ended.items() if not torch.equal(value, began[name])}
    assert changed == {"prompt_encoder", "mask_decoder"}

    drawn = []

    class Noted(Episodes):
        def __init__(self, config, real, *others):
            drawn.append([(place.name, place.class_names()) for place in real])
            super().__init__(config, real, *others)

    monkeypatch.setattr(script, "Episodes", Noted)
    fold = run("fold", "--start", start, "--real", scenes, "--without", "south", "pool", "--seed", 1)
    assert drawn == [[("scenes/north", ("roof",))]] * 2
    assert (fold["data"]["real_scene_held_out"], fold["data"]["real_class_held_out"]) == ("south", "pool")
    assert fold["started_from"]["sam_sha256"] == digest(start / SAM)
    assert fold["started_from"]["adapters_sha256"] is None
    assert "real" in fold["development"]["after_adapter_stages"]["fitted"]
    # The adapters of the start may have learned the class: so few steps would not hide that they were taken.
    began, trained = (load_file(tmp_path / name / ADAPTERS)["vcp.queries"] for name in ("first", "second"))
    assert torch.allclose(trained, began, atol=0.01)
    for name in ("anew", "fold"):
        assert not torch.allclose(_embedding(tmp_path / name / ADAPTERS), one, atol=0.01)
        assert not torch.allclose(load_file(tmp_path / name / ADAPTERS)["vcp.queries"], began, atol=0.01)


def _embedding(path):
    return load_file(path)["embedding.stem.weight"].float()


@pytest.mark.parametrize(
    ("flags", "told"),
    [(("--without", "south", "pool"), "2"), (("--real", "SCENES", "--without", "east", "pool"), "no scene 'east'")],
)
def test_what_cannot_be_left_out_is_said(run, scenes, flags, told):
    with pytest.raises(SystemExit, match=told):
        run("none", *(scenes if flag == "SCENES" else flag for flag in flags))
