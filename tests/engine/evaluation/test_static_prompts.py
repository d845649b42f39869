import numpy as np
import pytest
import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines.static_prompts import POINTS, StaticPromptsSegmenter
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, Shots
from tests.engine.pocket_sam import pocket_sam

ALL = torch.ones(1, 1024, 1024, dtype=torch.bool)


def shots(*masks):
    stacked = torch.stack(masks)
    images = torch.zeros(len(masks), 3, *stacked.shape[1:], dtype=torch.uint8)
    return Shots(images, stacked, torch.ones_like(stacked) > 0)


def one_pixel(row, column, side=64):
    mask = torch.full((side, side), BACKGROUND, dtype=torch.uint8)
    mask[row, column] = FOREGROUND
    return mask


def target(seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (1, 3, 1024, 1024)).astype(np.uint8))


def own_answer(image, x, y, box):
    """What segment_anything itself says to four times one point, and a box, in pixels of its input."""
    with torch.inference_mode():
        answer = pocket_sam()(
            [
                {
                    "image": image[0].float(),
                    "original_size": (1024, 1024),
                    "point_coords": torch.tensor([[[x, y]] * POINTS]),
                    "point_labels": torch.ones(1, POINTS),
                    "boxes": torch.tensor([box]),
                }
            ],
            multimask_output=False,
        )
    return answer[0]["low_res_logits"][:, 0]


def test_sam_is_asked_at_the_references_own_place():
    segmenter = StaticPromptsSegmenter(pocket_sam())
    image = target(0)
    found = segmenter.segment(segmenter.encode(image, ALL), segmenter.describe(shots(one_pixel(10, 30))))
    # A pixel of a chip of 64 covers 16 pixels of SAM's input, whose first has its centre at 0.
    expected = own_answer(image, 487.5, 167.5, [479.5, 159.5, 495.5, 175.5])
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    elsewhere = segmenter.segment(segmenter.encode(image, ALL), segmenter.describe(shots(one_pixel(50, 5))))
    assert not torch.allclose(found, elsewhere, atol=0.1)


def test_several_references_are_averaged_and_several_targets_told_apart():
    segmenter = StaticPromptsSegmenter(pocket_sam())
    encodings = [segmenter.encode(target(seed), ALL) for seed in (0, 1)]
    one, other = (segmenter.describe(shots(one_pixel(*place))) for place in ((10, 30), (50, 5)))
    both = segmenter.describe(shots(one_pixel(10, 30), one_pixel(50, 5)))
    for encoding in encodings:
        mean = (segmenter.segment(encoding, one) + segmenter.segment(encoding, other)) / 2
        torch.testing.assert_close(segmenter.segment(encoding, both), mean, atol=2e-3, rtol=1e-3)
    together = segmenter.segment(torch.cat(encodings), both)
    apart = torch.cat([segmenter.segment(encoding, both) for encoding in encodings])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-3)


def test_points_lie_inside_the_mask_and_the_box_around_it():
    mask = torch.full((64, 64), BACKGROUND, dtype=torch.uint8)
    mask[8:40, 20] = mask[39, 20:50] = FOREGROUND
    prompts = StaticPromptsSegmenter(pocket_sam(), seed=3).describe(shots(mask))
    assert prompts.boxes.tolist() == [[20 * 16 - 0.5, 8 * 16 - 0.5, 50 * 16 - 0.5, 40 * 16 - 0.5]]
    columns, rows = ((prompts.points[0] + 0.5) / 16).floor().long().unbind(1)
    assert (mask[rows, columns] == FOREGROUND).all() and len({*zip(rows.tolist(), columns.tolist(), strict=True)}) > 1
    again = StaticPromptsSegmenter(pocket_sam(), seed=3).describe(shots(mask))
    other = StaticPromptsSegmenter(pocket_sam(), seed=4).describe(shots(mask))
    assert torch.equal(prompts.points, again.points) and not torch.equal(prompts.points, other.points)


def test_a_reference_without_the_class_has_no_say():
    segmenter = StaticPromptsSegmenter(pocket_sam())
    empty = torch.full((64, 64), BACKGROUND, dtype=torch.uint8)
    assert len(segmenter.describe(shots(empty, one_pixel(1, 2))).boxes) == 1
    with pytest.raises(RefSAMError, match="mark no pixel"):
        segmenter.describe(shots(empty))
