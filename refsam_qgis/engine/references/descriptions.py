"""What a model says of reference chips, kept on disk so that the same examples are encoded once."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from torch import Tensor

from refsam_qgis import __version__

from ..home import home
from ..job import ModelOptions
from ..models.precision import name_precision
from ..models.segmenter import ReferenceSegmenter, Shots
from ..models.weight_files import identify_model
from ..tensor_files import read_tensors, write_tensors
from .chips import digest_shots

MAX_KEPT = 500
"""Most descriptions kept, about 50 kB each for ten chips; those not used for longest go first."""
SUFFIX = ".description"


@runtime_checkable
class PortableReferences(Protocol):
    """A segmenter whose descriptions can be stored."""

    def dump_reference(self, reference: Any) -> dict[str, Tensor]:
        """Return a description as tensors on the CPU."""

    def restore_reference(self, tensors: dict[str, Tensor]) -> Any:
        """Return the description again, bit by bit the same, on the model's device.

        Raises:
            ValueError: If the tensors are those of something else.
        """


def describe(model: ReferenceSegmenter, options: ModelOptions, shots: Shots) -> Any:
    """Return the model's description of shots, from disk when it was made before.

    It is kept for the content of the shots, the digests of the weights, the device, its precision and the versions, so
    that it is bit by bit what would be computed. A damaged or unwritable cache is as good as none.

    Args:
        model: Describes the shots; one that is no `PortableReferences` is asked every time.
        options: What the model was loaded by.
        shots: Chips of one class.
    """
    if not isinstance(model, PortableReferences):
        return model.describe(shots)
    path = home() / "cache" / "prototypes" / (_key(options, model.device, shots) + SUFFIX)
    with suppress(OSError, ValueError, SafetensorError):
        return model.restore_reference(read_tensors(path))
    description = model.describe(shots)
    with suppress(OSError):
        write_tensors(path, model.dump_reference(description))
        _forget_oldest(path.parent)
    return description


def _key(options: ModelOptions, device: torch.device, shots: Shots) -> str:
    where = [str(device), name_precision(device)]
    parts = [digest_shots(shots), identify_model(options), where, __version__, torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _forget_oldest(folder: Path) -> None:
    kept = list(folder.glob("*" + SUFFIX))
    if len(kept) > MAX_KEPT:
        by_age = sorted(kept, key=lambda path: path.stat().st_mtime_ns)
        for path in by_age[: len(kept) - MAX_KEPT]:
            path.unlink(missing_ok=True)
