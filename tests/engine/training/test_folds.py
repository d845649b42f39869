"""Scenes and classes left out of training."""

import json

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.training.folds import leave_out


@pytest.fixture
def folder(tmp_path):
    """Two scenes with roofs and pools, and one with pools alone."""
    names = {"0": "background", "1": "roof", "2": "pool"}
    (tmp_path / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    for name, values in {"north_1": (1, 2), "south_1": (1, 2), "west_1": (2, 2)}.items():
        ids = np.zeros((64, 64), np.uint8)
        ids[:32, :32], ids[32:, 32:] = values
        Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(tmp_path / f"{name}.png")
        Image.fromarray(ids).save(tmp_path / f"{name}_mask.png")
    return tmp_path


def test_neither_scene_nor_class_is_left_to_train_on(folder):
    training, unseen = leave_out(folder, "south", "pool")
    # The western scene shows nothing else.
    assert [(place.name, place.class_names()) for place in training] == [(f"{folder.name}/north", ("roof",))]
    assert (unseen.name, unseen.class_names()) == (f"{folder.name}/south", ("roof", "pool"))
    view = training[0].draw(np.random.default_rng(0), 64, "roof")
    assert (view.classes == unseen.class_id("pool")).any()  # seen, but not asked for


@pytest.mark.parametrize("wrong", [("east", "pool"), ("south", "tree")])
def test_what_is_left_out_has_to_be_there(folder, wrong):
    with pytest.raises(RefSAMError, match=r"north, south, west and its classes pool, roof"):
        leave_out(folder, *wrong)
