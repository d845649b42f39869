"""Computations at the same time: the same answers in order, fewer threads each, and all threads back afterwards."""

import threading

import pytest
import torch

from refsam_qgis.engine.models.side_by_side import MOST, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("given", [1, 2, 3, 16])
def test_answers_are_in_order_and_the_threads_are_shared(given):
    torch.set_num_threads(given)
    together = min(MOST, given)
    # No call returns before as many as there should be have begun.
    all_here = threading.Barrier(together)

    def compute(number):
        if number < together:
            all_here.wait(timeout=30)
        return number, torch.get_num_threads(), threading.current_thread() is threading.main_thread()

    found = side_by_side(compute, range(8), CPU)
    assert [number for number, _, _ in found] == list(range(8))
    assert {share for _, share, _ in found} == {given // together}
    assert all(main == (given == 1) for _, _, main in found)
    assert torch.get_num_threads() == given


def test_one_item_has_all_threads():
    torch.set_num_threads(2)
    assert side_by_side(lambda _: torch.get_num_threads(), ["only"], CPU) == [2]


def test_a_graphics_processor_has_one_queue():
    torch.set_num_threads(2)
    main = threading.current_thread()
    assert side_by_side(lambda _: threading.current_thread(), range(3), torch.device("meta")) == [main] * 3


def test_what_a_call_raises_is_raised_and_the_threads_come_back():
    torch.set_num_threads(2)

    def fail(number):
        raise ValueError(f"item {number}")

    with pytest.raises(ValueError, match="item 0"):
        side_by_side(fail, range(3), CPU)
    assert torch.get_num_threads() == 2
