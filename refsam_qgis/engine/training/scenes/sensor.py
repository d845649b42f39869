"""The instrument and its processing: exposure, haze, blur, noise and compression."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .noise import FloatMap, cut, noise_bank
from .style import Sensor

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_PIVOT = 105.0
"""Grey level that a change of contrast leaves alone."""


def observe(picture: FloatMap, sensor: Sensor, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the sensor delivers of a scene.

    Args:
        picture: (H, W, 3) brightness, 0..255 and beyond.
        sensor: The instrument.
        rng: Source of the noise.

    Returns:
        (H, W, 3) image.
    """
    colour_mix = sensor.saturation * np.eye(3, dtype=np.float32) + (1 - sensor.saturation) * _LUMINANCE[:, None]
    gains = np.array(sensor.cast, np.float32) * np.float32(sensor.gain * (1.0 - sensor.haze))
    seen = picture @ (colour_mix * gains).astype(np.float32)
    seen += np.array(sensor.haze_colour, np.float32) * np.float32(sensor.haze)
    image = Image.fromarray(_to_bytes(seen))
    # A table on 8 bits stands for the power function on every pixel.
    levels = 255.0 * (np.arange(256) / 255.0) ** sensor.gamma
    curve = np.clip((levels - _PIVOT) * sensor.contrast + _PIVOT, 0, 255).astype(int)
    image = image.point(np.tile(curve, 3).tolist())
    if sensor.blur > 0.15:
        image = image.filter(_gaussian(sensor.blur, 0.0))
    if sensor.noise > 0:
        height, width = picture.shape[:2]
        grain = noise_bank().grain
        noise = np.stack([cut(grain, height, width, rng) for _ in range(3)], axis=-1)
        image = Image.fromarray(_to_bytes(np.asarray(image) + noise * np.float32(sensor.noise)))
    if sensor.sharpen:
        image = image.filter(_gaussian(1.0, sensor.sharpen / 100))
    if sensor.jpeg_quality:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=sensor.jpeg_quality)
        image = Image.open(buffer).convert("RGB")
    return np.array(image)


def _to_bytes(values: FloatMap) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _gaussian(sigma: float, unsharp: float) -> ImageFilter.Kernel:
    """A Gaussian blur, or with ``unsharp`` > 0 the picture plus that share of what the blur takes away."""
    reach = 1 if sigma < 0.6 else 2
    profile = np.array([math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)])
    weights = np.outer(profile, profile) / profile.sum() ** 2
    if unsharp:
        weights *= -unsharp
        weights[reach, reach] += 1.0 + unsharp
    side = 2 * reach + 1
    return ImageFilter.Kernel((side, side), weights.ravel().tolist(), scale=1.0)
