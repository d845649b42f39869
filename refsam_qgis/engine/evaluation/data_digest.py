"""What figures were measured on: how much it was, and a digest that tells whether other data are the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import RefSAMError
from ..events import Reporter, SilentReporter, check_cancelled

READ_BYTES = 4 * 2**30
"""Up to so many bytes a data set is read whole for its digest, in some seconds; of a larger one, such as COCO, names
and sizes have to do."""
BLOCK = 1 << 20


def describe_data(folder: Path, files: Iterable[Path], reporter: Reporter) -> dict[str, Any]:
    """Describe the files that figures depend on, for their record.

    Args:
        folder: Folder of the data set.
        files: Its images, masks and names of classes, in any order.
        reporter: Asked for cancellation before each file is read.

    Returns:
        ``files`` (their number), ``bytes``, ``sha256`` (that of `digest_files`) and ``sha256_of``: ``names and
        contents``, or ``names and sizes`` where there are more than `READ_BYTES`.

    Raises:
        RefSAMError: With code ``input`` if a file cannot be read.
        JobCancelled: If the user asked for it.
    """
    distinct = sorted(set(files))
    total = sum(_size(path) for path in distinct)
    contents = total <= READ_BYTES
    return {
        "files": len(distinct),
        "bytes": total,
        "sha256": digest_files(folder, distinct, contents, reporter),
        "sha256_of": "names and contents" if contents else "names and sizes",
    }


def digest_files(folder: Path, files: Iterable[Path], contents: bool = True, reporter: Reporter | None = None) -> str:
    """Return the SHA-256 of files as hexadecimal digits, the same wherever their folder lies.

    Each file, in the order of the names, adds its name from the folder on with ``/`` between, a zero byte, its size in
    decimal digits, a zero byte and, unless only sizes count, its content.

    Args:
        folder: That the names begin in.
        files: Files below it.
        contents: Whether what is in them counts too.
        reporter: Asked for cancellation before each file is read.

    Raises:
        RefSAMError: With code ``input`` if a file cannot be read.
        JobCancelled: If the user asked for it.
    """
    sha256 = hashlib.sha256()
    names = {os.fsencode(path.relative_to(folder).as_posix()): path for path in files}
    for name, path in sorted(names.items()):
        sha256.update(b"%s\0%d\0" % (name, _size(path)))
        if contents:
            check_cancelled(reporter or SilentReporter())
            _add(path, sha256)
    return sha256.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path) from error


def _add(path: Path, sha256: hashlib._Hash) -> None:
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                sha256.update(block)
    except OSError as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> RefSAMError:
    return RefSAMError("input", f"'{path}' cannot be read; put it there, readable, or remove it from the data set.")
