from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from benchmarks.accuracy.sam_reference import as_pixels, segment_anything_own
from refsam_qgis.engine.models import promptable
from refsam_qgis.engine.models.automatic_masks import (
    AutomaticMasks,
    MaskRules,
    generate_masks,
    point_grid,
    suppress,
)
from refsam_qgis.engine.models.promptable import PromptableSegmenter
from tests.engine.models.test_promptable import picture
from tests.engine.pocket_sam import pocket_sam

SIDE = 5
SIZE = (160, 256)


class BlobDecoder(torch.nn.Module):
    """Answers each prompt with three blobs whose places, sizes, blurs and ratings hang on the prompt's embedding."""

    def forward(self, image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, multimask_output):
        assert multimask_output
        draws = (sparse_prompt_embeddings[:, 0, :15] * 5).sin().reshape(-1, 3, 5, 1, 1) / 2 + 0.5
        x, y, size, blur, rating = draws.unbind(2)
        rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        distance = torch.hypot(columns - 256 * x, rows - 160 * y)
        return (6 + 30 * size - distance) * (0.1 + blur), rating.flatten(1)


def ask_blobs(monkeypatch):
    """Ask a decoder of blobs as segment_anything asks it, where RefSAM asks by itself."""
    monkeypatch.setattr(promptable, "decode", lambda sam, *prompted: sam.mask_decoder(*prompted))


@pytest.fixture(autouse=True)
def _blobs(monkeypatch):
    ask_blobs(monkeypatch)


@pytest.fixture(scope="module")
def seen():
    """A SAM that answers with blobs, an oblong image, and what SAM sees in it."""
    sam = copy.deepcopy(pocket_sam())
    sam.mask_decoder = BlobDecoder()
    segmenter = PromptableSegmenter(sam)
    image = picture(*SIZE)
    return segmenter, image, segmenter.encode(torch.from_numpy(image), torch.ones(SIZE, dtype=torch.bool))


@pytest.mark.parametrize(
    ("min_iou", "min_stability", "max_overlap"), [(0.5, 0.8, 0.7), (0.5, 0.0, 0.7), (0.0, 0.8, 0.7), (0.0, 0.0, 0.1)]
)
def test_masks_equal_segment_anything(seen, min_iou, min_stability, max_overlap):
    segmenter, image, encoded = seen
    rules = MaskRules(min_iou, min_stability, max_overlap)
    ours = generate_masks(segmenter, encoded, point_grid(SIDE, SIZE), rules)
    theirs = segment_anything_own().SamAutomaticMaskGenerator(
        segmenter.sam, SIDE, points_per_batch=SIDE, pred_iou_thresh=min_iou, stability_score_thresh=min_stability,
        box_nms_thresh=max_overlap,
    ).generate(as_pixels(image))  # fmt: skip
    assert len(ours) == len(theirs) and 5 < len(theirs) < 3 * SIDE**2
    for index, other in enumerate(theirs):
        left, top, width, height = other["bbox"]
        assert ours.boxes[index].tolist() == [left, top, left + width, top + height]
        assert ours.predicted_iou[index] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert ours.stability[index] == pytest.approx(other["stability_score"], abs=1e-3)
        assert np.array_equal(ours.mask(index), other["segmentation"])


def test_points_and_progress(seen):
    segmenter, _, encoded = seen
    done = []
    masks = generate_masks(segmenter, encoded, point_grid(SIDE, SIZE)[:10], MaskRules(9, 0, 0.7), done.append)
    assert len(masks) == 0 and done == [8, 10]
    assert len(AutomaticMasks.from_array(masks.to_array())) == 0


def test_masks_survive_packing(seen):
    segmenter, _, encoded = seen
    masks = generate_masks(segmenter, encoded, point_grid(2, SIZE), MaskRules(0, 0, 0.9))
    again = AutomaticMasks.from_array(masks.to_array())
    assert len(again) == len(masks) > 5 and again.runs == masks.runs
    for name in ("boxes", "predicted_iou", "stability"):
        assert np.array_equal(getattr(again, name), getattr(masks, name))


def test_grid_is_spread_evenly():
    assert point_grid(2, (40, 80)).tolist() == [[20, 10], [60, 10], [20, 30], [60, 30]]


def test_suppression_equals_its_definition():
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 60, (120, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 50, (120, 2))], axis=1)
    scores = rng.integers(0, 20, 120) / 20
    kept = []
    for i in sorted(range(120), key=lambda i: -scores[i]):
        a = boxes[i]
        for j in kept:
            b = boxes[j]
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
            if shared > 0.5 * either:
                break
        else:
            kept.append(i)
    assert suppress(boxes, scores, 0.5).tolist() == kept and 10 < len(kept) < 110
