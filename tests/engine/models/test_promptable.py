from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.accuracy.sam_reference import as_pixels, segment_anything_own
from refsam_qgis.engine.job import ModelOptions
from refsam_qgis.engine.models.promptable import PromptableSegmenter, Prompts, load_promptable
from refsam_qgis.engine.training.scenes import render_scene, sample_style
from tests.engine.pocket_sam import pocket_sam

POINTS = np.array([[[30.5, 40.25], [200.0, 150.0]], [[5.0, 10.0], [180.0, 60.75]]])
LABELS = np.array([[1, 0], [1, 1]])
BOXES = np.array([[20.0, 30.0, 120.0, 150.5], [50.0, 60.0, 80.0, 90.0]])


def picture(rows: int, columns: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    image = render_scene(sample_style(rng), rng, max(rows, columns)).image[:rows, :columns]
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def both(sam, image):
    """Ours and segment_anything's own predictor, each having seen the image."""
    segmenter = PromptableSegmenter(sam)
    encoded = segmenter.encode(torch.from_numpy(image), torch.ones(image.shape[1:], dtype=torch.bool))
    predictor = segment_anything_own().SamPredictor(sam)
    predictor.set_image(as_pixels(image))
    return segmenter, encoded, predictor


@pytest.fixture(scope="module")
def oblong():
    return both(pocket_sam(), picture(200, 256))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kinds", [("points",), ("boxes",), ("points", "boxes")])
def test_prompts_equal_segment_anything(oblong, kinds, multimask):
    segmenter, encoded, predictor = oblong
    points, labels = (POINTS, LABELS) if "points" in kinds else (None, None)
    boxes = BOXES if "boxes" in kinds else None
    prompts = Prompts(*(None if p is None else torch.from_numpy(p).float() for p in (points, labels, boxes)))
    low, predicted = segmenter.predict(encoded, prompts, multimask)
    for index in range(2):
        masks, ious, _ = predictor.predict(
            None if points is None else points[index], None if labels is None else labels[index],
            None if boxes is None else boxes[index], multimask_output=multimask, return_logits=True,
        )  # fmt: skip
        ours = segmenter.enlarge(encoded, low[index]).numpy()
        assert ours.shape == masks.shape == (3 if multimask else 1, 200, 256) and masks.std() > 1
        np.testing.assert_allclose(ours, masks, atol=1e-3)
        np.testing.assert_allclose(predicted[index].numpy(), ious, atol=1e-4)


def test_prompts_matter(oblong):
    segmenter, encoded, _ = oblong
    here, _ = segmenter.predict(encoded, Prompts(torch.tensor([[[30.0, 40.0]]]), torch.ones(1, 1)), False)
    beside, _ = segmenter.predict(encoded, Prompts(torch.tensor([[[32.0, 40.0]]]), torch.ones(1, 1)), False)
    negative, _ = segmenter.predict(encoded, Prompts(torch.tensor([[[30.0, 40.0]]]), torch.zeros(1, 1)), False)
    assert (here - beside).abs().max() > 0.02 and (here - negative).abs().max() > 0.02


@pytest.mark.parametrize(("rows", "columns"), [(1024, 700), (300, 300), (90, 1300)])
def test_images_of_any_size_enter_as_in_segment_anything(rows, columns):
    _, encoded, predictor = both(pocket_sam(), picture(rows, columns))
    assert encoded.scaled == tuple(predictor.input_size) and encoded.size == (rows, columns)
    # Pillow rounds a few pixels of oblong images otherwise, by one of 255 levels.
    assert (encoded.features - predictor.features).abs().mean() < 1e-3 * predictor.features.abs().mean()


def test_nodata_enters_as_padding():
    segmenter = PromptableSegmenter(pocket_sam())
    image = torch.from_numpy(picture(256, 256))
    valid = torch.ones(256, 256, dtype=torch.bool)
    valid[100:140, 60:90] = False
    other = torch.where(valid, image, 255 - image)
    alike = [segmenter.encode(torch.where(valid, pixels, 0), valid).features for pixels in (image, other)]
    torch.testing.assert_close(*alike)
    whole = segmenter.encode(image, torch.ones_like(valid)).features
    assert (alike[0] - whole).abs().max() > 0.1


def test_stability_is_the_iou_of_two_cutoffs():
    logits = torch.tensor([[[2.0, 0.5, -0.5, -2.0]], [[-9.0, -9.0, -9.0, -9.0]]])
    stability = PromptableSegmenter(pocket_sam()).stability(logits)
    assert stability[0] == pytest.approx(1 / 3) and bool(stability[1].isnan())


def test_the_stock_model_is_asked_for():
    asked = []

    @dataclasses.dataclass
    class Loaded:
        sam: torch.nn.Module

    def load(options):
        asked.append(options)
        return Loaded(pocket_sam())

    assert load_promptable(ModelOptions("vit_b", "w.pth", "a.safetensors"), load).device.type == "cpu"
    assert asked == [ModelOptions("vit_b", "w.pth", None, "training_free")]
