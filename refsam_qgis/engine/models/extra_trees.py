"""Extremely randomised trees (Geurts, Ernst and Wehenkel 2006), grown and asked with tensors.

Trees that draw their tests at random and keep the purest of a few judge what lies beyond all references as what lies at
their edge, where a smooth function goes on as it likes; so other light leads them astray less. scikit-learn grows the
same, but knows no GPU, and where models are trained it need not be installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .fit_rules import FitRules

ASKED_AT_ONCE = 2048
"""Samples that go down the trees together, so that they stay in a CPU's cache; a GPU takes more."""


@dataclass(frozen=True)
class ExtraTrees:
    """T complete binary trees of depth D; node n of a level has the nodes 2n and 2n + 1 of the next below it.

    Attributes:
        features: ``(T * (2^D - 1),)`` int32, which feature a node tests: level by level, in it tree by tree.
        thresholds: The same shape; a sample goes right where its feature is greater. Infinite where a node is not
            split.
        shares: ``(T, 2^D)`` of the class in the leaves, 0..1. ``(0, 1)`` where there are no trees.
    """

    features: Tensor
    thresholds: Tensor
    shares: Tensor

    @classmethod
    def none(cls) -> ExtraTrees:
        """No trees, which have no opinion."""
        return cls(torch.zeros(0, dtype=torch.int32), torch.zeros(0), torch.zeros(0, 1))

    def __len__(self) -> int:
        """Number of trees."""
        return len(self.shares)

    def to(self, device: torch.device) -> ExtraTrees:
        """The same trees on a device."""
        return ExtraTrees(self.features.to(device), self.thresholds.to(device), self.shares.to(device))

    def ask(self, samples: Tensor) -> Tensor:
        """Mean share of the class where samples ``(n, F)`` end: ``(n,)`` in 0..1; 0.5 if there are no trees."""
        if not len(self):
            return samples.new_full((len(samples),), 0.5)
        at_once = ASKED_AT_ONCE if samples.device.type == "cpu" else ASKED_AT_ONCE * 256
        return torch.cat([self._ask(some) for some in samples.split(at_once)])  # type: ignore[no-untyped-call]

    def _ask(self, samples: Tensor) -> Tensor:
        trees, count, device = len(self), len(samples), samples.device
        values = samples.T.reshape(-1)
        # 32 bits do for every index here, and are fetched twice as fast as 64.
        sample = torch.arange(count, dtype=torch.int32, device=device)
        node = torch.arange(trees, dtype=torch.int32, device=device).repeat_interleave(count)
        first = 0
        while first < len(self.features):
            level = slice(first, 2 * first + trees)
            tested = self.features[level].index_select(0, node).view(trees, count).mul_(count).add_(sample)
            right = values.index_select(0, tested.view(-1)) > self.thresholds[level].index_select(0, node)
            node.mul_(2).add_(right)
            first = level.stop
        return self.shares.view(-1).index_select(0, node).view(trees, count).mean(0)


def grow(samples: Tensor, of_class: Tensor, share: float, rules: FitRules, generator: torch.Generator) -> ExtraTrees:
    """Grow trees, each from as many samples of the class and of the rest as `rules` say, drawn for it.

    Args:
        samples: ``(n, F)`` features, on the CPU.
        of_class: ``(n,)`` bool.
        share: Weight of all samples of the class together, 0..1; the rest has what remains.
        rules: Number and depth of the trees, tests tried for a node, samples of a leaf.
        generator: On the CPU.
    """
    if not rules.trees or not bool(of_class.any()) or bool(of_class.all()):
        return ExtraTrees.none()
    rows = [_draw(torch.nonzero(chosen)[:, 0], rules, generator) for chosen in (~of_class, of_class)]
    weights = torch.tensor([(1 - share) / rows[0].shape[1], share / rows[1].shape[1]])
    drawn = torch.cat(rows, dim=1)
    values, kind = samples[drawn].view(-1, samples.shape[1]), of_class[drawn].view(-1).long()
    node = torch.arange(rules.trees).repeat_interleave(drawn.shape[1])
    features, thresholds = [], []
    for level in range(rules.depth):
        feature, threshold = _choose_tests(values, kind, node, weights, rules, generator, rules.trees << level)
        right = values.gather(1, feature[node][:, None])[:, 0] > threshold[node]
        node = 2 * node + right
        features.append(feature.int())
        thresholds.append(threshold)
    leaves = rules.trees << rules.depth
    weight = torch.bincount(2 * node + kind, minlength=2 * leaves).view(leaves, 2) * weights
    shares = (weight[:, 1] / weight.sum(1).clamp_min(1e-12)).view(rules.trees, -1)
    return ExtraTrees(torch.cat(features), torch.cat(thresholds), shares)


def _draw(rows: Tensor, rules: FitRules, generator: torch.Generator) -> Tensor:
    """Draw rows for each tree, without repetition: ``(T, at most rules.drawn)``."""
    keys = torch.rand(rules.trees, len(rows), generator=generator)
    return rows[keys.topk(min(rules.drawn, len(rows)), dim=1).indices]


def _choose_tests(
    values: Tensor,
    kind: Tensor,
    node: Tensor,
    weights: Tensor,
    rules: FitRules,
    generator: torch.Generator,
    nodes: int,
) -> tuple[Tensor, Tensor]:
    """Try random features at random thresholds, and keep the test that leaves the least Gini impurity.

    Args:
        values: ``(n, F)`` samples of all trees.
        kind: ``(n,)``: 1 for those of the class, 0 for the rest.
        node: ``(n,)`` where in the level each of them is.
        weights: ``(2,)`` of a sample of the rest, and of the class.
        rules: As for `grow`.
        generator: As for `grow`.
        nodes: How many there are in the level, of all trees.

    Returns:
        Feature and threshold ``(nodes,)``; infinite where all samples are of one kind, or too few.
    """
    tried = torch.randint(values.shape[1], (nodes, rules.tries), generator=generator)
    places = nodes * rules.tries
    place = (node[:, None] * rules.tries + torch.arange(rules.tries)).view(-1)
    seen = values.gather(1, tried[node]).view(-1)
    least, most = (
        torch.zeros(places).scatter_reduce_(0, place, seen, how, include_self=False) for how in ("amin", "amax")
    )
    threshold = least + (most - least) * torch.rand(places, generator=generator)
    right = seen > threshold[place]
    kinds = (2 * place + kind.repeat_interleave(rules.tries))[right]
    above = torch.bincount(kinds, minlength=2 * places).view(nodes, rules.tries, 2)
    total = torch.bincount(2 * node + kind, minlength=2 * nodes).view(nodes, 1, 2)
    fits = torch.minimum(above.sum(-1), (total - above).sum(-1)) >= rules.leaf
    fits &= (total > 0).all(-1)
    purity = _purity(above * weights) + _purity((total - above) * weights)
    best = torch.where(fits, purity, -1.0).argmax(1, keepdim=True)
    chosen = torch.where(fits, threshold.view(nodes, -1), torch.inf).gather(1, best)
    return tried.gather(1, best)[:, 0], chosen[:, 0]


def _purity(weight: Tensor) -> Tensor:
    """Weight of a side times what its Gini impurity lacks to one, from the weights of both kinds ``(..., 2)``."""
    purity: Tensor = weight.square().sum(-1) / weight.sum(-1).clamp_min(1e-12)
    return purity
