import os

import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.model_cache import ModelCache


@pytest.fixture
def loads():
    return []


@pytest.fixture
def cache(loads):
    def load(options):
        loads.append(options)
        return object()

    return ModelCache(load)


def test_a_model_is_loaded_once(cache, loads):
    assert cache(ModelOptions()) is cache(ModelOptions())
    assert len(loads) == cache.loads == 1


def test_another_model_takes_its_place(cache, loads):
    first = cache(ModelOptions())
    cache(ModelOptions(method="training_free"))
    assert cache(ModelOptions()) is not first
    assert len(loads) == 3


def test_changed_weights_are_loaded_again(cache, tmp_path):
    weights = tmp_path / "sam.pth"
    weights.write_bytes(b"one")
    options = ModelOptions(checkpoint=str(weights))
    first = cache(options)
    os.utime(weights, ns=(1, 1))
    assert cache(options) is not first


def test_a_failed_load_is_not_kept(tmp_path):
    outcomes = [RefSAMError("checkpoint", "no"), "model"]

    def load(options):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cache = ModelCache(load)
    with pytest.raises(RefSAMError):
        cache(ModelOptions())
    assert cache(ModelOptions()) == "model"
    assert cache.loads == 1
