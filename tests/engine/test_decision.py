from __future__ import annotations

import numpy as np
from scipy.special import expit

from refsam_qgis.engine.decision import best_class, decide
from refsam_qgis.engine.rasters.mosaic import Piece
from refsam_qgis.engine.rasters.writers import PROBABILITY_NODATA


def piece_of(logits, valid=None):
    logits = np.asarray(logits, np.float32)
    return Piece(3, 5, logits, np.ones(logits.shape[1:], bool) if valid is None else valid)


def one_row(*classes):
    """A piece of one row, of each class the logits along it."""
    return piece_of(np.array(classes, np.float32)[:, None])


def test_the_best_class_is_that_of_numpy_also_where_several_are_equal():
    logits = np.random.default_rng(0).integers(-3, 4, size=(254, 40, 50)).astype(np.float32)
    best, winners = best_class(logits)
    assert np.array_equal(best, logits.max(axis=0))
    assert np.array_equal(winners, logits.argmax(axis=0) + 1)


def test_the_surer_of_two_classes_wins_where_both_probabilities_round_to_one():
    piece = one_row([30.0, 60.0], [60.0, 30.0])
    assert (expit(piece.logits) == 1).all()
    assert decide(piece, piece.valid, 2, 0.5, False).class_ids.tolist() == [[2, 1]]


def test_a_pixel_has_a_class_from_the_threshold_on_where_it_counts_and_no_counter_example_wins_it():
    piece = one_row([0.0, -0.1, 5.0, 5.0, 5.0], [-4.0, -4.0, 6.0, 5.5, -4.0], [-9.0, -9.0, -9.0, 5.4, 5.1])
    counted = np.array([[True, True, True, True, True]])
    counted[0, 2] = False
    decided = decide(piece, counted, 2, 0.5, True)
    assert decided.class_ids.tolist() == [[1, 0, 0, 2, 0]]
    assert (decided.row, decided.column) == (3, 5)
    assert np.allclose(decided.scores, expit([[0.0, -0.1, 6.0, 5.5, 5.0]]))
    expected = expit(piece.logits[:2])
    expected[:, 0, 2] = PROBABILITY_NODATA
    assert np.allclose(decided.probabilities, expected)
    assert decide(piece, counted, 2, 0.5, False).probabilities is None


def test_a_counter_example_that_is_only_as_good_wins_nothing():
    piece = one_row([1.5, 1.5, 1.5], [1.5, 1.4, 1.6])
    assert decide(piece, piece.valid, 1, 0.5, False).class_ids.tolist() == [[1, 1, 0]]
