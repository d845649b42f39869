"""Averages over the cells of a coarser grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def average_cells(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Average values over each cell.

    Args:
        values: ``(..., H, W)`` float; three or four dimensions.
        size: Rows and columns of cells, h and w, at most H and W.

    Returns:
        ``(..., h, w)`` on the device of `values`.
    """
    if values.device.type == "mps" and (values.shape[-2] % size[0] or values.shape[-1] % size[1]):
        # torch has it there for equal cells alone, and raises rather than fall back.
        return F.adaptive_avg_pool2d(values.cpu(), size).to(values.device)
    return F.adaptive_avg_pool2d(values, size)
