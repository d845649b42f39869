"""The benchmark of the learned embedding's recipe, on tiny views."""

import json
import math
import sys
from dataclasses import fields, replace

import pytest
import torch

from benchmarks.accuracy import development_lists, recipe
from benchmarks.accuracy.recipe import SHIPS, VARIANTS, Target
from refsam_qgis.engine.training.embed import EmbeddingConfig
from refsam_qgis.engine.training.view_pool import PoolConfig


@pytest.fixture
def run(red_buildings, tmp_path, monkeypatch, capsys):
    """Return a function that runs the benchmark: the record's cells, and what was said of each as it was finished."""
    monkeypatch.setattr(development_lists, "DRAWS", replace(development_lists.DRAWS, window=128))
    monkeypatch.setattr(recipe, "POOL", PoolConfig(generated=4, real=3, views=2, window=128))

    def call(*variants, steps=2):
        given = ["--data", red_buildings, "--variants", *variants, "--steps", steps, "--episodes", 2, "--workers", 0]
        given += [
            "--work",
            tmp_path / "work",
            "--record",
            tmp_path / "recipe.json",
            "--threads",
            torch.get_num_threads(),
        ]
        monkeypatch.setattr(sys, "argv", ["recipe", *map(str, given)])
        recipe.main()
        cells = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
        return {cell["key"]["variant"]: cell for cell in cells}, capsys.readouterr()

    return call


def test_one_command_one_table_and_nothing_twice(run):
    cells, said = run("full", "twice_as_long", SHIPS)
    assert cells.keys() == {"full", "twice_as_long", SHIPS}
    assert [cells[name]["settings"].get("steps") for name in ("full", "twice_as_long", SHIPS)] == [2, 4, None]
    for cell in cells.values():
        assert list(cell["result"]["miou"]) == ["generated", "scene within", "scene across", "other sensors"]
        assert cell["result"]["marked_without_class"].keys() == cell["result"]["miou"].keys()
    assert cells[SHIPS]["result"]["miou"]["scene within"] > 0.5  # red on grey
    assert cells[SHIPS]["result"]["cross_entropy"] < cells["full"]["result"]["cross_entropy"]
    assert "the embedding that ships" in said.out
    assert run("full", "no_clusters")[1].err.split()[::3] == ["no_clusters"]
    assert run("full", steps=3)[1].err.startswith("full")


def test_every_variant_changes_what_its_name_says():
    known = {part: {field.name for field in fields(part)} for part in (PoolConfig, EmbeddingConfig)}
    for variant in VARIANTS.values():
        assert variant.pool.keys() <= known[PoolConfig] and variant.training.keys() <= known[EmbeddingConfig]
    said = [(dict(variant.pool), dict(variant.training)) for variant in VARIANTS.values()]
    assert all(one != other for index, one in enumerate(said[1:-1]) for other in said[1:-1][:index])
    usual = EmbeddingConfig()
    for name in ("generated_alone", "real_alone"):  # as many views in a step, out of as many in all
        training, pool = VARIANTS[name].training, VARIANTS[name].pool
        assert training["generated"] + training["real"] == usual.generated + usual.real
        assert pool["generated"] + pool["real"] == recipe.POOL.generated + recipe.POOL.real


class Stub(torch.nn.Module):
    """Says the probability that stands in the first feature."""

    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(1)

    def forward(self, samples, inside=None):
        return samples

    def ask(self, embedded, head):
        return torch.logit(embedded[..., 0])


def target(probabilities, truth, class_name="building"):
    truth = torch.tensor(truth)
    return Target(class_name, *[torch.zeros(1)] * 2, torch.tensor(probabilities)[..., None], truth == 1, truth >= 0)


def test_figures_by_hand(monkeypatch):
    monkeypatch.setattr(recipe.FittedPrior, "learn", lambda *_: None)
    present = {"set": [target([[0.9, 0.7, 0.36, 0.1]], [[1, 1, 0, 0]]), target([[0.45, 0.9]], [[0, -1]], "pool")]}
    absent = {"set": [target([[0.45, 0.9, 0.1, 0.1]], [[0, 0, 0, -1]]), target([[0.1]], [[0]])]}
    found = recipe._figures(Stub(), present, absent)
    # Any cut between 0.36 and 0.7 finds the building and nothing else; the pool has no place to be found.
    assert found["cut"] == 0.4
    assert found["miou"] == {"set": 0.5}
    assert found["marked_without_class"] == {"set": round((2 / 3 + 0) / 2, 4)}
    losses = [
        -(math.log(0.9) + math.log(0.7) + math.log(0.64) + math.log(0.9)) / 4,
        -math.log(0.55),
        -(math.log(0.55) + math.log(0.1) + math.log(0.9)) / 3,
        -math.log(0.9),
    ]
    assert found["cross_entropy"] == pytest.approx(sum(losses) / 4, abs=1e-4)
