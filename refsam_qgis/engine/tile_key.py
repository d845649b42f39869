"""What the network's answers on the tiles of a raster depend on, as the name of what is kept of them."""

from __future__ import annotations

from typing import Any

import torch

from refsam_qgis import __version__

from .fingerprint import fingerprint, is_stamped
from .rasters.source import RasterSource
from .report import describe_device, describe_input


def tile_key(raster: RasterSource, device: torch.device, further: dict[str, Any]) -> str | None:
    """Return the key of what is kept of a raster's tiles; ``None`` where the raster might change unnoticed.

    Args:
        raster: The raster; its content, bands and stretch count.
        device: Of the network; its processor and precision count.
        further: What else the answers depend on, JSON-compatible.
    """
    source = describe_input(raster)
    if not is_stamped(source):
        return None
    versions = [__version__, torch.__version__]
    return fingerprint({**further, "input": source, "device": describe_device(device), "versions": versions})
