import pytest
import torch

from refsam_qgis.engine.models.prototypes import compute_prototypes
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED


def features(batch=1, shots=1, channels=8, side=16, seed=0):
    return torch.randn(batch, shots, channels, side, side, generator=torch.Generator().manual_seed(seed))


def mask_with_square(side=64, value=BACKGROUND):
    mask = torch.full((1, 1, side, side), value, dtype=torch.uint8)
    mask[..., 8:24, 8:24] = FOREGROUND
    return mask


def test_class_prototype_is_the_mean_over_the_mask():
    f = features()
    prototypes = compute_prototypes(f, mask_with_square(), 5)
    expected = f[0, 0, :, 2:6, 2:6].flatten(1).mean(1)
    torch.testing.assert_close(prototypes.vectors[0, 0], expected)


def test_background_cells_partition_the_background():
    f = features()
    mask = mask_with_square()
    prototypes = compute_prototypes(f, mask, 5)
    assert prototypes.valid.all()
    one = compute_prototypes(f, mask, 1).vectors[0, 1]
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[2:6, 2:6] = False
    torch.testing.assert_close(one, f[0, 0][:, outside].mean(1))
    # Means of constant features stay that constant, whatever the cells are.
    constant = compute_prototypes(torch.ones_like(f), mask, 5).vectors
    torch.testing.assert_close(constant, torch.ones_like(constant))
    assert len({tuple(v.tolist()) for v in prototypes.vectors[0]}) == 6


def test_object_smaller_than_a_cell_still_counts():
    f = features()
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    mask[..., 21, 33] = FOREGROUND
    torch.testing.assert_close(compute_prototypes(f, mask, 3).vectors[0, 0], f[0, 0, :, 5, 8])


def test_ignored_pixels_change_nothing():
    f = features()
    mask = mask_with_square()
    mask[..., 40:, :] = IGNORE
    changed = f.clone()
    changed[..., 10:, :] = 1e3
    before, after = (compute_prototypes(x, mask, 5) for x in (f, changed))
    assert torch.equal(before.vectors, after.vectors)
    assert torch.equal(before.valid, after.valid)


def test_too_little_background_leaves_invalid_cells():
    mask = torch.full((1, 1, 64, 64), FOREGROUND, dtype=torch.uint8)
    mask[..., 0:4, 0:8] = BACKGROUND
    assert compute_prototypes(features(), mask, 5).valid[0].tolist() == [True, True, True, False, False, False]
    everything = torch.full((1, 1, 64, 64), FOREGROUND, dtype=torch.uint8)
    assert compute_prototypes(features(), everything, 5).valid[0].tolist() == [True] + [False] * 5


def test_unmarked_objects_do_not_poison_the_background():
    f = torch.zeros(1, 1, 2, 16, 16)
    f[:, :, 0] = 1.0
    for rows in (slice(2, 6), slice(10, 14)):  # two objects alike; only the first is marked
        f[:, :, 0, rows, 2:6] = 0.0
        f[:, :, 1, rows, 2:6] = 1.0
    unmarked = compute_prototypes(f, mask_with_square(value=UNMARKED), 5)
    background = torch.tensor([1.0, 0.0])
    assert unmarked.valid[0, 1:].any()
    for vector, valid in zip(unmarked.vectors[0, 1:], unmarked.valid[0, 1:], strict=True):
        if valid:
            torch.testing.assert_close(vector, background)
    poisoned = compute_prototypes(f, mask_with_square(value=BACKGROUND), 5)
    assert not torch.allclose(poisoned.vectors[0, 1:], background.expand(5, 2))


def test_copies_of_a_shot_equal_the_shot():
    f, mask = features(), mask_with_square()
    one = compute_prototypes(f, mask, 5)
    three = compute_prototypes(f.expand(-1, 3, -1, -1, -1), mask.expand(-1, 3, -1, -1), 5)
    torch.testing.assert_close(three.vectors[:, 0], one.vectors[:, 0])
    torch.testing.assert_close(three.vectors[:, 1:].view(1, 3, 5, -1), one.vectors[:, None, 1:].expand(-1, 3, -1, -1))


def test_shot_without_the_class_adds_only_background():
    f = features(shots=2)
    mask = mask_with_square().repeat(1, 2, 1, 1)
    mask[:, 1] = BACKGROUND
    both = compute_prototypes(f, mask, 5)
    torch.testing.assert_close(both.vectors[:, 0], compute_prototypes(f[:, :1], mask[:, :1], 5).vectors[:, 0])


def test_no_class_pixel_is_refused():
    with pytest.raises(ValueError, match="class pixel"):
        compute_prototypes(features(), torch.zeros(1, 1, 64, 64, dtype=torch.uint8), 5)


def test_seeds_vary_in_training_and_not_in_evaluation():
    f, mask = features(), mask_with_square()
    draws = [compute_prototypes(f, mask, 5, torch.Generator().manual_seed(s)).vectors for s in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert torch.equal(compute_prototypes(f, mask, 5).vectors, compute_prototypes(f, mask, 5).vectors)
