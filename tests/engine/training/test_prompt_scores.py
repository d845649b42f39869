"""Scores of prompts on the development sets: an answer that is right, one that is empty, one that is the wrong half."""

import pytest
import torch
from torch.nn import functional as F

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.training import prompt_scores as module
from refsam_qgis.engine.training.pretrain import PretrainConfig, PromptViews
from refsam_qgis.engine.training.prompt_scores import prompt_scores
from refsam_qgis.engine.training.views import LabelledImage

KINDS = {"generated_points", "generated_boxes", "generated_masks"}


@pytest.fixture
def answering(monkeypatch):
    """Return a function that scores answers made out of a batch."""

    def score(answer):
        monkeypatch.setattr(module, "answer_prompts", lambda sam, batch: (None, answer(batch), None))
        return prompt_scores(build_sam("compact"), (), places=6, window=256)

    return score


def logits_of(masks):
    return F.avg_pool2d(masks.float()[:, None], 4).expand(-1, 4, -1, -1) - 0.5


def test_right_answers_score_high_and_empty_ones_nothing(answering):
    right = answering(lambda batch: logits_of(batch["target"]))
    assert right.keys() == KINDS and min(right.values()) > 0.8  # a quarter of the side rounds small objects
    empty = answering(lambda batch: torch.full((len(batch["target"]), 4, 64, 64), -1.0))
    assert set(empty.values()) == {0.0}


def test_kinds_are_told_apart(answering):
    scores = answering(
        lambda batch: logits_of(batch["target"] & (batch["has_box"] & ~batch["has_mask"])[:, None, None])
    )
    assert scores["generated_boxes"] > 0.8 and scores["generated_points"] == scores["generated_masks"] == 0


class Blank:
    """A place whose images show none of the classes that may be asked for."""

    def class_names(self):
        return ["roof"]

    def class_id(self, name):
        return 1

    def draw(self, rng, side, focus):
        nothing = torch.zeros(side, side).numpy()
        image = torch.zeros(side, side, 3).byte().numpy()
        return LabelledImage(image, nothing.astype("uint8"), nothing.astype("uint16"), ignore=-1, namespace="blank")


def test_images_without_anything_to_ask_for_are_refused():
    views = PromptViews(PretrainConfig(places=1, window=64, real_share=1.0), [Blank()])
    with pytest.raises(RefSAMError, match="no labelled object"):
        views[0]
