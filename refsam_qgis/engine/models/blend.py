"""How a class map that was fitted to the references enters ViRefSAM, and how it shares in the answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PriorBlend(nn.Module):
    """What the fitted values mean as logits, and how far to trust SAM's decoder; learnt, and calibrated at last.

    The decoder draws sharp objects where it knows their kind; the fitted map holds on to what the references say. Both
    mean less the farther a target lies from the references. The prototypes' cosine is coarse, but holds across light
    and sensors. The weighted sum of the three is the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.decoded_weight = nn.Parameter(torch.tensor(0.5))
        self.prior_weight = nn.Parameter(torch.tensor(0.5))
        self.cosine_weight = nn.Parameter(torch.tensor(0.0))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def calibrate(self, fitted: Tensor) -> Tensor:
        """Turn fitted values of any shape into logits."""
        return self.gain * fitted + self.offset

    @torch.no_grad()
    def set(self, decoded: float, prior: float, cosine: float, shift: float) -> None:
        """Set what decoder, prior and cosine weigh, and what is added."""
        for weight, value in (
            (self.decoded_weight, decoded),
            (self.prior_weight, prior),
            (self.cosine_weight, cosine),
            (self.shift, shift),
        ):
            weight.fill_(value)

    def forward(self, decoded: Tensor, prior: Tensor, cosine: Tensor, closeness: Tensor) -> Tensor:
        """Join what is known of B targets.

        Args:
            decoded: The decoder's logits ``(B, 4h, 4w)``.
            prior: The calibrated fitted map's, of the same shape.
            cosine: The prototypes' ``(B, h, w)`` (Eq. 3).
            closeness: ``(B,)`` of the targets to the references.

        Returns:
            ``(B, 4h, 4w)``.
        """
        trusted = self.decoded_weight * decoded + self.prior_weight * prior
        return closeness[:, None, None] * trusted + self.cosine_weight * enlarge(cosine, prior) + self.shift


def enlarge(cosine: Tensor, like: Tensor) -> Tensor:
    """Scale logits ``(B, h, w)`` up to the size of others."""
    return F.interpolate(cosine[:, None], size=like.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
