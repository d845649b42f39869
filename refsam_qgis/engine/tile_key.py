"""What the network's answers on the tiles of a raster depend on, as the name of what is kept of them."""

from __future__ import annotations

from typing import Any

import torch

from refsam_qgis import __version__

from .fingerprint import fingerprint, is_stamped
from .report import describe_device


def tile_key(source: dict[str, Any], device: torch.device, further: dict[str, Any]) -> str | None:
    """Return the key of what is kept of a raster's tiles; ``None`` where the raster might change unnoticed.

    Args:
        source: What the raster is and how it is read, as `describe_input` returns it.
        device: Of the network; its processor and precision count.
        further: What else the answers depend on, JSON-compatible.
    """
    if not is_stamped(source):
        return None
    versions = [__version__, torch.__version__]
    return fingerprint({**further, "input": source, "device": describe_device(device), "versions": versions})
