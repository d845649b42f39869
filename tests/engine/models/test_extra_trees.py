"""Extremely randomised trees, against scikit-learn's and by walking down them node by node."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score

from refsam_qgis.engine.models import extra_trees
from refsam_qgis.engine.models.extra_trees import ExtraTrees, grow
from refsam_qgis.engine.models.fit_rules import REGRESSION_ALONE, FitRules

RULES = FitRules(trees=6, depth=4, tries=4, leaf=3, drawn=10_000)


def draw(count, features=12, seed=0):
    """Samples, and a class that two of the features tell, the others nothing."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(count, features, generator=generator)
    noise = 0.4 * torch.randn(count, generator=generator)
    return samples, samples[:, 3] + samples[:, 7].square() + noise > 1.5


def grown(samples, of_class, share=0.3, rules=RULES, seed=0):
    return grow(samples, of_class, share, rules, torch.Generator().manual_seed(seed))


def walk(trees, sample):
    """Index of the leaf that a sample ends in, tree by tree; by the class's own description of its layout."""
    count, leaves = trees.shares.shape
    ends = []
    for tree in range(count):
        node, level = 0, 0
        while 2**level < leaves:
            place = count * (2**level - 1) + tree * 2**level + node
            right = float(sample[int(trees.features[place])]) > float(trees.thresholds[place])
            node, level = 2 * node + right, level + 1
        ends.append(node)
    return ends


def test_they_tell_classes_apart_as_scikit_learns_do():
    rules = FitRules(trees=40, drawn=100_000)
    ours, theirs = [], []
    for seed in range(3):
        samples, of_class = draw(3000, seed=seed)
        asked, truth = draw(2000, seed=seed + 100)
        said = grown(samples, of_class, 0.5, rules, seed).ask(asked)
        forest = ExtraTreesClassifier(
            rules.trees, max_depth=rules.depth, min_samples_leaf=rules.leaf, max_features=rules.tries,
            class_weight="balanced", random_state=seed,
        ).fit(samples.numpy(), of_class.numpy())  # fmt: skip
        ours.append(roc_auc_score(truth, said))
        theirs.append(roc_auc_score(truth, forest.predict_proba(asked.numpy())[:, 1]))
    assert np.mean(theirs) > 0.9
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.01)


@pytest.mark.parametrize("at_once", [7, 2048])
def test_samples_go_where_the_tests_send_them(monkeypatch, at_once):
    monkeypatch.setattr(extra_trees, "ASKED_AT_ONCE", at_once)
    trees = grown(*draw(400))
    asked = draw(50, seed=9)[0]
    expected = [np.mean([trees.shares[tree, leaf] for tree, leaf in enumerate(walk(trees, one))]) for one in asked]
    np.testing.assert_allclose(trees.ask(asked), expected, atol=1e-6)
    assert np.std(expected) > 0.1


def test_leaves_hold_the_weighted_share_of_the_samples_that_end_there():
    samples, of_class = draw(300)
    share = 0.3
    trees = grown(samples, of_class, share)
    ends = np.array([walk(trees, sample) for sample in samples])
    weight = np.where(of_class, share / of_class.sum(), (1 - share) / (~of_class).sum())
    for tree in range(RULES.trees):
        for leaf in set(ends[:, tree]):
            there = ends[:, tree] == leaf
            assert there.sum() >= RULES.leaf
            expected = weight[there & of_class.numpy()].sum() / weight[there].sum()
            assert float(trees.shares[tree, leaf]) == pytest.approx(expected, abs=1e-6)
    assert len(set(ends[:, 0])) > 5


def test_of_many_tests_the_purest_is_kept():
    samples = torch.rand(500, 10, generator=torch.Generator().manual_seed(0))
    of_class = samples[:, 4] > 0.7
    trees = grown(samples, of_class, 0.5, replace(RULES, tries=2000))
    roots = slice(0, RULES.trees)
    assert (trees.features[roots] == 4).all()
    assert (trees.thresholds[roots] - 0.7).abs().max() < 0.05


def test_what_cannot_be_told_apart_has_the_share_of_the_class():
    of_class = torch.arange(100) < 20
    trees = grown(torch.ones(100, 5), of_class, 0.3)
    assert torch.isinf(trees.thresholds).all()
    torch.testing.assert_close(trees.ask(torch.randn(9, 5)), torch.full((9,), 0.3))


def test_each_tree_draws_its_own_samples():
    """All samples differ from each other, so a leaf for each of two kinds names those that were drawn."""
    rules = replace(RULES, drawn=40, leaf=1)
    rows = torch.arange(1000)
    drawn = extra_trees._draw(rows, rules, torch.Generator().manual_seed(0))
    assert drawn.shape == (rules.trees, 40)
    assert all(len(set(some.tolist())) == 40 for some in drawn) and len({tuple(some.tolist()) for some in drawn}) > 1
    assert (
        extra_trees._draw(rows[:7], rules, torch.Generator().manual_seed(0)).sort().values.tolist()
        == [list(range(7))] * rules.trees
    )


def test_equal_draws_grow_equal_trees():
    first, again, other = (grown(*draw(300), seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(value, vars(again)[name]) for name, value in vars(first).items())
    assert not torch.equal(first.features, other.features)


@pytest.mark.parametrize(
    ("of_class", "rules"),
    [(torch.ones(30), RULES), (torch.zeros(30), RULES), (torch.arange(30) % 2, REGRESSION_ALONE)],
)
def test_without_both_kinds_there_are_no_trees_and_no_opinion(of_class, rules):
    trees = grown(torch.randn(30, 5), of_class.bool(), rules=rules)
    assert torch.equal(trees.ask(torch.randn(4, 5)), torch.full((4,), 0.5))
    assert {name: value.shape for name, value in vars(trees).items()} == {
        name: value.shape for name, value in vars(ExtraTrees.none()).items()
    }
