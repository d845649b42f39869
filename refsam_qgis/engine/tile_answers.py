"""What the network says of the tiles of a raster: computed, several at a time where that is quicker, or kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .encodings import EncodingCache, PortableEncodings
from .errors import RefSAMError
from .journal import Journal
from .models.batches import MOST_TILES, Batches
from .models.segmenter import ReferenceSegmenter
from .rasters.grid import Tile
from .session import Described


class TileRead(NamedTuple):
    """What is known of a tile beforehand.

    Attributes:
        tile: Its place.
        rgb: ``(3, side, side)`` uint8.
        valid: ``(side, side)`` bool.
        stored: What an earlier run has stored of its encoding.
    """

    tile: Tile
    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    stored: dict[str, Tensor] | None


class TileAnswer(NamedTuple):
    """What the network says of a tile.

    Attributes:
        logits: ``(C, h, w)`` float32 in the network's own resolution; ``None`` for a tile without a valid pixel.
        kept: Whether an earlier run had kept them.
        encoding_reused: Whether an earlier run had stored the encoding.
    """

    logits: NDArray[np.float32] | None
    kept: bool = False
    encoding_reused: bool = False


class TileAnswers:
    """Answers tiles in order, and keeps the answers for the next run.

    Args:
        described: The network and what is sought.
        journal: Answers of an earlier run; those computed are added.
        encodings: Encodings of an earlier run; those computed are offered.
        on_cpu: Gives the same on the CPU, where the run goes on if the network's device has too little memory.
        log: Hears when that happens.

    Attributes:
        seconds: Time that the network took.
    """

    def __init__(
        self,
        described: Described,
        journal: Journal,
        encodings: EncodingCache,
        on_cpu: Callable[[], Described],
        log: Callable[[str], None],
    ) -> None:
        self.seconds = 0.0
        self._described = described
        self._journal = journal
        self._encodings = encodings
        self._on_cpu = on_cpu
        self._log = log

    @property
    def most_at_once(self) -> int:
        """Tiles that are taken at a time at the most."""
        return MOST_TILES.get(self._described.model.device.type, 1)

    def of(self, tiles: Iterable[TileRead]) -> Iterator[tuple[TileRead, TileAnswer]]:
        """Yield each tile with its answer.

        Raises:
            RefSAMError: With code ``checkpoint`` for an answer that is no finite numbers; it is not kept.
        """
        device = self._described.model.device
        on_cpu = None if device.type == "cpu" else lambda: partial(self._answer, self._on_cpu())
        batches = Batches(partial(self._answer, self._described), device, on_cpu, self._log)
        for read, answer in batches.answer(tiles):
            if answer.logits is not None and not answer.kept:
                self._journal.add(read.tile, answer.logits)
            yield read, answer

    def _answer(self, described: Described, reads: Sequence[TileRead]) -> list[TileAnswer]:
        """Answer some tiles; nothing is kept of it, so it may be asked again."""
        answers: dict[int, TileAnswer] = {}
        for index, read in enumerate(reads):
            if not read.valid.any():
                answers[index] = TileAnswer(None)
            elif (kept := self._journal.get(read.tile)) is not None:
                answers[index] = TileAnswer(kept, kept=True)
        wanted = [index for index in range(len(reads)) if index not in answers]
        if wanted:
            started = time.monotonic()
            computed = self._compute(described, [reads[index] for index in wanted])
            self.seconds += time.monotonic() - started
            answers.update(zip(wanted, computed, strict=True))
        return [answers[index] for index in range(len(reads))]

    @torch.inference_mode()
    def _compute(self, described: Described, reads: Sequence[TileRead]) -> list[TileAnswer]:
        answers = {id(read): answer for read in reads if (answer := self._from_stored(described, read)) is not None}
        fresh = [read for read in reads if id(read) not in answers]
        if fresh:
            model = described.model
            images, valid = ([getattr(read, name) for read in fresh] for name in ("rgb", "valid"))
            encoding = model.encode(_stacked(images, model), _stacked(valid, model))
            logits = _segmented(described, encoding)
            for index, read in enumerate(fresh):
                answers[id(read)] = TileAnswer(logits[index])
                if isinstance(model, PortableEncodings):
                    self._encodings.offer(read.tile, partial(_dump, model, encoding, index))
        return [answers[id(read)] for read in reads]

    def _from_stored(self, described: Described, read: TileRead) -> TileAnswer | None:
        """Answer a tile by its stored encoding, if there is one that is any good."""
        model = described.model
        if read.stored is None or not isinstance(model, PortableEncodings):
            return None
        try:
            encoding = model.restore_encoding(read.stored, _stacked([read.rgb], model), _stacked([read.valid], model))
        except ValueError:
            self._encodings.drop(read.tile)
            return None
        return TileAnswer(_segmented(described, encoding)[0], encoding_reused=True)


def _segmented(described: Described, encoding: Any) -> NDArray[np.float32]:
    """Logits ``(B, C, h, w)`` of all classes.

    Raises:
        RefSAMError: With code ``checkpoint`` where they are no finite numbers: nothing would be found, and nobody told.
    """
    answers = [described.model.segment(encoding, one) for one in described.classes]
    logits: NDArray[np.float32] = torch.stack(answers, dim=1).numpy()
    if not np.isfinite(logits).all():
        device = described.model.device
        remedy = "choose another checkpoint" if device.type == "cpu" else "run on the CPU or choose another checkpoint"
        raise RefSAMError("checkpoint", f"The model's answers on device '{device}' are no finite numbers; {remedy}.")
    return logits


def _stacked(arrays: Sequence[NDArray[Any]], model: ReferenceSegmenter) -> Tensor:
    """Tensor of several tiles on the network's device."""
    return torch.from_numpy(np.stack(arrays)).to(model.device)


def _dump(model: PortableEncodings, encoding: Any, index: int) -> dict[str, Tensor]:
    """What is stored of the encoding of one of several tiles."""
    return {name: tensor[index : index + 1].clone() for name, tensor in model.dump_encoding(encoding).items()}
