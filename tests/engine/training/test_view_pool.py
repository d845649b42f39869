from types import SimpleNamespace

import numpy as np
import torch

from refsam_qgis.engine.models.fitted_prior import thin
from refsam_qgis.engine.models.pixel_features import FEATURES, pixel_features
from refsam_qgis.engine.training.sources import CALIBRATION_CLASSES, STYLE_CLASSES, TEST_CLASSES
from refsam_qgis.engine.training.view_pool import UNKNOWN, UNLABELLED, PoolConfig, ViewPool, draw_pool
from refsam_qgis.engine.training.views import LabelledImage

CONFIG = PoolConfig(generated=2, real=2, views=2, window=128)


class Halves:
    """A place whose left half is of one class and whose right half of another; the lowest rows nobody labelled."""

    def class_names(self):
        return ("left",)

    def class_id(self, name):
        return {"left": 7, "right": 9}[name]

    def draw(self, rng, side, focus):
        classes = np.where(np.arange(side)[None] < side / 2, 7, 9).repeat(side, 0).astype(np.uint8)
        classes[side - side // 4 :] = 255
        image = rng.integers(0, 255, (side, side, 3)).astype(np.uint8)
        return LabelledImage(image, classes, np.zeros((side, side), np.uint16), 255, "halves")


def test_generated_places_come_first_and_equal_draws_are_equal():
    pool, again = (draw_pool(CONFIG, [Halves()], workers=0) for _ in range(2))
    assert len(pool) == 4 and len(ViewPool(CONFIG, [])) == 2
    assert [set(views.names) == {"left"} for views in pool] == [False, False, True, True]
    for one, two in zip(pool, again, strict=True):
        assert torch.equal(one.features, two.features) and torch.equal(one.classes, two.classes)
        assert one.features.shape == (2, 256, FEATURES) and one.features.dtype == torch.float16
    assert not torch.equal(pool[0].features, pool[1].features)


def test_what_embeddings_are_measured_by_is_never_asked_for():
    for index, views in enumerate(draw_pool(CONFIG, [], workers=0)):
        assert not {*views.names} & (CALIBRATION_CLASSES | TEST_CLASSES | STYLE_CLASSES)
        # What a style alone means is another class in every place.
        assert views.own == {f"{name} of {index}" for name in STYLE_CLASSES} and views.own <= {*views.names}


def test_other_classes_are_background_and_what_nobody_labelled_does_not_count():
    views = ViewPool(PoolConfig(generated=0, real=1, views=1, window=64), [Halves()])[0]
    shares = {int(number): float((views.classes == number).float().mean()) for number in views.classes.unique()}
    assert shares == {1: 0.375, UNKNOWN: 0.375, UNLABELLED: 0.25}


def test_features_are_those_that_heads_are_asked_about(monkeypatch):
    seen = []

    def keep(source, rng, side, recolour):
        image = np.asarray(source.image).repeat(side // len(source.image) + 1, 0)[:side]
        image = image.repeat(side // image.shape[1] + 1, 1)[:, :side]
        seen.append(image)
        classes = np.full((side, side), 7, np.uint8)
        return SimpleNamespace(image=image, classes=classes, ignore=255)

    monkeypatch.setattr("refsam_qgis.engine.training.view_pool.augment", keep)
    views = ViewPool(PoolConfig(generated=0, real=1, views=1, window=64), [Halves()])[0]
    colours = torch.from_numpy(seen[0].transpose(2, 0, 1).copy())[None].float() / 255
    assert torch.equal(views.features[0].view(8, 8, FEATURES), thin(pixel_features(colours))[0].half())
