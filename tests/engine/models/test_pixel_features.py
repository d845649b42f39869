"""Pixel features against SciPy and hand-made images."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from refsam_qgis.engine.models import pixel_features as module
from refsam_qgis.engine.models.pixel_features import FEATURES, LEVELS, LINES, STRIDE, pixel_features

KERNEL = np.array([1, 4, 6, 4, 1]) / 16
RIM = 26
"""Features from an edge that it can reach: 11 pixels of 8 for the coherence of level 2, and its enlargement."""


def noise(side=256, batch=1, seed=0):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def smooth_noise(side=256, seed=0):
    """Noise with structure at every level."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.normal(size=(3, side, side)), (0, s, s)) * s for s in (1, 3, 9, 27)]
    image = sum(layers)
    return torch.from_numpy((image - image.min()) / np.ptp(image)).float()[None]


def named(features):
    """Split ``(B, FEATURES, h, w)`` by kind; lists have one entry a level."""
    found = {"colour": features[:, :3], "smooth": [], "shares": [], "deviation": [], "gradient": [], "coherence": []}
    start = 3
    for level in range(LEVELS):
        for kind in ("smooth", "shares", "deviation", "gradient"):
            found[kind].append(features[:, start : start + 3])
            start += 3
        if level < LINES:
            found["coherence"].append(features[:, start : start + 1])
            start += 1
    assert start == features.shape[1] == FEATURES
    return found


def halved(values):
    bands, rows, columns = values.shape
    return values.reshape(bands, rows // 2, 2, columns // 2, 2).mean((2, 4))


def blurred(values):
    for axis in (-2, -1):
        values = ndimage.convolve1d(values, KERNEL, axis=axis, mode="nearest")
    return values


def slopes(values):
    return [ndimage.correlate1d(values, [-0.5, 0, 0.5], axis=axis, mode="nearest") for axis in (-2, -1)]


def local_deviation(values):
    """Deviation from the mean in each window of 5 x 5, by its definition."""
    weights = np.outer(KERNEL, KERNEL)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, ((0, 0), (2, 2), (2, 2)), "edge"), (5, 5), (1, 2))
    mean = (windows * weights).sum((-2, -1), keepdims=True)
    return np.sqrt((weights * (windows - mean) ** 2).sum((-2, -1)))


def coherent(values):
    """From the eigenvalues of the structure tensor: their difference over their sum."""
    down, across = slopes(values.mean(0))
    tensor = np.stack([down * down, down * across, across * across])
    for _ in range(4):
        tensor = blurred(tensor)
    matrices = tensor[[0, 1, 1, 2]].transpose(1, 2, 0).reshape(*down.shape, 2, 2)
    low, high = np.moveaxis(np.linalg.eigvalsh(matrices), -1, 0)
    return ((high - low) / (high + low + 1e-6))[None]


def scaled(values, side):
    if values.shape[-1] > side:
        return halved(values)
    factor = side / values.shape[-1]
    return ndimage.zoom(values, (1, factor, factor), order=1, mode="nearest", grid_mode=True)


def expected(image):
    """All features of an image ``(3, S, S)`` in double precision."""
    side = image.shape[-1] // 4
    values = halved(image)
    squares = values**2
    features = [halved(values)]
    for level in range(LEVELS):
        if level:
            values, squares = halved(values), halved(squares)
        smooth = blurred(values)
        deviation = np.sqrt(np.maximum(blurred(squares) - smooth**2, 0))
        found = [smooth, smooth / (smooth.mean(0) + 0.05), deviation, np.hypot(*slopes(smooth))]
        found += [coherent(smooth)] if level < LINES else []
        features += [scaled(feature, side) for feature in found]
    return np.concatenate(features)


@pytest.mark.parametrize("image", [noise(128)[0], smooth_noise(192, 1)[0]], ids=["noise", "scene"])
def test_features_equal_scipy_in_this_order(image):
    ours = pixel_features(image[None])[0].numpy()
    np.testing.assert_allclose(ours, expected(image.double().numpy()), atol=3e-5)


def test_the_blur_is_binomial_of_deviation_one():
    values = noise(33)[0]
    np.testing.assert_allclose(module._blur(values[None])[0].numpy(), blurred(values.double().numpy()), atol=1e-6)
    assert (KERNEL * np.arange(-2, 3) ** 2).sum() == 1


def test_deviation_is_that_of_the_weighted_window():
    image = noise(64, seed=2)
    fine = module._filters(image, image * image, lines=False)[2][0]
    np.testing.assert_allclose(fine.numpy(), local_deviation(image[0].double().numpy()), atol=1e-5)


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_shape_of_every_window(side):
    image = noise(32).repeat(1, 1, side // 32, side // 32)
    features = pixel_features(image)
    assert features.shape == (1, FEATURES, side // STRIDE, side // STRIDE) and features.dtype == torch.float32
    assert torch.isfinite(features).all()


def test_batches_equal_one_by_one():
    images = noise(128, batch=3)
    together = pixel_features(images)
    for image, features in zip(images, together, strict=True):
        assert torch.equal(pixel_features(image[None])[0], features)


@pytest.mark.parametrize(("down", "across"), [(16, 0), (0, 48), (32, 16)])
def test_a_shifted_image_has_shifted_features(down, across):
    image = smooth_noise(384)
    moved = pixel_features(image.roll((down, across), (2, 3)))
    ours = pixel_features(image).roll((down // STRIDE, across // STRIDE), (2, 3))
    inner = (..., slice(RIM + 12, -RIM), slice(RIM + 12, -RIM))
    torch.testing.assert_close(moved[inner], ours[inner], atol=1e-4, rtol=1e-4)
    assert (moved - pixel_features(image))[inner].abs().amax((0, 2, 3)).min() > 1e-3


def test_a_window_has_the_features_of_its_frame():
    """Training sees windows of the frame that inference sees whole."""
    frame = smooth_noise(448)
    window = pixel_features(frame[..., 64:384, 32:352])
    whole = pixel_features(frame)[..., 16:96, 8:88]
    inner = (..., slice(RIM, -RIM), slice(RIM, -RIM))
    torch.testing.assert_close(window[inner], whole[inner], atol=1e-4, rtol=1e-4)


def test_turned_images_have_turned_features():
    """No filter prefers a direction, the diagonal and the edges included."""
    image = smooth_noise(128)
    ours = pixel_features(image)
    torch.testing.assert_close(pixel_features(image.mT), ours.mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pixel_features(image.flip(2)), ours.flip(2), atol=1e-4, rtol=1e-4)


def stripes(angle, wavelength, side=256):
    rows, columns = np.mgrid[:side, :side]
    wave = np.sin((columns * np.cos(angle) + rows * np.sin(angle)) * 2 * np.pi / wavelength)
    return torch.from_numpy(0.5 + 0.4 * wave).float().expand(1, 3, -1, -1)


@pytest.mark.parametrize("angle", [0, 0.4, np.pi / 4, np.pi / 2])
@pytest.mark.parametrize(("level", "wavelength"), [(0, 16), (1, 32), (2, 64)])
def test_stripes_are_coherent_and_a_checkerboard_is_not(angle, level, wavelength):
    across, along = stripes(angle, wavelength), stripes(angle + np.pi / 2, wavelength)
    inner = (..., slice(RIM, -RIM), slice(RIM, -RIM))
    assert named(pixel_features(across))["coherence"][level][inner].min() > 0.97
    crossed = pixel_features((across + along) / 2)
    assert named(crossed)["coherence"][level][inner].max() < 0.2


def test_coherence_of_noise_is_low_and_of_nothing_zero():
    for coherence in named(pixel_features(noise(512)))["coherence"]:
        assert 0 <= coherence.min() and coherence.max() <= 1 and coherence.mean() < 0.45
    for flat in (torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.3)):
        assert all(coherence.abs().max() < 1e-3 for coherence in named(pixel_features(flat))["coherence"])


def test_colour_shares_do_not_follow_the_light(monkeypatch):
    image = 0.2 + 0.8 * smooth_noise(128)
    monkeypatch.setattr(module, "_DARK", 0.0)
    bright, dim = named(pixel_features(image)), named(pixel_features(0.4 * image))
    for level in range(LEVELS):
        torch.testing.assert_close(dim["shares"][level], bright["shares"][level])
        torch.testing.assert_close(dim["smooth"][level], 0.4 * bright["smooth"][level])
        torch.testing.assert_close(dim["gradient"][level], 0.4 * bright["gradient"][level])


@pytest.mark.parametrize("grey", [0.0, 1e-3, 1 / 3, 1.0])
def test_a_flat_image_has_its_colour_and_nothing_else(grey):
    features = named(pixel_features(torch.full((1, 3, 64, 64), grey)))
    torch.testing.assert_close(features["colour"], torch.full((1, 3, 16, 16), grey))
    for level in range(LEVELS):
        torch.testing.assert_close(features["smooth"][level], torch.full((1, 3, 16, 16), grey))
        torch.testing.assert_close(features["shares"][level], torch.full((1, 3, 16, 16), grey / (grey + 0.05)))
        # Single precision knows a variance to some 1e-7.
        assert features["deviation"][level].max() < 1e-3 and features["gradient"][level].max() < 1e-6


def test_the_edge_of_the_image_is_no_edge():
    """Black or white frames would be features of their own."""
    image = torch.full((1, 3, 128, 128), 0.7)
    image[..., 48:80, 48:80] = 0.2
    gradient = named(pixel_features(image))["gradient"][0][0, 0]
    assert gradient[:8].max() < 1e-6 and gradient[:, -8:].max() < 1e-6
    assert gradient[12, 16] > 0.05


def test_an_edge_is_seen_in_its_own_band():
    image = torch.full((1, 3, 128, 128), 0.5)
    image[:, 1, :, 64:] = 0.9
    for kind in ("gradient", "deviation"):
        bands = named(pixel_features(image))[kind][1][0].amax((1, 2))
        assert bands[1] > 0.05 and bands[[0, 2]].max() < 1e-3
