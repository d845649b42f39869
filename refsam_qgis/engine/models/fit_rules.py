"""How a prior is fitted to the references; without torch, so that a report and a key can name the rules quickly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitRules:
    """How the map is fitted; chosen on the development scenes.

    Attributes:
        waves: Random Fourier features.
        frequency: Their standard deviation for 8 standardised features; it falls with the root of their number.
        linear: Share of the plain features beside the waves: it leads where the target lies outside the reference.
        ridge: Weight of the penalty on the head.
        pixels: Most pixels of class, and of background, that the fit looks at; references share them equally.
        rounds: Fits; after each, doubtful background that looks like the class is left out of the next.
        seed: Of the waves and of the choice of pixels.
    """

    waves: int = 400
    frequency: float = 0.4
    linear: float = 0.02
    ridge: float = 1e-4
    pixels: int = 5000
    rounds: int = 2
    seed: int = 0
