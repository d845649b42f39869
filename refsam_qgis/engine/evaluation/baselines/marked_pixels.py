"""Which pixels of the references the baselines learn from."""

from __future__ import annotations

from torch import Tensor

from ...errors import RefSAMError
from ...models.segmenter import BACKGROUND, FOREGROUND, UNMARKED


def background_value(masks: Tensor) -> int:
    """Mask value of the pixels that are background to a baseline.

    Unmarked pixels stand in for background only where nothing in the references is known to be background.

    Args:
        masks: ``(K, S, S)`` uint8 of the mask values of `Shots`.
    """
    return BACKGROUND if bool((masks == BACKGROUND).any()) else UNMARKED


def require_class(masks: Tensor) -> None:
    """Check that some pixel of the references is marked as the class.

    Raises:
        RefSAMError: With code ``reference``.
    """
    if not bool((masks == FOREGROUND).any()):
        raise RefSAMError("reference", "The references mark no pixel of the class; draw larger marks.")
