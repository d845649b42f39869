from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models import weight_files
from refsam_qgis.engine.models.fit_rules import FitRules
from refsam_qgis.engine.models.prototypes import Prototypes
from refsam_qgis.engine.models.segmenter import FOREGROUND, Shots
from refsam_qgis.engine.references import descriptions
from refsam_qgis.engine.references.descriptions import describe
from tests.engine.stand_ins import ColourSegmenter


class PortableSegmenter(ColourSegmenter):
    """Describes by numbers that no text holds exactly, and counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def describe(self, shots, encodings=()):
        self.asked += 1
        return Prototypes(super().describe(shots)[None, None] / 3, torch.tensor([[True]]), 1)

    def dump_reference(self, reference):
        return reference.dump()

    def restore_reference(self, tensors):
        return Prototypes.restore(tensors, self.device)


def shots(seed=0):
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    masks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    masks[:, 3:9, 3:9] = FOREGROUND
    return Shots(images, masks, torch.ones(2, 16, 16, dtype=torch.bool))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache" / "prototypes"


@pytest.fixture
def options(tmp_path):
    checkpoint = tmp_path / "sam.pth"
    checkpoint.write_bytes(b"weights")
    return ModelOptions("vit_b", str(checkpoint))


def same(one, other):
    return torch.equal(one.vectors, other.vectors) and torch.equal(one.valid, other.valid) and one.shots == other.shots


def test_the_same_shots_are_described_once(options):
    first, second = PortableSegmenter(), PortableSegmenter()
    computed = describe(first, options, shots())
    assert same(describe(second, options, shots()), computed)
    assert (first.asked, second.asked) == (1, 0)


def test_whatever_matters_is_described_anew(options, tmp_path, monkeypatch):
    model = PortableSegmenter()
    describe(model, options, shots())
    describe(model, options, shots(1))
    moved = shots()
    moved.masks[0, 0, 0] = FOREGROUND
    describe(model, options, moved)
    assert model.asked == 3
    copy = tmp_path / "copy.pth"
    copy.write_bytes(b"weights")
    describe(model, ModelOptions("vit_b", str(copy)), shots())
    assert model.asked == 3  # a checkpoint by another name is the same
    copy.write_bytes(b"others!")
    os.utime(copy, ns=(1, 1))
    describe(model, ModelOptions("vit_b", str(copy)), shots())
    assert model.asked == 4
    adapters = tmp_path / "a.safetensors"
    adapters.write_bytes(b"adapters")
    describe(model, ModelOptions("vit_b", options.checkpoint, str(adapters)), shots())
    assert model.asked == 5
    monkeypatch.setattr(descriptions, "__version__", "99.0")
    describe(model, options, shots())
    assert model.asked == 6
    monkeypatch.setattr(PortableSegmenter, "device", torch.device("meta"))
    describe(model, options, shots())
    assert model.asked == 7
    describe(model, replace(options, method="training_free"), shots())
    assert model.asked == 8
    rules = FitRules(ridge=1.0)
    monkeypatch.setattr(weight_files, "FitRules", lambda: rules)
    describe(model, replace(options, method="training_free"), shots())
    assert model.asked == 8  # nothing is fitted there
    describe(model, options, shots())
    assert model.asked == 9
    monkeypatch.setattr(descriptions, "name_precision", lambda device: "another")
    describe(model, options, shots())
    assert model.asked == 10
    monkeypatch.setattr(torch, "__version__", "99.0")
    describe(model, options, shots())
    assert model.asked == 11


@pytest.mark.parametrize("damage", [b"", b"x" * 500, None], ids=["empty", "foreign", "flipped"])
def test_a_damaged_cache_is_as_good_as_none(options, cache, damage):
    model = PortableSegmenter()
    computed = describe(model, options, shots())
    (stored,) = cache.iterdir()
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content if damage is None else damage)
    assert same(describe(model, options, shots()), computed) and model.asked == 2
    assert same(describe(model, options, shots()), computed) and model.asked == 2


def test_an_unwritable_cache_is_as_good_as_none(options, cache):
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    model = PortableSegmenter()
    describe(model, options, shots())
    describe(model, options, shots())
    assert model.asked == 2


def test_what_is_not_used_for_longest_is_forgotten(options, cache, monkeypatch):
    monkeypatch.setattr(descriptions, "MAX_KEPT", 3)
    model = PortableSegmenter()
    for seed in range(3):
        describe(model, options, shots(seed))
        for age, path in enumerate(sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, ns=(age, age))
    describe(model, options, shots(0))
    describe(model, options, shots(3))
    assert len(list(cache.iterdir())) == 3 and model.asked == 4
    describe(model, options, shots(0))
    assert model.asked == 4
    describe(model, options, shots(1))
    assert model.asked == 5


def test_a_failing_write_leaves_nothing(options, cache, monkeypatch):
    def full(*paths):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    describe(PortableSegmenter(), options, shots())
    assert list(cache.iterdir()) == []


def test_a_segmenter_that_cannot_store_is_asked_every_time(cache):
    described = describe(ColourSegmenter(), ModelOptions(), shots())
    assert torch.equal(described, ColourSegmenter().describe(shots())) and not cache.exists()
