"""Tensors in files of caches: written whole or not at all, and told from damaged ones when they are read."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

DIGEST_BYTES = 32
PART = ".part"
"""Ending of what is being written."""
ABANDONED_SECONDS = 3600.0
"""What is being written for longer was left by a process that is gone."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors, and note that they were used just now.

    Raises:
        OSError: If there are none.
        ValueError: If they are damaged.
        SafetensorError: If they are something else.
    """
    content = path.read_bytes()
    payload = memoryview(content)[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != content[:DIGEST_BYTES]:
        raise ValueError(f"'{path}' is damaged")
    with suppress(OSError):
        os.utime(path)
    return load(bytes(payload))


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> int:
    """Write tensors on the CPU to a file that appears when it is whole; its folder is made.

    Returns:
        Its size in bytes.

    Raises:
        OSError: If that is not possible.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(hashlib.sha256(payload).digest())
            stream.write(payload)
        os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    return DIGEST_BYTES + len(payload)


def sweep(folder: Path) -> None:
    """Delete what processes that are gone left half-written in a folder."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in folder.glob(f".*{PART}"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
