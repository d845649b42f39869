"""The decoder beside segment_anything's own."""

import copy

import pytest
import torch

from refsam_qgis.engine.models.decoder import decode, decode_all, dense_position
from tests.engine.pocket_sam import pocket_sam

WIDTH = 32


@pytest.fixture
def given():
    """Two images of an odd window of the frame and their prompts: embedding, position, sparse and dense."""
    generator = torch.Generator().manual_seed(0)
    embedding, dense = (torch.randn(2, WIDTH, 5, 9, generator=generator) for _ in range(2))
    sparse = torch.randn(2, 3, WIDTH, generator=generator)
    return embedding, dense_position(pocket_sam(), (5, 9), (20, 30)), sparse, dense


def theirs(sam, embedding, position, sparse, dense):
    """segment_anything decodes one image with all its prompts."""
    alone = [
        sam.mask_decoder.predict_masks(embedding[i : i + 1], position, sparse[i : i + 1], dense[i : i + 1])
        for i in range(len(embedding))
    ]
    return tuple(torch.cat(parts) for parts in zip(*alone, strict=True))


def last_in_memory(grid):
    return grid.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("laid", [lambda grid: grid, last_in_memory])
@torch.no_grad()
def test_every_mask_equals_segment_anything(given, laid):
    sam = pocket_sam()
    embedding, position, sparse, dense = given
    logits, iou = decode_all(sam, laid(embedding), position, sparse, dense)
    expected, expected_iou = theirs(sam, *given)
    assert logits.shape == (2, 4, 20, 36) and expected.std() > 1
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(iou, expected_iou, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("multimask", "wanted"), [(False, slice(0, 1)), (True, slice(1, 4))])
@torch.no_grad()
def test_only_the_masks_wanted_are_drawn(given, multimask, wanted):
    sam = pocket_sam()
    logits, iou = decode(sam, *given, multimask=multimask)
    expected, expected_iou = theirs(sam, *given)
    assert (expected[:, 0] - expected[:, 1]).abs().max() > 1 and expected_iou.std() > 0
    torch.testing.assert_close(logits, expected[:, wanted], atol=1e-4, rtol=0)
    torch.testing.assert_close(iou, expected_iou[:, wanted], atol=1e-4, rtol=0)


def test_gradients_equal_segment_anything(given):
    """Training goes through this decoder, to its weights and to what it is given; doubles tell error from rounding."""
    sam = copy.deepcopy(pocket_sam()).double()
    sam.mask_decoder.requires_grad_(True)
    weights = dict(sam.mask_decoder.named_parameters())
    embedding, position, sparse, dense = (tensor.double() for tensor in given)
    inputs = [tensor.requires_grad_() for tensor in (embedding, sparse, dense)]
    slope = torch.randn(2, 4, 20, 36, generator=torch.Generator().manual_seed(1))
    ours, expected = (
        torch.autograd.grad((logits * slope).sum() + iou.sum(), [*inputs, *weights.values()])
        for logits, iou in (function(sam, embedding, position, sparse, dense) for function in (decode_all, theirs))
    )
    for name, own, their in zip(["embedding", "sparse", "dense", *weights], ours, expected, strict=True):
        # A key's bias changes no softmax.
        assert their.abs().max() > 1e-3 or name.endswith("k_proj.bias"), name
        torch.testing.assert_close(own, their, atol=1e-9, rtol=1e-9, msg=name)
