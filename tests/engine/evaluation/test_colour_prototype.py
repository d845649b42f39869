import math

import pytest
import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines.colour_prototype import ColourPrototypeSegmenter, srgb_to_lab
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED, Shots

RED, BLUE, GREEN, GREY, BLACK = (255, 0, 0), (0, 0, 255), (0, 255, 0), (128, 128, 128), (0, 0, 0)
LAB = {
    RED: (53.24, 80.09, 67.20),
    BLUE: (32.30, 79.19, -107.86),
    GREEN: (87.73, -86.18, 83.18),
    GREY: (53.59, 0.0, 0.0),
    BLACK: (0.0, 0.0, 0.0),
}
"""CIE Lab under D65, from published tables."""


def stripes(*colours):
    """A tile of 40 x 40 pixels with equally wide stripes, one below the other."""
    rows = torch.tensor(colours, dtype=torch.uint8).repeat_interleave(40 // len(colours), 0)
    return rows.T[:, :, None].repeat(1, 1, 40)


def marks(*values):
    return torch.tensor(values, dtype=torch.uint8).repeat_interleave(40 // len(values))[:, None].repeat(1, 40)


def shots(*pairs):
    images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
    return Shots(images, masks, torch.ones_like(masks) > 0)


def search(described, *images):
    segmenter = ColourPrototypeSegmenter()
    return segmenter.segment(segmenter.encode(torch.stack(images), torch.ones(1, 40, 40) > 0), described)


def describe(*pairs):
    return ColourPrototypeSegmenter().describe(shots(*pairs))


def test_colours_become_cie_lab():
    found = srgb_to_lab(torch.tensor([*LAB], dtype=torch.uint8).T[None, :, None])[0, :, 0].T
    torch.testing.assert_close(found, torch.tensor([*LAB.values()]), atol=0.02, rtol=0)


def test_a_logit_is_the_difference_of_distances_in_five_units():
    described = describe((stripes(RED, BLUE), marks(FOREGROUND, BACKGROUND)))
    found = search(described, stripes(RED, BLUE, GREEN, GREY), stripes(BLUE, BLUE, RED, RED))
    to_red, to_blue = ([math.dist(LAB[c], LAB[other]) for c in (RED, BLUE, GREEN, GREY)] for other in (RED, BLUE))
    expected = [(blue - red) / 5 for red, blue in zip(to_red, to_blue, strict=True)]
    assert found.shape == (2, 40, 40) and found.dtype == torch.float32
    assert found[0, ::10, 7].tolist() == pytest.approx(expected, abs=0.02)
    assert found[1, ::10, 7].tolist() == pytest.approx([expected[i] for i in (1, 1, 0, 0)], abs=0.02)


def test_class_and_background_may_have_several_colours():
    described = describe((stripes(RED, BLUE, GREEN, BLACK), marks(FOREGROUND, BACKGROUND, FOREGROUND, BACKGROUND)))
    found = search(described, stripes(RED, BLUE, GREEN, BLACK))[0, ::10, 0]
    assert (found > 0).tolist() == [True, False, True, False]
    assert found[0] == pytest.approx(min(math.dist(LAB[RED], LAB[other]) for other in (BLUE, BLACK)) / 5, abs=0.02)


def test_all_references_count_and_ignored_pixels_do_not():
    described = describe(
        (stripes(RED, BLACK), marks(FOREGROUND, BACKGROUND)), (stripes(GREEN, BLUE), marks(FOREGROUND, IGNORE))
    )
    assert {tuple(round(v) for v in colour) for colour in described.of_class.tolist()} == {(53, 80, 67), (88, -86, 83)}
    assert described.others.tolist() == [pytest.approx((0, 0, 0), abs=1e-3)]


def test_many_colours_are_clustered_the_same_way_each_time():
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8, generator=generator)
    one, other = (describe((image, marks(FOREGROUND, BACKGROUND))) for _ in range(2))
    assert len(one.of_class) == len(one.others) == 3
    assert torch.equal(one.of_class, other.of_class) and torch.equal(one.others, other.others)


def test_unmarked_pixels_are_background_only_for_want_of_better():
    image = stripes(RED, BLUE, GREEN, BLACK)
    some = describe((image, marks(FOREGROUND, BACKGROUND, UNMARKED, UNMARKED)))
    none = describe((image, marks(FOREGROUND, UNMARKED, UNMARKED, UNMARKED)))
    assert len(some.others) == 1 and len(none.others) == 3


def test_without_background_everything_is_the_class_and_without_the_class_nothing_is_sought():
    image = stripes(RED, BLUE)
    assert (search(describe((image, marks(FOREGROUND))), image) > 0).all()
    with pytest.raises(RefSAMError, match="mark no pixel"):
        describe((image, marks(BACKGROUND)))


def test_encodings_at_hand_are_used(monkeypatch):
    segmenter = ColourPrototypeSegmenter()
    pair = shots((stripes(RED, BLUE), marks(FOREGROUND, BACKGROUND)))
    encodings = [segmenter.encode(pair.images, pair.valid)]
    expected = segmenter.describe(pair)
    monkeypatch.setattr(segmenter, "encode", None)
    assert torch.equal(segmenter.describe(pair, encodings).of_class, expected.of_class)
