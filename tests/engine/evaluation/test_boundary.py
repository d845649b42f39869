import itertools
import math

import numpy as np
import pytest

from refsam_qgis.engine.evaluation.boundary import BoundaryAgreement
from refsam_qgis.engine.evaluation.layers import IGNORE


def blobs(seed, shape=(37, 29)):
    """Class maps of patches, with some pixels that do not count."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, size=(6, 5)).astype(np.uint8)
    labels = np.kron(coarse, np.ones((7, 7), np.uint8))[: shape[0], : shape[1]]
    return np.where(rng.random(labels.shape) < 0.02, IGNORE, labels).astype(np.uint8)


def brute_boundary(labels, class_id):
    height, width = labels.shape
    pixels = set()
    for row, column in zip(*np.nonzero(labels == class_id), strict=True):
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < height and 0 <= c < width and labels[r, c] not in (class_id, IGNORE):
                pixels.add((int(row), int(column)))
    return pixels


def brute_f(truth, result, class_id, tolerance):
    true, found = brute_boundary(truth, class_id), brute_boundary(result, class_id)

    def share(of, near):
        return sum(any(math.dist(p, q) <= tolerance for q in near) for p in of) / len(of)

    precision, recall = share(found, true), share(true, found)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
def test_equals_the_brute_force_pixel_by_pixel(tolerance):
    truth, result = blobs(0), blobs(1)
    agreement = BoundaryAgreement(2, tolerance)
    agreement.add(truth, result, 0, len(truth))
    for class_id in (1, 2):
        assert agreement.scores(class_id)["boundary_f"] == pytest.approx(brute_f(truth, result, class_id, tolerance))


@pytest.mark.parametrize(("tolerance", "rows"), [(0, 1), (2, 4), (5, 7)])
def test_blocks_with_their_halo_equal_the_whole(tolerance, rows):
    truth, result = blobs(2), blobs(3)
    whole, parts = BoundaryAgreement(2, tolerance), BoundaryAgreement(2, tolerance)
    whole.add(truth, result, 0, len(truth))
    for top in range(0, len(truth), rows):
        start, stop = max(0, top - parts.halo), min(len(truth), top + rows + parts.halo)
        parts.add(truth[start:stop], result[start:stop], top - start, min(rows, len(truth) - top))
    assert whole.counts.any()
    assert (parts.counts == whole.counts).all()


def test_a_shift_within_the_tolerance_costs_nothing():
    truth = np.zeros((20, 20), np.uint8)
    truth[5:12, 5:12] = 1
    for tolerance, expected in itertools.product((1, 2), (2,)):
        agreement = BoundaryAgreement(1, tolerance)
        agreement.add(truth, np.roll(truth, expected, axis=1), 0, 20)
        assert (agreement.scores(1)["boundary_f"] == 1) == (tolerance >= expected)


def test_the_frame_is_no_boundary_and_a_missing_one_scores_zero():
    full, empty = np.ones((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
    agreement = BoundaryAgreement(1, 2)
    agreement.add(full, empty, 0, 6)
    assert math.isnan(agreement.scores(1)["boundary_f"])
    half = empty.copy()
    half[:3] = 1
    agreement.add(half, empty, 0, 6)
    assert agreement.scores(1)["boundary_f"] == 0
