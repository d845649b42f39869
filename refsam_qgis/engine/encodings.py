"""Frozen encodings of tiles, kept on disk so that the same raster is asked for something else without that pass.

They are stored as the network computed them, so a run that uses them ends with the same bits as one that does not. The
disk is bounded: what was not used for longest makes room, and once a run's own tiles fill all of it, it keeps no more.
Nothing waits for the cache: whatever goes wrong with it, or takes too long, costs a tile that is encoded again.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from torch import Tensor

from .home import home
from .job import ModelOptions
from .models.weight_files import identify_model
from .rasters.grid import Tile
from .tensor_files import read_tensors, sweep, write_tensors
from .tile_key import tile_key

MAX_BYTES = 4 * 2**30
"""All encodings together keep no more than this: a thousand tiles of 4 MiB, which SAM's embedding takes."""
SPARED_BYTES = 5 * 2**30
"""Space on the disk that is left to others."""
BEING_WRITTEN = 2
"""Encodings in memory that wait for the disk; those that come meanwhile are not kept."""
SUFFIX = ".encoding"


@runtime_checkable
class PortableEncodings(Protocol):
    """A segmenter whose encodings of targets can be stored."""

    @property
    def device(self) -> torch.device:
        """Where the model runs."""

    def encoding_kind(self) -> list[Any]:
        """Return, as JSON, what an encoding depends on besides SAM's weights, the tile and the device."""

    def dump_encoding(self, encoding: Any) -> dict[str, Tensor]:
        """Return what of an encoding takes the encoder to compute, as tensors on the CPU."""

    def restore_encoding(self, tensors: dict[str, Tensor], images: Tensor, valid: Tensor) -> Any:
        """Return the encoding again, bit by bit the same.

        Args:
            tensors: What `dump_encoding` returned.
            images: As they were encoded.
            valid: As they were encoded.

        Raises:
            ValueError: If the tensors are those of something else.
        """


class EncodingCache:
    """The kept encodings of one raster by one network.

    Args:
        folder: Where they are, beside the folders of others; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._free = 0
        self._others: deque[tuple[Path, int]] = deque()
        self._pending: deque[Future[None]] = deque()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="encodings")
        if folder is not None:
            self._look_up(folder)

    def load(self, tile: Tile) -> dict[str, Tensor] | None:
        """Return what is kept of a tile, ``None`` if there is nothing; threads may ask at a time."""
        if self._folder is None:
            return None
        try:
            return read_tensors(self._path(self._folder, tile))
        except OSError:
            return None
        except (ValueError, SafetensorError):
            self.drop(tile)
            return None

    def drop(self, tile: Tile) -> None:
        """Delete what is kept of a tile, as it is no good."""
        if self._folder is not None:
            with suppress(OSError):
                self._path(self._folder, tile).unlink(missing_ok=True)

    def offer(self, tile: Tile, dump: Callable[[], dict[str, Tensor]]) -> None:
        """Keep what `dump` returns, in the background, if there is room and the disk keeps up."""
        while self._pending and self._pending[0].done():
            self._pending.popleft()
        if self._folder is not None and len(self._pending) < BEING_WRITTEN:
            self._pending.append(self._writer.submit(self._keep, self._path(self._folder, tile), dump()))

    def close(self) -> None:
        """Finish writing."""
        self._writer.shutdown()

    @staticmethod
    def _path(folder: Path, tile: Tile) -> Path:
        return folder / f"{tile.row}_{tile.column}{SUFFIX}"

    def _look_up(self, folder: Path) -> None:
        """Find out how much there is, and make room if it is too much."""
        with suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
        self._free, others = MAX_BYTES, []
        for path in folder.parent.glob(f"*/*{SUFFIX}"):
            with suppress(OSError):
                stat = path.stat()
                self._free -= stat.st_size
                if path.parent != folder:
                    others.append((stat.st_mtime, path, stat.st_size))
        self._others.extend((path, size) for _, path, size in sorted(others))
        self._make_room(0)
        for neighbour in folder.parent.glob("*"):
            sweep(neighbour)

    def _keep(self, path: Path, tensors: dict[str, Tensor]) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        with suppress(OSError):
            if self._make_room(size) and shutil.disk_usage(path.parents[1]).free - size > SPARED_BYTES:
                self._free -= write_tensors(path, tensors)

    def _make_room(self, size: int) -> bool:
        """Delete what others have not used for longest until there is room; return whether there is."""
        while self._free < size and self._others:
            path, freed = self._others.popleft()
            with suppress(OSError):
                path.unlink(missing_ok=True)
                self._free += freed
                path.parent.rmdir()  # if it was the last one
        return self._free >= size


@contextmanager
def open_encodings(
    wanted: bool, source: dict[str, Any], side: int, options: ModelOptions, model: Any
) -> Iterator[EncodingCache]:
    """Open the cache of a raster's encodings; one that keeps nothing where that is not wanted or not possible.

    It is not possible with a network that is no `PortableEncodings`, nor for a raster of which nobody can tell whether
    it changed, as it is no local file.

    Args:
        wanted: Whether encodings are to be kept and used.
        source: What the raster is and how it is read, as `describe_input` returns it.
        side: Of the tiles, in pixels.
        options: What the model was loaded by.
        model: The network.
    """
    folder = None
    if wanted and isinstance(model, PortableEncodings):
        key = _key(source, side, options, model)
        folder = None if key is None else home() / "cache" / "encodings" / key
    cache = EncodingCache(folder)
    try:
        yield cache
    finally:
        cache.close()


def _key(source: dict[str, Any], side: int, options: ModelOptions, model: PortableEncodings) -> str | None:
    weights = identify_model(options)
    further = {
        "side": side,
        "sam": [weights["model"], weights["checkpoint_sha256"]],
        "encoding": model.encoding_kind(),
    }
    return tile_key(source, model.device, further)
