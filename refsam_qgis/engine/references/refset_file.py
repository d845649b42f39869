"""The ``.refset`` file: a zip archive of chips as lossless PNGs with a manifest, independent of any model.

``refset.json`` names the format and its version, the ground size, the classes in the order of their ids, and of every
chip its class (null for a negative), side, ground sample distance, areas of objects, origin, whether it is stretched
and between which values it can be. The N-th chip is ``chips/N/image.png`` (RGB), ``mask.png`` (values of `Shots`) and
``valid.png`` (0 or 255). Equal content gives equal bytes.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from refsam_qgis import __version__

from ..errors import JobCancelled, RefSAMError
from ..events import Reporter, check_cancelled
from ..models.segmenter import BACKGROUND, FOREGROUND, IGNORE, UNMARKED
from ..rasters.outputs import disk_errors
from .chips import LARGEST_CHIP, Chip, ChipSet, chip_side
from .marks import MAX_CLASSES

FORMAT = "refsam reference set"
VERSION = 1
MANIFEST = "refset.json"
MAX_MANIFEST = 16 * 2**20
"""Longest manifest that is written and read, in bytes."""
MAX_PIXELS = 2**29
"""Most pixels of all chips together; they take five bytes each in memory."""
PARTS = ("image", "mask", "valid")
_MADE = (1980, 1, 1, 0, 0, 0)
"""Time stamp of every member: the earliest a zip archive knows, so that equal content gives equal bytes."""


def write_refset(path: str, chips: ChipSet, reporter: Reporter) -> None:
    """Write a reference set.

    Raises:
        RefSAMError: With code ``reference`` for more than is ever read, ``disk`` when it cannot be written.
    """
    named, title = chips.chips(), os.path.basename(path)  # its folder may be one of passage
    if sum(chip.side**2 for _, chip in named) > MAX_PIXELS:
        raise RefSAMError(
            "reference",
            f"The chips of '{title}' have more than {MAX_PIXELS:,} pixels; use a smaller chip size or fewer classes.",
        )
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"RefSAM {__version__}",
        "chip_ground_size": chips.ground_size,
        "classes": list(chips.classes),
        "chips": [
            {
                "class": name,
                "side": chip.side,
                "gsd": chip.gsd,
                "areas": list(chip.areas),
                "origin": dict(chip.origin),
                "stretched": chip.stretched,
                "limits": None if chip.limits is None else chip.limits.tolist(),
            }
            for name, chip in named
        ],
    }
    text = json.dumps(manifest, ensure_ascii=False, indent=1, allow_nan=False).encode()
    if len(text) > MAX_MANIFEST:
        raise RefSAMError(
            "reference",
            f"The chips of '{title}' show more objects than a reference set can list; use fewer examples or a smaller "
            "chip size.",
        )
    with disk_errors(path), zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_member(MANIFEST, zipfile.ZIP_DEFLATED), text)
        for number, (_, chip) in enumerate(named, 1):
            check_cancelled(reporter)
            pixels = (chip.image.transpose(1, 2, 0), chip.mask, chip.valid.astype(np.uint8) * 255)
            for part, values in zip(PARTS, pixels, strict=True):
                archive.writestr(_member(_part(number, part), zipfile.ZIP_STORED), _to_png(values))


def verify_refset(path: str, final: str, reporter: Reporter) -> None:
    """Read a reference set that was just written, keeping none of it: two sets may be more than fits into memory.

    Args:
        path: Where it is.
        final: Where it is to go, for the message.
        reporter: Is asked whether to stop.

    Raises:
        RefSAMError: With code ``internal`` when it cannot be read, so that it should replace nothing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for _ in _chips(archive, _contents(archive, path), reporter):
                pass
    except (JobCancelled, MemoryError):
        raise
    except Exception as error:
        raise RefSAMError(
            "internal",
            f"Reference set '{final}' came out damaged ({_reason(error)}) and is not kept, so what is there stays; "
            "please report it.",
        ) from error


def read_refset(path: str, reporter: Reporter) -> ChipSet:
    """Read a reference set. Nothing is unpacked to disk, and nothing larger than it says is read.

    Raises:
        RefSAMError: With code ``reference`` when the file is missing, foreign, damaged or of another version.
    """
    with _reading(path) as (archive, contents):
        classes: dict[str, list[Chip]] = {name: [] for name in contents.names}
        negatives: list[Chip] = []
        for name, chip in _chips(archive, contents, reporter):
            (negatives if name is None else classes[name]).append(chip)
    return ChipSet(contents.ground_size, classes, negatives)


def stretches_in(path: str) -> set[bool]:
    """Return whether there are chips in a reference set that are stretched, and whether there are some that are not.

    What nobody knows of is left out. Only the manifest is read.

    Raises:
        RefSAMError: As `read_refset`.
    """
    with _reading(path) as (_, contents):
        return {stretched for stretched in map(_is_stretched, contents.entries) if stretched is not None}


@contextmanager
def _reading(path: str) -> Iterator[tuple[zipfile.ZipFile, _Contents]]:
    """Open a reference set; raises what `read_refset` does, whatever fails in the context."""
    with _open(path) as archive:
        if MANIFEST not in archive.namelist():
            raise _foreign(path)
        try:
            yield archive, _contents(archive, path)
        except (RefSAMError, MemoryError):
            raise
        except Exception as error:  # members fail in many ways when they are damaged; all mean the same to a user
            raise RefSAMError(
                "reference",
                f"Reference set '{path}' is damaged ({_reason(error)}); restore a copy of it or build it anew.",
            ) from error


def _open(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise _foreign(path) from error
    except OSError as error:
        raise RefSAMError(
            "reference", f"Reference set '{path}' cannot be opened ({error.strerror or error}); check its path."
        ) from error


@dataclass(frozen=True)
class _Contents:
    """What a manifest says.

    Attributes:
        ground_size: Of every chip.
        names: Of the classes, each of which has a chip.
        sizes: Class, side and ground sample distance of each chip.
        entries: All that it says of each.
    """

    ground_size: float
    names: list[str]
    sizes: list[tuple[str | None, int, float]]
    entries: list[Any]


def _contents(archive: zipfile.ZipFile, path: str) -> _Contents:
    document = json.loads(_bytes(archive, MANIFEST, MAX_MANIFEST))
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _foreign(path)
    version = document.get("version")
    if version != VERSION:
        raise RefSAMError(
            "reference",
            f"Reference set '{path}' has format version {version} (written by {document.get('written_by', 'another')})"
            f" and this RefSAM reads version {VERSION}; update RefSAM, or build the set anew.",
        )
    ground_size = _positive(document["chip_ground_size"])
    names = document["classes"]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ValueError("its class names are no texts")
    if not 1 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError("its class names are none, too many or not unique")
    entries = document["chips"]
    sizes = [(_class_of(entry, names), *_size_of(entry, ground_size)) for entry in entries]
    if sum(side**2 for _, side, _ in sizes) > MAX_PIXELS:
        raise ValueError(f"its chips have more than {MAX_PIXELS:,} pixels")
    shown = {name for name, _, _ in sizes}
    for name in names:
        if name not in shown:
            raise ValueError(f"class '{name}' has no chip")
    return _Contents(ground_size, names, sizes, entries)


def _chips(archive: zipfile.ZipFile, contents: _Contents, reporter: Reporter) -> Iterator[tuple[str | None, Chip]]:
    """Yield every chip with the name of its class."""
    for number, ((name, side, gsd), entry) in enumerate(zip(contents.sizes, contents.entries, strict=True), 1):
        check_cancelled(reporter)
        # Files of before did not say the areas, or said 0 of polygons without one.
        areas = tuple(_positive(area) for area in entry.get("areas", ()) if area != 0)
        chip = _read_chip(archive, number, side, gsd, entry["origin"])
        yield name, replace(chip, areas=areas, stretched=_is_stretched(entry), limits=_limits_of(entry))


def _class_of(entry: Any, names: list[str]) -> str | None:
    name: str | None = entry["class"]
    if name is not None and name not in names:
        raise ValueError(f"a chip is of an unknown class '{name}'")
    return name


def _size_of(entry: Any, ground_size: float) -> tuple[int, float]:
    """Return side and ground sample distance of a chip."""
    side, gsd = entry["side"], _positive(entry["gsd"])
    if type(side) is not int or not 1 <= side <= LARGEST_CHIP or side != chip_side(ground_size, gsd, "?"):
        raise ValueError(f"a chip of side {side} does not cover the ground size")
    return side, gsd


def _is_stretched(entry: Any) -> bool | None:
    """Whether a chip is stretched; files of before say it where that did not depend on the data type."""
    stretched = entry.get("stretched", {"percentile": True, "none": False}.get(entry["origin"].get("stretch")))
    if not isinstance(stretched, (bool, type(None))):
        raise ValueError(f"whether a chip is stretched is {stretched!r}")
    return stretched


def _limits_of(entry: Any) -> NDArray[np.float64] | None:
    if (limits := entry.get("limits")) is None:
        return None
    values = np.asarray(limits, np.float64)
    if values.shape not in ((1, 2), (3, 2)) or not np.isfinite(values).all():
        raise ValueError("a chip is to be stretched between what are no values of bands")
    return values


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ValueError(f"{value!r} is no size")
    return float(value)


def _read_chip(archive: zipfile.ZipFile, number: int, side: int, gsd: float, origin: Any) -> Chip:
    if not isinstance(origin, Mapping):
        raise ValueError(f"the origin of chip {number} is no object")
    image, mask, inside = (
        _from_png(archive, _part(number, part), side, mode) for part, mode in zip(PARTS, ("RGB", "L", "L"), strict=True)
    )
    valid = inside > 0
    known = np.isin(mask, (BACKGROUND, FOREGROUND, UNMARKED, IGNORE)).all()
    if not known or not (mask == FOREGROUND).any() or (mask[~valid] != IGNORE).any():
        raise ValueError(f"the mask of chip {number} is none")
    return Chip(np.ascontiguousarray(image.transpose(2, 0, 1)), mask, valid, gsd, origin)


def _part(number: int, part: str) -> str:
    return f"chips/{number:05}/{part}.png"


def _member(name: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _MADE)
    info.create_system = 3  # else the platform's
    info.external_attr = 0o644 << 16
    info.compress_type = compression
    return info


def _bytes(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read a member of no more than `limit` bytes; `zipfile` itself never reads past the size a member states."""
    if archive.getinfo(name).file_size > limit:
        raise ValueError(f"'{name}' is larger than it can be")
    return archive.read(name)


def _to_png(values: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(stream, "PNG")
    return stream.getvalue()


def _from_png(archive: zipfile.ZipFile, name: str, side: int, mode: str) -> NDArray[np.uint8]:
    """Decode a square image, ``(S, S, 3)`` or ``(S, S)``, checking its size before its pixels are unpacked."""
    with Image.open(io.BytesIO(_bytes(archive, name, 4 * side**2 + 2**16)), formats=["PNG"]) as image:
        if image.size != (side, side) or image.mode != mode:
            raise ValueError(f"'{name}' is {image.size[0]} x {image.size[1]} in mode {image.mode}")
        return np.array(image)


def _foreign(path: str) -> RefSAMError:
    return RefSAMError(
        "reference", f"'{path}' is not a whole reference set; choose a .refset file, or build the set anew."
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
