import numpy as np
import torch

from refsam_qgis.engine.evaluation.chips import from_square, to_shots, to_square
from refsam_qgis.engine.models.segmenter import FOREGROUND, IGNORE


def test_references_of_different_shapes_share_one_scale():
    images = [np.full((4, 6, 3), 9, np.uint8), np.full((8, 2, 3), 9, np.uint8)]
    masks = [np.full((4, 6), FOREGROUND, np.uint8), np.full((8, 2), FOREGROUND, np.uint8)]
    shots = to_shots(images, masks)
    assert shots.images.shape == (2, 3, 8, 8)
    for k, (height, width) in enumerate([(4, 6), (8, 2)]):
        assert shots.valid[k, :height, :width].all() and shots.valid[k].sum() == height * width
        assert (shots.masks[k][~shots.valid[k]] == IGNORE).all()
        assert (shots.masks[k][shots.valid[k]] == FOREGROUND).all()
        assert (shots.images[k][:, shots.valid[k]] == 9).all()


def test_logits_come_back_at_the_size_of_the_image():
    image = np.random.default_rng(0).integers(0, 255, (5, 8, 3)).astype(np.uint8)
    pixels, _ = to_square(image, 8)
    assert (from_square(pixels[0, 0].float(), 5, 8) == image[..., 0]).all()
    ramp = torch.arange(16.0).expand(16, 16)
    resized = from_square(ramp, 5, 8)
    np.testing.assert_allclose(resized, np.tile(np.arange(8) * 2 + 0.5, (5, 1)))
