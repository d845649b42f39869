"""How a class map that was fitted to the references enters ViRefSAM, and how it shares in the answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PriorBlend(nn.Module):
    """What the fitted values mean as logits, and how far to trust SAM's decoder; learnt, and calibrated at last.

    The decoder draws sharp objects where it knows their kind; the fitted map holds on to what the references say. Their
    weighted sum is the answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.offset = nn.Parameter(torch.tensor(0.0))
        self.decoded_weight = nn.Parameter(torch.tensor(0.5))
        self.prior_weight = nn.Parameter(torch.tensor(0.5))
        self.shift = nn.Parameter(torch.tensor(0.0))

    def calibrate(self, fitted: Tensor) -> Tensor:
        """Turn fitted values of any shape into logits."""
        return self.gain * fitted + self.offset

    @torch.no_grad()
    def set(self, decoded: float, prior: float, shift: float) -> None:
        """Set what decoder and prior weigh, and what is added."""
        self.decoded_weight.fill_(decoded)
        self.prior_weight.fill_(prior)
        self.shift.fill_(shift)

    def forward(self, decoded: Tensor, prior: Tensor) -> Tensor:
        """Join the decoder's logits and the calibrated prior's, both ``(B, 4h, 4w)``."""
        return self.decoded_weight * decoded + self.prior_weight * prior + self.shift
