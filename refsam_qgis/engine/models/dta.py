"""Dynamic Target Alignment: adapters that bend SAM's features to the class sought (method Eq. 5 and 6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .sam import CHANNELS


class DTAAdapter(nn.Module):
    """One block's adapter, parallel to its attention.

    It narrows the tokens, sets beside each the narrowed prototype that the position was assigned to, mixes both and
    widens the result. The widening starts at zero, so an untrained adapter leaves SAM as it is.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(token_width, width)
        self.project = nn.Linear(CHANNELS, width)
        self.mix = nn.Linear(2 * width, width)
        self.up = nn.Linear(width, token_width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor, prototypes: Tensor, assignment: Tensor) -> Tensor:
        """Compute DTA(x) = W_up ReLU(Conv1x1([W_dn x ; G])) with G_n the prototype that position n is assigned to.

        Args:
            tokens: ``(B, h, w, d)`` the block's input.
            prototypes: ``(B, M, 256)`` refined prototypes.
            assignment: ``(B, h, w)`` prototype index of each position.

        Returns:
            Residual ``(B, h, w, d)``.
        """
        projected = self.project(prototypes)
        index = assignment.flatten(1)[..., None].expand(-1, -1, projected.shape[-1])
        guidance = projected.gather(1, index).view(*tokens.shape[:3], -1)
        # A 1x1 convolution over channels-last tokens is a linear layer.
        mixed = torch.relu(self.mix(torch.cat([self.down(tokens), guidance], dim=-1)))
        residual: Tensor = self.up(mixed)
        return residual


class DTAAdapters(nn.ModuleList):
    """An adapter for every block of an encoder."""

    def __init__(self, token_width: int, depth: int, width: int) -> None:
        super().__init__(DTAAdapter(token_width, width) for _ in range(depth))

    def bind(self, prototypes: Tensor, assignment: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """Fix what the adapters are guided by, leaving one function of the tokens a block."""
        return [partial(adapter, prototypes=prototypes, assignment=assignment) for adapter in self]
