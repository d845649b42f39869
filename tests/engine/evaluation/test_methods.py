import sys
from types import SimpleNamespace

import pytest
import torch

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.baselines.colour_prototype import ColourPrototypeSegmenter
from refsam_qgis.engine.evaluation.baselines.random_forest import RandomForestSegmenter
from refsam_qgis.engine.evaluation.baselines.static_prompts import StaticPromptsSegmenter
from refsam_qgis.engine.evaluation.baselines.stitched import StitchedSegmenter
from refsam_qgis.engine.evaluation.methods import build_segmenter, network_options
from refsam_qgis.engine.job import PROTOCOL_METHODS, ModelOptions
from tests.engine.pocket_sam import pocket_sam

MODEL = ModelOptions(checkpoint="sam.pth", adapters="ours.safetensors", device="cpu")
BASELINES = {
    "random_forest": RandomForestSegmenter,
    "colour_prototype": ColourPrototypeSegmenter,
    "static_prompts": StaticPromptsSegmenter,
    **{f"stitched_{design}": StitchedSegmenter for design in "abcd"},
}
PACKAGE = "refsam_qgis.engine.evaluation.baselines"


class Loader:
    def __init__(self):
        self.asked = []
        self.segmenter = SimpleNamespace(sam=pocket_sam())

    def __call__(self, options):
        self.asked.append(options)
        return self.segmenter


@pytest.mark.parametrize("method", PROTOCOL_METHODS)
def test_every_method_of_the_protocol_is_built(method):
    load = Loader()
    segmenter = build_segmenter(method, MODEL, 0, load)
    if method in BASELINES:
        assert type(segmenter) is BASELINES[method] and segmenter.device == torch.device("cpu")
    else:
        assert segmenter is load.segmenter
    options = network_options(method, MODEL)
    assert load.asked == ([] if options is None else [options])


def test_refsam_runs_by_its_name_and_a_baseline_on_the_stock_sam():
    assert network_options("fitted", MODEL) == ModelOptions("compact", "sam.pth", "ours.safetensors", "fitted", "cpu")
    stock = ModelOptions("compact", "sam.pth", None, "training_free", "cpu")
    assert network_options("static_prompts", MODEL) == network_options("stitched_b", MODEL) == stock
    assert network_options("random_forest", MODEL) is network_options("colour_prototype", MODEL) is None


def test_each_stitched_method_has_its_design_and_the_seed_goes_through():
    designs = [build_segmenter(f"stitched_{design}", MODEL, 7, Loader())._design for design in "abcd"]
    assert designs == [*"abcd"]
    seeds = {build_segmenter(method, MODEL, 7, Loader())._seed for method in BASELINES}
    assert seeds == {7}


@pytest.mark.parametrize("method", ["random_forest", "colour_prototype"])
def test_a_missing_scikit_learn_is_told(monkeypatch, method):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("random_forest", "colour_prototype"):
        monkeypatch.delitem(sys.modules, f"{PACKAGE}.{name}", raising=False)
    with pytest.raises(RefSAMError, match=f"'{method}' needs scikit-learn; install") as raised:
        build_segmenter(method, MODEL, 0, Loader())
    assert raised.value.code == "environment"
