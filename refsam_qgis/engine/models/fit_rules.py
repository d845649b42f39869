"""How a prior is fitted to the references; without torch, so that a report and a key can name the rules quickly."""

from __future__ import annotations

from dataclasses import dataclass

RAREST = 0.01
"""Least share of the class, and of background, that a fit reckons with."""


@dataclass(frozen=True)
class FitRules:
    """How the map is fitted; chosen on the development scenes.

    Attributes:
        frequencies: Random ones, each with its cosine and its sine.
        scale: Standard deviation of the frequencies for 8 standardised features; with more it falls with their root.
        linear: Share of the plain features beside the waves: it leads where the target lies outside the reference.
        ridge: Weight of the penalty on the head.
        pixels: Most pixels of class, and of background, that the fit looks at; references share them equally.
        rounds: Fits; after each, doubtful background that looks like the class is left out of the next.
        seed: Of the frequencies and of the choice of pixels.
        limit: Standard deviations from the references' mean beyond which a feature says no more.
        gain: From the regression's values, mostly within -1..1, to logits.
        least_share: A feature belongs to a mark that covers at least this share of it, or half as much as it covers of
            its best covered feature.
        trees: Extremely randomised ones beside the regression; 0 for none.
        depth: Tests that a sample passes in each of them.
        tries: Tests among which the best is kept; about the root of the number of features.
        leaf: Samples in a leaf at the least; marks are wrong along edges, single pixels are not worth a split.
        drawn: Most samples of the class, and of background, that each of the trees is grown from.
        learned: Whether the fit in the learned embedding has a say, where there is one.
    """

    frequencies: int = 128
    scale: float = 0.4
    linear: float = 0.02
    ridge: float = 1e-4
    pixels: int = 5000
    rounds: int = 2
    seed: int = 1
    limit: float = 4.0
    gain: float = 3.0
    least_share: float = 0.3
    trees: int = 16
    depth: int = 10
    tries: int = 7
    leaf: int = 5
    drawn: int = 1500
    learned: bool = True


REGRESSION_ALONE = FitRules(trees=0, learned=False)
