"""Which files hold the weights of a job, and what tells them apart; without torch, so that asking is quick."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import RefSAMError
from ..job import ModelOptions
from .fit_rules import FitRules

BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints"
COMPACT_SAM = BUNDLED / "compact_sam.safetensors"
COMPACT_ADAPTERS = BUNDLED / "compact_adapters.safetensors"
PUBLISHED = {
    "vit_b": "sam_vit_b_01ec64.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_h": "sam_vit_h_4b8939.pth",
}
"""File names under which Meta publishes SAM's checkpoints."""


def resolve_method(options: ModelOptions) -> str:
    """Turn ``auto`` into the method that is measured to be the best; it runs with adapters and without."""
    return "fitted" if options.method == "auto" else options.method


def adapters_path(options: ModelOptions) -> Path | None:
    """The adapters file of a job: the one named, or the bundled one for the bundled compact model."""
    if options.adapters is not None:
        return Path(options.adapters)
    bundled = options.model == "compact" and options.checkpoint is None and COMPACT_ADAPTERS.is_file()
    return COMPACT_ADAPTERS if bundled else None


def checkpoint_path(options: ModelOptions) -> Path:
    """The SAM checkpoint of a job.

    Raises:
        RefSAMError: With code ``checkpoint`` when none was named and none is bundled.
    """
    if options.checkpoint is not None:
        return Path(options.checkpoint)
    if options.model == "compact":
        return COMPACT_SAM
    raise RefSAMError(
        "checkpoint",
        f"Model '{options.model}' needs its SAM checkpoint: download {PUBLISHED[options.model]} from the "
        "segment-anything project and choose it as CHECKPOINT, or use the model 'compact'.",
    )


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint, as hexadecimal digits."""
    require_file(path)
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _digest(path: Path, modified: int, size: int) -> str:
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
    return sha256.hexdigest()


def describe_model(options: ModelOptions) -> dict[str, Any]:
    """Model, method, rules of a fit, and names and digests of the weights of a job, for its report."""
    method = resolve_method(options)
    checkpoint = checkpoint_path(options)
    adapters = None if method == "training_free" else adapters_path(options)
    return {
        "model": options.model,
        "method": method,
        "fit": asdict(FitRules()) if method == "fitted" else None,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": digest(checkpoint),
        "adapters": adapters.name if adapters is not None else None,
        "adapters_sha256": digest(adapters) if adapters is not None else None,
    }


def identify_model(options: ModelOptions) -> dict[str, Any]:
    """`describe_model` without what the files are called: equal weights are equal in the keys of caches."""
    return {name: value for name, value in describe_model(options).items() if name not in ("checkpoint", "adapters")}


def require_file(path: Path) -> None:
    """Check that a file of weights is there.

    Raises:
        RefSAMError: With code ``checkpoint``.
    """
    if not path.is_file():
        remedy = "install RefSAM again" if path.parent == BUNDLED else "choose the file again"
        raise RefSAMError("checkpoint", f"Checkpoint '{path}' does not exist; {remedy}.")
