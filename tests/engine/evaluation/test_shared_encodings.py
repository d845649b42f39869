import numpy as np
import pytest
import torch

from benchmarks.accuracy.shared_encodings import SharedEncodings
from refsam_qgis.engine.evaluation.baselines.static_prompts import StaticPromptsSegmenter
from refsam_qgis.engine.evaluation.episodes import draw_episodes
from refsam_qgis.engine.evaluation.search import Encodings, search_all
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.fitted import FittedSegmenter
from refsam_qgis.engine.models.training_free import TrainingFreeSegmenter
from refsam_qgis.engine.models.virefsam import ViRefSAM, ViRefSAMSegmenter
from tests.engine.pocket_sam import pocket_sam


@pytest.fixture
def scanned(folder):
    return scan_folder(folder)


@pytest.fixture
def segmenters():
    """Four methods around one SAM; those without adapters first."""
    torch.manual_seed(1)
    sam = pocket_sam(256)
    model = ViRefSAM(sam, ViRefSAMConfig())
    return [StaticPromptsSegmenter(sam), TrainingFreeSegmenter(sam), ViRefSAMSegmenter(model), FittedSegmenter(model)]


def found(encodings):
    episodes = draw_episodes(encodings.dataset, 1, 2, seed=0)
    return np.stack([answer.logits for _, answer in search_all(encodings, episodes, "mask")])


def refuse(images, valid):
    raise AssertionError("encoded once more")


def test_methods_answer_alike_from_shared_encodings(scanned, segmenters, monkeypatch):
    alone = [found(Encodings(segmenter, scanned)) for segmenter in segmenters]
    shared = SharedEncodings()
    for segmenter, expected in reversed(list(zip(segmenters, alone, strict=True))):
        monkeypatch.setattr(segmenter, "encode", refuse)
        np.testing.assert_array_equal(found(shared.of(segmenter, scanned, "a")), expected)


def test_nothing_is_shared_between_other_weights_or_images(scanned, segmenters, folder):
    *without, _, fitted = segmenters
    shared = SharedEncodings()
    assert [type(shared.of(segmenter, scanned, "a")) for segmenter in without] == [Encodings, Encodings]
    base = shared.of(fitted, scanned, "a")._base
    assert shared.of(fitted, scanned, "a")._base is base
    assert type(shared.of(without[0], scanned, "b")) is Encodings
    assert type(shared.of(without[0], scan_folder(folder), "a")) is Encodings
    assert shared.of(fitted, scanned, "b")._base is not base


def test_inner_features_are_no_embedding(scanned, segmenters):
    shared = SharedEncodings()
    inner = ViRefSAM(pocket_sam(256), ViRefSAMConfig(feature_block=0, adapted_blocks="none"))
    inner.feature_depth = 0
    shared.of(ViRefSAMSegmenter(inner), scanned, "a")
    own = shared.of(segmenters[1], scanned, "a")
    assert type(own) is Encodings
    # Its embedding then serves the one without adapters that follows.
    assert shared.of(segmenters[0], scanned, "a")._base is own
