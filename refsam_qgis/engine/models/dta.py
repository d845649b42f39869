"""Dynamic Target Alignment: adapters that bend SAM's features to the class sought (method Eq. 5 and 6)."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RefSAMError
from .encoder import BlockAdapter
from .sam import CHANNELS


class DTAAdapter(nn.Module):
    """One block's adapter, parallel to its attention.

    It narrows the tokens, sets beside each the narrowed prototype that the position was assigned to, mixes both and
    widens the result. The widening starts at zero, so an untrained adapter leaves SAM as it is.

    Args:
        token_width: Channels of the encoder's tokens, d.
        width: Hidden width, C_d.
        position_code: Whether prototypes are looked at; without them the adapter sees the tokens alone.
    """

    def __init__(self, token_width: int, width: int, position_code: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(token_width, width)
        self.project = nn.Linear(CHANNELS, width) if position_code else None
        self.mix = nn.Linear((1 + position_code) * width, width)
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
        narrowed = self.down(tokens)
        if self.project is not None:
            projected = self.project(prototypes)
            index = assignment.flatten(1)[..., None].expand(-1, -1, projected.shape[-1])
            guidance = projected.gather(1, index).view(*tokens.shape[:3], -1)
            narrowed = torch.cat([narrowed, guidance], dim=-1)
        # A 1x1 convolution over channels-last tokens is a linear layer.
        residual: Tensor = self.up(torch.relu(self.mix(narrowed)))
        return residual


class DTAAdapters(nn.ModuleDict):
    """The adapters of an encoder, by the index of their block."""

    def __init__(self, token_width: int, blocks: tuple[int, ...], width: int, position_code: bool = True) -> None:
        super().__init__({str(block): DTAAdapter(token_width, width, position_code) for block in blocks})

    def bind(self, prototypes: Tensor, assignment: Tensor) -> dict[int, BlockAdapter]:
        """Fix what the adapters are guided by, leaving one function of the tokens for each block that has one."""
        return {
            int(block): partial(adapter, prototypes=prototypes, assignment=assignment)
            for block, adapter in self.items()
        }


def adapted_blocks(encoder: Any, rule: str) -> tuple[int, ...]:
    """Indices of the blocks that a rule of `ViRefSAMConfig.adapted_blocks` gives an adapter.

    Raises:
        RefSAMError: With code ``checkpoint`` when the rule is unknown or asks for more blocks than there are.
    """
    depth = len(encoder.blocks)
    last = re.fullmatch(r"last_([1-9]\d*)", rule)
    if last and int(last[1]) <= depth:
        return tuple(range(depth - int(last[1]), depth))
    if rule == "all":
        return tuple(range(depth))
    if rule == "global":
        return tuple(i for i, block in enumerate(encoder.blocks) if block.window_size == 0)
    if rule == "none":
        return ()
    raise RefSAMError(
        "checkpoint",
        f"Adapters in the blocks '{rule}' do not exist in an encoder of {depth} blocks; use 'all', 'global', 'none' or "
        f"'last_N' with N up to {depth}.",
    )
