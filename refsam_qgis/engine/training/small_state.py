"""A training's state in a sixth of the bytes, to be carried to another machine.

Weights are kept at half precision. Of AdamW's moments the first, a mean over some ten steps, is left out: it is there
again soon after a run went on, and the steps until then are shorter. The second, a mean over a thousand, is kept by its
row and column sums, which tell a non-negative matrix of rank one exactly and others nearly (Shazeer & Stern 2018,
Adafactor, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def halve(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights at half precision; loading them into a model brings them back to its own."""
    return {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}


def shrink(optimiser: dict[str, Any]) -> dict[str, Any]:
    """AdamW's ``state_dict`` with what `enlarge` needs to go on.

    A second moment ``(m, ...)`` becomes its sums over rows and over columns of the matrix ``(m, -1)``, with its shape
    (axes of length one do not count); a vector stays.
    """
    return {
        "param_groups": optimiser["param_groups"],
        "state": {
            index: {"step": kept["step"], "exp_avg_sq": _factors(kept["exp_avg_sq"])}
            for index, kept in optimiser["state"].items()
        },
    }


def enlarge(small: dict[str, Any]) -> dict[str, Any]:
    """AdamW's ``state_dict`` from what `shrink` left of it; first moments are zero."""
    state = {}
    for index, kept in small["state"].items():
        second = _product(kept["exp_avg_sq"])
        state[index] = {"step": kept["step"], "exp_avg": torch.zeros_like(second), "exp_avg_sq": second}
    return {"param_groups": small["param_groups"], "state": state}


def _factors(moment: Tensor) -> dict[str, Any]:
    sizes = [size for size in moment.shape if size > 1]
    if len(sizes) < 2:
        return {"whole": moment}
    matrix = moment.reshape(sizes[0], -1)
    return {"rows": matrix.sum(1), "columns": matrix.sum(0), "shape": list(moment.shape)}


def _product(factors: dict[str, Any]) -> Tensor:
    if "whole" in factors:
        whole: Tensor = factors["whole"]
        return whole
    rows, columns = factors["rows"], factors["columns"]
    total = rows.sum().clamp_min(torch.finfo(rows.dtype).tiny)
    product: Tensor = torch.outer(rows / total, columns).reshape(factors["shape"])
    return product
