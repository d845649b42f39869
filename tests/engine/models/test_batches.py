"""Growing and halving, with a device that is only pretended."""

import gc
import weakref

import pytest
import torch

from refsam_qgis.engine.models import batches as module
from refsam_qgis.engine.models.batches import Batches

GPU = torch.device("cuda")


class Device:
    """Answers so many items at once; more raise what the device raises."""

    def __init__(self, capacity, error=lambda: torch.OutOfMemoryError("CUDA out of memory.")):
        self.capacity, self.error = capacity, error
        self.sizes, self.answered = [], []

    def __call__(self, items):
        self.sizes.append(len(items))
        if len(items) > self.capacity:
            raise self.error()
        self.answered += items
        return [10 * item for item in items]


@pytest.fixture
def memory(monkeypatch):
    """Return the room that the pretended device has, as a mutable list of how much of it a batch may take."""
    noted = {"room": 10**9, "size": 0, "released": 0}

    class Memory:
        def __init__(self, device):
            self.device = device

        def begin(self):
            pass

        def has_room(self, times):
            return noted["size"]() * times <= noted["room"] if noted["size"] else True

        def release(self):
            noted["released"] += 1

    monkeypatch.setattr(module, "DeviceMemory", Memory)
    return noted


def run(batches, count):
    pairs = list(batches.answer(iter(range(count))))
    assert pairs == [(item, 10 * item) for item in range(count)]


def test_no_more_is_taken_than_the_next_batch_needs(memory):
    """What waits is in memory, also after it had to be halved."""
    device, taken = Device(capacity=3), []
    items = (taken.append(item) or item for item in range(30))
    waiting = [len(taken) - answered for answered, _ in enumerate(Batches(device, GPU).answer(items))]
    assert max(waiting) <= 4 and device.answered == list(range(30))


def test_a_batch_grows_to_its_most(memory):
    device = Device(capacity=100)
    run(Batches(device, GPU), 50)
    assert device.sizes == [1, 2, 4, 8, 16, 16, 3]


def test_a_batch_grows_no_further_than_there_is_room(memory):
    device = Device(capacity=100)
    batches = Batches(device, GPU)
    memory["size"], memory["room"] = lambda: batches.size, 5
    run(batches, 13)
    assert device.sizes == [1, 2, 4, 4, 2]


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: MemoryError(),
    ],
)
def test_running_out_halves_and_loses_nothing(memory, error):
    device = Device(capacity=5, error=error)
    run(Batches(device, GPU), 30)
    assert device.sizes == [1, 2, 4, 8, *[4] * 5, 3]  # once bitten, it does not grow again
    assert device.answered == list(range(30)) and memory["released"] == 1


def test_memory_that_others_take_halves_again(memory):
    device = Device(capacity=16)
    batches = Batches(device, GPU)
    answers = batches.answer(range(60))
    taken = [next(answers) for _ in range(16)]
    device.capacity = 1
    taken += list(answers)
    assert taken == [(item, 10 * item) for item in range(60)]
    assert sorted(device.answered) == list(range(60))  # none twice
    assert batches.size == 1


def test_the_cpu_takes_over_when_not_even_one_fits(memory):
    gpu, cpu, said = Device(capacity=2), Device(capacity=1), []
    batches = Batches(gpu, GPU, on_cpu=lambda: cpu, log=said.append)
    answers = batches.answer(range(9))
    taken = [next(answers) for _ in range(3)]
    gpu.capacity = 0
    taken += list(answers)
    assert taken == [(item, 10 * item) for item in range(9)]
    assert gpu.answered == [0, 1, 2] and cpu.answered == [3, 4, 5, 6, 7, 8]
    assert cpu.sizes == [1] * 6
    assert len(said) == 1 and "'cuda'" in said[0] and "CPU" in said[0]


def test_running_out_on_the_cpu_too_is_told(memory):
    answers = Batches(Device(capacity=0), GPU, on_cpu=lambda: Device(0, MemoryError)).answer(range(2))
    with pytest.raises(MemoryError):
        next(answers)
    with pytest.raises(torch.OutOfMemoryError):
        next(Batches(Device(capacity=0), GPU).answer(range(2)))


def test_another_failure_is_not_tried_again(memory):
    device = Device(capacity=1, error=lambda: ValueError("of another kind"))
    answers = Batches(device, GPU, on_cpu=lambda: device).answer(range(5))
    next(answers)
    with pytest.raises(ValueError, match="of another kind"):
        next(answers)
    assert device.sizes == [1, 2]


def test_tensors_of_a_failed_batch_are_freed_before_the_next(memory, monkeypatch):
    """They hang on the frames of the exception."""
    held = []

    def greedy(items):
        if len(items) > 1:
            large = torch.zeros(4)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("out of memory")
        assert all(reference() is None for reference in held)
        return [10 * item for item in items]

    gc.disable()
    try:
        run(Batches(greedy, GPU), 4)
    finally:
        gc.enable()
    assert held


def test_one_item_at_a_time_on_the_cpu_and_none_taken_ahead():
    device, taken = Device(capacity=9), []

    def source():
        for item in range(3):
            taken.append(item)
            yield item

    for item, answer in Batches(device, torch.device("cpu")).answer(source()):
        assert answer == 10 * item and taken == list(range(item + 1))
    assert device.sizes == [1, 1, 1]
    assert list(Batches(device, torch.device("cpu")).answer([])) == []


def test_room_is_counted_from_what_a_batch_took(monkeypatch):
    gigabyte = 2**30
    figures = {
        "memory_allocated": 4 * gigabyte, "max_memory_allocated": 10 * gigabyte, "memory_reserved": 11 * gigabyte,
        "reset_peak_memory_stats": None, "mem_get_info": (9 * gigabyte, 24 * gigabyte),
    }  # fmt: skip
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, own=value: own)
    memory = module.DeviceMemory(GPU)
    memory.begin()
    # 9 free, 7 held and unused, 2.4 to be spared: 13.6 for batches, of which the last took 6.
    assert memory.has_room(2.0) and not memory.has_room(2.5)
