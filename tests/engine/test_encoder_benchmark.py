"""The encoder's benchmark on an encoder of two blocks."""

import json
import types

import pytest
import torch

from benchmarks.speed import encoder as benchmark
from tests.engine.models.test_encoder import build


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "INPUT_SIZE", 320)
    sam = types.SimpleNamespace(image_encoder=build())
    sam.requires_grad_ = lambda wanted: sam
    monkeypatch.setattr(benchmark, "build_sam", lambda model: sam)


def measure(precision, repeats, encoders):
    return benchmark.measure("compact", "cpu", precision, None, repeats, encoders)


def test_both_encoders_run_in_turn_and_agree(small):
    found = measure("float32", 3, ["reference", "ours"])
    assert {name: len(times) for name, times in found["seconds"].items()} == {"reference": 3, "ours": 3}
    assert 0 < found["error"] <= 1e-4 and found["cosine"] == pytest.approx(1.0)
    rounded = measure("bfloat16", 1, ["reference", "ours"])
    assert rounded["error"] > 10 * found["error"] and rounded["cosine"] >= 0.9995


def test_working_memory_is_that_of_one_encoder(small):
    assert set(measure("float32", 0, ["ours"])) == {"ours_working_bytes"}


def test_what_the_machine_lacks_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(benchmark, "choose_precision", lambda device: torch.float32)
    ran = []

    def run(cell, repeats, threads):
        ran.append((cell["model"], cell["device"], cell["precision"], cell["allocator"]))
        times = {"reference": [2.0], "ours": [1.0]}
        return {
            "ratio": 0.5, "processor_ratio": 0.5, "seconds": times, "processor_seconds": times, "error": 1e-6,
            "cosine": 1.0, "reference_working_bytes": 10**9, "ours_working_bytes": 10**8,
        }  # fmt: skip

    monkeypatch.setattr(benchmark, "_run", run)
    record = tmp_path / "record.json"
    monkeypatch.setattr("sys.argv", ["encoder", "--models", "compact", "--record", str(record)])
    benchmark.main()
    assert ran == [("compact", "cpu", "float32", "default"), ("compact", "cpu", "float32", "kept")]
    lines = capsys.readouterr().out.splitlines()
    assert any("vit_h | cuda | bfloat16" in line and "not measured" in line for line in lines)
    assert len(json.loads(record.read_text())) == 2 and record.with_suffix(".png").stat().st_size > 0
