"""Hand-made features of every pixel, as pixel classifiers use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Scales in pixels."""


def pixel_features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return colour, and at each scale its Gaussian, gradient magnitude and local standard deviation.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.

    Returns:
        ``(H, W, 39)`` float32 in units of the 8-bit colours: 3 colours, then 3 bands x 3 filters for each scale.
    """
    colours = image.astype(np.float32)
    features = [colours[..., band] for band in range(3)]
    for sigma in SIGMAS:
        for band in range(3):
            features += _filters(colours[..., band], sigma)
    return np.stack(features, axis=-1)


def _filters(band: NDArray[np.float32], sigma: float) -> list[NDArray[np.float32]]:
    smooth = ndimage.gaussian_filter(band, sigma)
    gradient = ndimage.gaussian_gradient_magnitude(band, sigma)
    # Rounding can bring the variance of a flat area just below zero.
    variance = ndimage.gaussian_filter(band * band, sigma) - smooth * smooth
    return [smooth, gradient, np.sqrt(np.maximum(variance, 0))]
