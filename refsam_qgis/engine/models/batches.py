"""As many tiles at a time as a device has memory for, without losing what is done when it runs out.

A graphics processor needs several tiles at once to be busy, and how many fit depends on model, processor and whoever
else uses it. So the number grows while there is room and halves when there is none; if not even one tile fits, the
CPU takes over from that tile on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import torch

from ..failures import is_out_of_memory

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Run = Callable[[Sequence[Item]], Sequence[Answer]]

MOST_TILES = {"cuda": 16, "mps": 4}
"""Most tiles at a time by type of device; beyond, a batch gains nothing. A CPU is busy with one."""
SPARE = 0.1
"""Share of the memory that a larger batch must leave free: what is needed is only estimated."""


class DeviceMemory:
    """Memory of a CUDA device, as its allocator tells it; of other devices nothing is known.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def begin(self) -> None:
        """Note what is taken before a batch."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)

    def has_room(self, times: float) -> bool:
        """Whether a batch may be so many times as large as the one that `begin` was called for."""
        if self._device.type != "cuda":
            return True
        needed = (torch.cuda.max_memory_allocated(self._device) - self._before) * times
        free, total = torch.cuda.mem_get_info(self._device)
        own = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return needed <= free + own - SPARE * total

    def release(self) -> None:
        """Give back what torch's allocator holds and nobody uses; after running out, in pieces of the wrong size."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()


class Batches(Generic[Item, Answer]):
    """Runs items in batches and yields their answers in order.

    Args:
        run: Answers a batch; called again with fewer items when memory runs out, so it must not keep anything of a
            call that failed.
        device: Where it runs.
        on_cpu: Gives a `run` for the CPU, called once when not even one item fits; ``None`` where there is no way back.
        log: Hears a sentence when that happens.

    Attributes:
        size: Items of the next batch.
    """

    def __init__(
        self,
        run: Run[Item, Answer],
        device: torch.device,
        on_cpu: Callable[[], Run[Item, Answer]] | None = None,
        log: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.size = 1
        self._run = run
        self._most = MOST_TILES.get(device.type, 1)
        self._memory = DeviceMemory(device)
        self._device = device
        self._on_cpu = on_cpu
        self._log = log

    def answer(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answer]]:
        """Yield each item with its answer.

        No more items are taken from `items` than the next batch needs.

        Raises:
            Exception: What `run` raised, if it was not for memory, or memory ran out and there is nowhere else to go.
        """
        source = iter(items)
        waiting: list[Item] = []
        while True:
            waiting += islice(source, max(0, self.size - len(waiting)))
            batch = waiting[: self.size]
            if not batch:
                return
            answers = self._try(batch)
            if answers is None:
                continue  # the same items again, fewer at a time or elsewhere
            waiting = waiting[len(batch) :]
            yield from zip(batch, answers, strict=True)
            if len(batch) == self.size and 2 * self.size <= self._most and self._memory.has_room(2.0):
                self.size *= 2

    def _try(self, batch: Sequence[Item]) -> Sequence[Answer] | None:
        """Answer a batch, or make the next one smaller."""
        self._memory.begin()
        try:
            return self._run(batch)
        except Exception as error:
            if not is_out_of_memory(error) or (len(batch) == 1 and self._on_cpu is None):
                raise
        # Only here are the tensors free that the exception's frames held.
        self._memory.release()
        if len(batch) > 1:
            self.size = self._most = len(batch) // 2
        else:
            self._fall_back()
        return None

    def _fall_back(self) -> None:
        """Go on on the CPU."""
        assert self._on_cpu is not None
        self._log(f"Device '{self._device}' has too little memory for one tile; the run goes on on the CPU.")
        self._run, self._on_cpu = self._on_cpu(), None
        self.size = self._most = 1
        self._device = torch.device("cpu")
        self._memory = DeviceMemory(self._device)
