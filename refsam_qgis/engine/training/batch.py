"""Batches of a data loader: tensors by name, beside what is no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The same batch with its tensors on a device."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
