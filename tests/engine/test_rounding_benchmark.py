"""The benchmark of what bfloat16 changes, with segmenters that answer by hand."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import rounding

CUT = -0.8473  # of probability 0.3


class Answers:
    """Says the same of every tile."""

    def __init__(self, features, logits):
        self.features, self.logits = torch.tensor(features), torch.tensor(logits)

    def describe(self, shots):
        assert shots.valid.all() and shots.images.dtype == torch.uint8

    def encode(self, images, valid):
        return SimpleNamespace(features=self.features)

    def segment(self, encoding, reference):
        return self.logits


def test_figures_by_hand(monkeypatch):
    both = {
        torch.float32: Answers([1.0, 0.0], [CUT + 0.1, 1.0, 2.0, -3.0]),
        torch.bfloat16: Answers([3.0, 4.0], [CUT - 0.1, 1.0, 2.0, -3.0]),
    }
    monkeypatch.setattr(rounding, "_load", lambda method, precision: both[precision])
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    batch = {"references": image[None], "reference_masks": torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "target": image}
    row = rounding._measure("fitted", [batch, batch])
    assert row["method"] == "fitted" and row["least cosine of features"] == pytest.approx(0.6)
    assert [row[name] for name in ("IoU of all masks", "median IoU", "least IoU")] == pytest.approx([0.6667] * 3)
