import sys
import types

import pytest
import torch
from torch import nn

from refsam_qgis.engine import runner
from refsam_qgis.engine.errors import JobCancelled
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.interrupt import interruptible
from refsam_qgis.engine.job import StatusJob


class Cancellable(SilentReporter):
    cancelled = False

    def is_cancelled(self):
        return self.cancelled


class Layer(nn.Module):
    """Counts its passes, and cancels in one of them."""

    def __init__(self, reporter=None):
        super().__init__()
        self.passes = 0
        self.reporter = reporter

    def forward(self, x):
        self.passes += 1
        if self.reporter is not None:
            self.reporter.cancelled = True
        return x


@pytest.fixture
def reporter():
    return Cancellable()


@pytest.fixture
def network(reporter):
    return nn.Sequential(Layer(), Layer(reporter), Layer())


def passes(network):
    return [layer.passes for layer in network]


def test_a_pass_ends_at_the_next_layer(network, reporter):
    with pytest.raises(JobCancelled), interruptible(reporter):
        network(torch.zeros(1))
    assert passes(network) == [1, 1, 0]
    network(torch.zeros(1))  # nothing is left behind
    assert passes(network) == [2, 2, 1]


def test_every_job_is_interruptible(network, reporter, monkeypatch):
    module = types.ModuleType("stand_in_job")
    module.run = lambda job, reporter, load: network(torch.zeros(1))
    monkeypatch.setitem(sys.modules, "stand_in_job", module)
    monkeypatch.setitem(runner.ENTRY_POINTS, StatusJob, ("stand_in_job", "run"))
    with pytest.raises(JobCancelled):
        runner.run_job(StatusJob(), reporter)
    assert passes(network) == [1, 1, 0]


def test_torch_is_not_imported_for_it(monkeypatch, reporter):
    monkeypatch.setitem(sys.modules, "torch.nn.modules.module", None)
    monkeypatch.delitem(sys.modules, "torch")
    with interruptible(reporter):
        pass
    assert "torch" not in sys.modules
