"""Connected regions of an integer map, by runs and union of touching runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def connected_regions(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the 4-connected regions of equal value.

    Args:
        keys: (H, W) values; cells are connected where a neighbour in the row or column has the same value.

    Returns:
        (H, W) region numbers 0.., in the order of each region's first cell.
    """
    starts = np.ones(keys.shape, bool)
    starts[:, 1:] = keys[:, 1:] != keys[:, :-1]
    run_of = (np.cumsum(starts.ravel()) - 1).reshape(keys.shape)
    touching = keys[1:] == keys[:-1]
    # Two runs that touch along many cells need one edge: where the contact begins.
    first = touching.copy()
    first[:, 1:] &= ~touching[:, :-1] | starts[1:, 1:] | starts[:-1, 1:]
    upper, lower = run_of[:-1][first], run_of[1:][first]
    root = np.arange(run_of[-1, -1] + 1)
    while True:
        smallest = np.minimum(root[upper], root[lower])
        updated = root.copy()
        # Hook the roots themselves, not only the runs, so that labels travel along whole trees in one round.
        np.minimum.at(updated, root[upper], smallest)
        np.minimum.at(updated, root[lower], smallest)
        updated = updated[updated]
        if np.array_equal(updated, root):
            break
        root = updated
    is_root = root == np.arange(root.size)
    numbers: NDArray[np.int64] = (np.cumsum(is_root) - 1)[root][run_of]
    return numbers
