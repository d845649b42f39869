"""COCO's run-length code of masks: lengths of runs of zeros and ones by turns, down the columns, zeros first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def decode_mask(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask.

    Args:
        counts: Lengths of the runs, or COCO's text for them.
        height: Of the mask in pixels.
        width: Of the mask in pixels.

    Returns:
        ``(height, width)`` bool.

    Raises:
        ValueError: If the runs do not fill the mask.
    """
    lengths = np.array(_read_text(counts) if isinstance(counts, str) else counts, np.int64)
    if lengths.sum() != height * width or (lengths < 0).any():
        raise ValueError(f"runs do not fill a mask of {width}x{height}")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask: NDArray[np.bool_] = flat.reshape(width, height).T
    return mask


def _read_text(text: str) -> list[int]:
    """Read the lengths out of COCO's text.

    A number is written in groups of 5 bits, the lowest first, each a character from "0" on; bit 5 says that more
    follow, and bit 4 of the last is the sign. From the fourth number on it is the difference to the last but one.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - ord("0")
        number |= (group & 0x1F) << shift
        shift += 5
        if group & 0x20:
            continue
        if group & 0x10:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return lengths
