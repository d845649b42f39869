import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines import stitched
from refsam_qgis.engine.evaluation.baselines.stitched import (
    StitchedSegmenter,
    clean_logits,
    confident_mean,
    draw_prompts,
    key_agreement,
    stitch,
)
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED, Shots
from tests.engine.pocket_sam import pocket_sam


def noise(side, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, side, side)).astype(np.uint8))


def key_mask(side, rows=slice(2, 6), columns=slice(4, 8)):
    mask = torch.full((side, side), BACKGROUND, dtype=torch.uint8)
    mask[rows, columns] = FOREGROUND
    return mask


def whole(side):
    return torch.ones(side, side, dtype=torch.bool)


def picture(side=16):
    return stitch(noise(side, 0), key_mask(side), whole(side), noise(side, 1), whole(side))


def test_the_key_is_left_and_the_query_right():
    key, query = noise(16, 0), noise(12, 1)
    query_valid = whole(12)
    query_valid[10:] = False
    both = stitch(key, key_mask(16), whole(16), query, query_valid)
    assert both.half == 16 and both.image.shape == (3, 32, 32)
    assert torch.equal(both.image[:, :16, :16], key) and torch.equal(both.image[:, :12, 16:28], query)
    assert both.valid[:16, :16].all() and both.valid[:10, 16:28].all() and both.valid.sum() == 16 * 16 + 10 * 12
    assert torch.equal(both.mask[:16, :16], key_mask(16))
    assert (both.mask[16:] == IGNORE).all() and (both.mask[:, 16:] == IGNORE).all()
    larger = stitch(query, key_mask(12), query_valid, key, whole(16))
    assert torch.equal(larger.image[:, :12, :12], query) and torch.equal(larger.image[:, :16, 16:], key)


@pytest.mark.parametrize(("key_side", "side"), [(128, 128), (128, 96), (96, 128)])
def test_what_is_found_in_the_query_comes_back_in_its_place(monkeypatch, key_side, side):
    """A SAM that finds red answers with the red square of the query, to the pixel."""
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    image[0, 0, 20:40, 60:90] = 255
    key = torch.zeros(1, 3, key_side, key_side, dtype=torch.uint8)
    key[0, 0, :30] = 255
    mask = key_mask(key_side, slice(0, 30), slice(None))
    sam = SimpleNamespace(image_encoder=None, device=torch.device("cpu"), pixel_mean=0.0, pixel_std=1.0)
    sam.eval = lambda: SimpleNamespace(requires_grad_=lambda on: sam)
    segmenter = StitchedSegmenter(sam, "b")
    monkeypatch.setattr(stitched, "encode", lambda encoder, pixels: pixels[:, :1])
    monkeypatch.setattr(
        segmenter, "_decode", lambda red, *points: (red[0, :, 2::4, 2::4].repeat(50, 1, 1) / 16 - 8, torch.ones(50))
    )
    described = segmenter.describe(Shots(key, mask[None], whole(key_side)[None]))
    found = segmenter.segment(segmenter.encode(image, whole(side)[None]), described)
    assert found.shape == (1, side, side) and torch.equal(found[0] > 0, image[0, 0] > 0)


def points_of(design, both=None, negative=BACKGROUND, draws=200):
    points, labels = draw_prompts(both or picture(), design, negative, draws, np.random.default_rng(0))
    half = (both or picture()).half
    in_query = points[..., 0] >= half
    return points, labels, in_query


@pytest.mark.parametrize("design", [*"abcd"])
def test_every_design_has_five_points_of_each_kind_in_the_key(design):
    points, labels, in_query = points_of(design)
    mask = picture().mask.numpy()
    assert points.shape == (*labels.shape, 2)
    for label, value in ((1, FOREGROUND), (0, BACKGROUND)):
        chosen = (labels == label) & ~in_query
        assert (chosen.sum(1) == 5).all()
        places = points[chosen].astype(int)
        assert (mask[places[:, 1], places[:, 0]] == value).all()
        assert len(np.unique(places, axis=0)) > 10, "the draws differ"


def test_the_designs_differ_in_the_query():
    kinds = {}
    for design in "abcd":
        points, labels, in_query = points_of(design)
        kinds[design] = [set(((labels == label) & in_query).sum(1).tolist()) for label in (1, 0)]
        assert (points[in_query] >= (16, 0)).all() and (points[in_query] <= (31, 15)).all()
    assert kinds == {"a": [{0}, {0}], "b": [{1, 2, 3}, {0}], "c": [{9}, {0}], "d": [{1, 2, 3}, {1, 2, 3}]}


def test_the_grid_lies_in_the_middle_of_nine_cells_of_the_valid_query():
    query_valid = whole(12)
    query_valid[6:] = False
    both = stitch(noise(12, 0), key_mask(12), whole(12), noise(12, 1), query_valid)
    points, _, in_query = points_of("c", both)
    expected = [(12 + x, y) for y in (0.5, 2.5, 4.5) for x in (1.5, 5.5, 9.5)]
    for draw, inside in zip(points, in_query, strict=True):
        assert sorted(map(tuple, draw[inside])) == sorted(expected)


def test_points_need_pixels_to_stand_on():
    full = stitch(noise(8, 0), torch.full((8, 8), FOREGROUND), whole(8), noise(8, 1), whole(8))
    assert (points_of("a", full)[1] == 1).all()
    unmarked = torch.where(key_mask(16) == BACKGROUND, UNMARKED, FOREGROUND).to(torch.uint8)
    partly = stitch(noise(16, 0), unmarked, whole(16), noise(16, 1), whole(16))
    assert (points_of("a", partly, UNMARKED)[1] == 0).sum() == 200 * 5
    nothing = stitch(noise(16, 0), key_mask(16), whole(16), noise(16, 1), ~whole(16))
    assert all(not points_of(design, nothing)[2].any() for design in "abcd")


def test_agreement_is_the_iou_in_the_masks_own_pixels():
    rng = np.random.default_rng(0)
    mask = torch.full((32, 32), IGNORE, dtype=torch.uint8)
    mask[:16, :16] = torch.from_numpy(rng.choice([BACKGROUND, FOREGROUND, IGNORE], (16, 16)).astype(np.uint8))
    found = torch.from_numpy(rng.random((3, 8, 8)) < 0.5)
    large = found.repeat_interleave(4, 1).repeat_interleave(4, 2) & (mask != IGNORE)
    truth = mask == FOREGROUND
    expected = [float((one & truth).sum() / (one | truth).sum()) for one in large]
    assert key_agreement(found, mask, BACKGROUND).tolist() == pytest.approx(expected)
    assert key_agreement(torch.zeros(1, 8, 8) > 0, mask, BACKGROUND).tolist() == [0]


def test_the_best_three_tenths_are_averaged_by_their_scores():
    scores = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.5, 0.6, 0.7, 1.0])  # quantile 0.7 lies at 0.73
    probabilities = torch.rand(10, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = (0.9 * probabilities[1] + 0.8 * probabilities[4] + 1.0 * probabilities[9]) / 2.7
    torch.testing.assert_close(confident_mean(probabilities, scores), expected)
    torch.testing.assert_close(confident_mean(probabilities, torch.zeros(10)), probabilities.mean(0))


def test_specks_go_holes_close_and_the_rest_stays():
    probability = torch.full((30, 30), 0.2)
    probability[5:20, 5:20] = 0.8
    probability[10:14, 10:13] = 0.4  # a hole that closes
    probability[25, 25] = probability[2, 10:12] = 0.9  # specks
    probability[26:, :8] = 0.7  # at the border
    expected = torch.zeros(30, 30, dtype=torch.bool)
    expected[5:20, 5:20] = expected[26:, :8] = True
    found = clean_logits(probability)
    assert torch.equal(found > 0, expected)
    kept = expected == (probability > 0.5)
    torch.testing.assert_close(found[kept], torch.logit(probability)[kept])
    assert (found[~kept].abs() < 0.1).all()


def test_the_answer_is_that_of_segment_anything_itself():
    """SAM's own forward pass on the stitched picture, and the method's formulas on what it says."""
    image, key, mask = noise(512, 0), noise(512, 1), key_mask(512, slice(100, 300), slice(60, 400))
    sam = copy.deepcopy(pocket_sam())
    sam.mask_decoder.iou_prediction_head.layers[-1].bias.fill_(2.0)  # random weights think nothing of themselves
    segmenter = StitchedSegmenter(sam, "d", seed=5, draws=12)
    described = segmenter.describe(Shots(key[None], mask[None], whole(512)[None]))
    found = segmenter.segment(segmenter.encode(image[None], whole(512)[None]), described)[0]
    both = stitch(key, mask, whole(512), image, whole(512))
    points, labels = draw_prompts(both, "d", BACKGROUND, 12, np.random.default_rng(5))
    request = {
        "image": torch.cat([key, image], dim=2).float(),
        "original_size": (512, 1024),
        "point_coords": torch.from_numpy(points).float(),
        "point_labels": torch.from_numpy(labels),
    }
    with torch.inference_mode():
        answer = sam([request], multimask_output=False)[0]
    logits, ious = answer["low_res_logits"][:, 0].numpy(), answer["iou_predictions"][:, 0].numpy()
    in_key = (logits > 0).repeat(4, 1).repeat(4, 2)[:, :512, :512]
    truth = mask.numpy() == FOREGROUND
    agreement = np.array([(one & truth).sum() / (one | truth).sum() for one in in_key])
    scores = ious.clip(0) * agreement
    assert len(np.unique(scores.round(4))) > 6, "the pocket SAM rates the draws differently"
    best = np.argsort(-scores)[:4]  # of 12 draws, those above quantile 0.7
    probability = np.average(1 / (1 + np.exp(-logits[best, :128, 128:])), axis=0, weights=scores[best])
    large = torch.nn.functional.interpolate(
        torch.from_numpy(probability)[None, None].float(), size=(512, 512), mode="bilinear", align_corners=False
    )[0, 0]
    # A pixel within rounding of one half decides, by the opening, on those around it.
    less, more = (clean_logits(large + shift) > 0 for shift in (-1e-4, 1e-4))
    steady = less == more
    assert steady.float().mean() > 0.999
    torch.testing.assert_close(found[steady], clean_logits(large)[steady], atol=1e-2, rtol=1e-3)


def test_equal_seeds_draw_alike_and_several_references_are_averaged():
    image, valid = noise(64, 0)[None], whole(64)[None]
    keys = torch.stack([noise(64, 1), noise(64, 2)])
    masks = torch.stack([key_mask(64), key_mask(64, slice(30, 50), slice(10, 40))])

    def search(chosen, seed=0):
        segmenter = StitchedSegmenter(pocket_sam(), "b", seed, draws=4)
        described = segmenter.describe(Shots(keys[chosen], masks[chosen], torch.ones_like(masks[chosen]) > 0))
        return segmenter.segment(segmenter.encode(image, valid), described)

    one, other = search([0]), search([1])
    torch.testing.assert_close(search([0, 1]), (one + other) / 2)
    assert torch.equal(one, search([0])) and not torch.equal(one, search([0], seed=1))


def test_a_reference_without_the_class_is_refused():
    none = Shots(noise(8, 0)[None], torch.full((1, 8, 8), BACKGROUND, dtype=torch.uint8), whole(8)[None])
    with pytest.raises(RefSAMError, match="mark no pixel"):
        StitchedSegmenter(pocket_sam(), "a").describe(none)
