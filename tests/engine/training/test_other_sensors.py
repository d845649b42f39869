"""Episodes whose references and target are of different sensors."""

from dataclasses import replace

import numpy as np
import pytest

from refsam_qgis.engine.training.calibrate import PLAIN, SEVERAL, calibration_episodes
from refsam_qgis.engine.training.other_sensors import STYLED, OtherSensorEpisodes
from refsam_qgis.engine.training.sources import CALIBRATION_CLASSES, NOWHERE
from refsam_qgis.engine.training.views import LabelledImage

CONFIG = replace(PLAIN, steps=24, window=128, without_focus_share=0.5, seed=4)
BLUE = (20, 30, 220)


class BluePlace:
    """A place like no generated one: all is blue, and one half of it is `names[0]`."""

    def __init__(self, *names):
        self._names = names

    def class_names(self):
        return self._names

    def class_id(self, name):
        return self._names.index(name) + 1 if name in self._names else NOWHERE

    def draw(self, rng, side, focus):
        classes = np.zeros((side, side), np.uint8)
        classes[: side // 2] = 1
        image = np.full((side, side, 3), BLUE, np.uint8)
        return LabelledImage(image, classes, classes.astype(np.uint16), 255, "blue")


def is_blue(view):
    return (view.permute(1, 2, 0).numpy() == BLUE).all()


def drawn(*names, **options):
    return [OtherSensorEpisodes(CONFIG, [BluePlace(*names)], **options)[i] for i in range(CONFIG.steps)]


def test_references_and_target_are_never_of_one_sensor():
    batches = drawn("water", "carport")
    of_real = [is_blue(batch["references"][0, 0]) for batch in batches]
    assert of_real == [not is_blue(batch["target"][0]) for batch in batches] and set(of_real) == {True, False}


def test_only_classes_are_asked_for_that_the_target_labels_or_cannot_hold():
    for batch in drawn("water", "carport"):
        name, mask = batch["classes"][0], batch["mask"][0]
        if is_blue(batch["target"][0]):
            # Water is half of the place, whatever it looks like; a generated style's own object is nowhere in it.
            assert name in {"water", *STYLED}
            assert float(mask.float().mean()) == pytest.approx(0.5 if name == "water" else 0.0, abs=0.02)
        else:
            assert name == "water"
    assert {batch["classes"][0] for batch in drawn("water", "carport")} == {"water", *STYLED}


def test_without_a_common_name_only_real_places_are_targets():
    batches = drawn("carport")
    assert all(is_blue(batch["target"][0]) and not batch["mask"].any() for batch in batches)


def test_others_that_are_not_there_can_be_named():
    assert {batch["classes"][0] for batch in drawn("carport", alone=("plane",))} == {"plane"}


@pytest.mark.parametrize(("places", "others"), [([BluePlace("water")], (4, 1)), ([], (0, 0))])
def test_the_calibration_takes_some_where_there_are_real_places(places, others):
    """Eight with one reference and two with several, and after each of these the others."""
    episodes = calibration_episodes(places, 8, 128, 0.5, 0, other_sensors=4)
    one = 8 + others[0]
    assert len(episodes) == one + 2 + others[1]
    drawn = list(episodes)
    assert [batch["references"].shape[1] for batch in drawn] == [1] * one + [SEVERAL] * (len(drawn) - one)
    for batch in drawn[8:one] + drawn[one + 2 :]:
        assert all(is_blue(batch["target"][0]) != is_blue(reference) for reference in batch["references"][0])


def test_the_calibration_asks_for_generated_classes_that_no_embedding_was_taught():
    asked = {batch["classes"][0] for batch in calibration_episodes([], 24, 64, 0.0, 0)}
    assert asked <= CALIBRATION_CLASSES and len(asked) > 2


class RedPlace(BluePlace):
    def draw(self, rng, side, focus):
        view = super().draw(rng, side, focus)
        return replace(view, image=np.full_like(view.image, (220, 30, 20)))


def test_references_of_another_scene_may_come_from_places_that_are_no_targets():
    batches = list(calibration_episodes([BluePlace("water")], 8, 64, 1.0, 0, support=[RedPlace("water")]))
    assert all(is_blue(batch["target"][0]) for batch in batches)
    own = [is_blue(batch["references"][0, 0]) for batch in batches]
    assert own == [True] * 4 + [False] * 4 + [True, False]
