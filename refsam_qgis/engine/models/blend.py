"""How a class map that was fitted to the references enters ViRefSAM, and how it shares in the answer."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .fit_rules import FitRules
from .fitted_prior import FittedMap
from .pseudo_mask import PseudoMask


class PriorBlend(nn.Module):
    """What the fitted values mean as logits, and how far to trust SAM's decoder; learnt, and calibrated at last.

    The decoder draws sharp objects where it knows their kind; the fitted map holds on to what the references say; the
    prototypes' cosine is coarse, but holds across light. All three tell class from background, and mean less the
    farther a target lies from the references. Whether a place is like the class at all, where neither may be there, is
    what its likeness to the class prototype says. Trees tell class from background too, but a far target misleads them
    less; and so does the fit in the learned embedding, which was taught to hold across light and scenes. The weighted
    sum of the six, smoothed along the edges of the image (`guided_filter`), is the answer. A decoder that adds nothing
    to the others weighs nothing, and need not be asked; neither need trees, nor the embedding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.decoded_weight = nn.Parameter(torch.tensor(0.5))
        self.prior_weight = nn.Parameter(torch.tensor(0.5))
        self.cosine_weight = nn.Parameter(torch.tensor(0.0))
        self.likeness_weight = nn.Parameter(torch.tensor(0.0))
        self.trees_weight = nn.Parameter(torch.tensor(0.0))
        self.learned_weight = nn.Parameter(torch.tensor(0.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def calibrate(self, fitted: Tensor) -> Tensor:
        """Turn fitted values of any shape into logits."""
        return self.gain * fitted + self.offset

    @torch.no_grad()
    def set(
        self,
        decoded: float = 0.0,
        prior: float = 0.0,
        cosine: float = 0.0,
        likeness: float = 0.0,
        trees: float = 0.0,
        learned: float = 0.0,
        shift: float = 0.0,
    ) -> None:
        """Set what decoder, prior, cosine, likeness, trees and the learned fit weigh, and what is added."""
        values = (decoded, prior, cosine, likeness, trees, learned, shift)
        for weight, value in zip(self.weights, values, strict=True):
            weight.fill_(value)

    @property
    def weights(self) -> tuple[nn.Parameter, ...]:
        """What `set` sets, in its order."""
        return (
            self.decoded_weight,
            self.prior_weight,
            self.cosine_weight,
            self.likeness_weight,
            self.trees_weight,
            self.learned_weight,
            self.shift,
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether it was ever fitted to episodes: nothing is added before."""
        return bool(self.shift.detach() != 0)

    @property
    def asks_decoder(self) -> bool:
        """Whether the decoder has a say."""
        return bool(self.decoded_weight.detach() != 0)

    @property
    def rules(self) -> FitRules:
        """How to fit what is asked: trees, and in the learned embedding, only where they have a say."""
        trees, learned = (bool(weight.detach() != 0) for weight in (self.trees_weight, self.learned_weight))
        return replace(FitRules(), trees=FitRules.trees if trees else 0, learned=learned)

    def forward(self, decoded: Tensor | None, prior: FittedMap, pseudo: PseudoMask) -> Tensor:
        """Join what is known of B targets.

        Args:
            decoded: The decoder's logits ``(B, 4h, 4w)``; ``None`` where it was not asked.
            prior: The fitted map of the same shape, its values calibrated.
            pseudo: What the prototypes say.

        Returns:
            ``(B, 4h, 4w)``.
        """
        contrast = self.prior_weight * prior.values + self.cosine_weight * enlarge(pseudo.cosine, prior.values)
        if decoded is not None:
            contrast = contrast + self.decoded_weight * decoded
        likeness = self.likeness_weight * enlarge(pseudo.likeness, prior.values)
        held = self.trees_weight * prior.votes + self.learned_weight * prior.learned
        return prior.closeness[:, None, None] * contrast + likeness + held + self.shift


def enlarge(coarse: Tensor, like: Tensor) -> Tensor:
    """Scale a map ``(B, h, w)`` up to the size of another."""
    return F.interpolate(coarse[:, None], size=like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
