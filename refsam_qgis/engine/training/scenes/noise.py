"""A bank of tileable noise fields, computed once and cut at random places for every scene."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatMap = NDArray[np.float32]

_SIZE = 640
_SEED = 20261


class NoiseBank(NamedTuple):
    """Tileable fields of ``_SIZE`` x ``_SIZE`` with mean 0 and standard deviation 1.

    Attributes:
        patchy: Long-range variation (spectrum close to 1/f^1.6 in amplitude).
        mottle: Fractal variation on all scales (about 1/f).
        grain: Almost white.
        ripple: Fractal, elongated along x, as water waves and wind-blown sand are.
        canopy: Heights of packed, dome-shaped tree crowns of about 16 pixels across.
    """

    patchy: FloatMap
    mottle: FloatMap
    grain: FloatMap
    ripple: FloatMap
    canopy: FloatMap


def _standardised(field: NDArray[np.floating]) -> FloatMap:
    scaled: FloatMap = ((field - field.mean()) / (field.std() + 1e-9)).astype(np.float32)
    return scaled


def _fractal(rng: np.random.Generator, exponent: float, stretch: float = 1.0) -> FloatMap:
    """Gaussian noise with a power-law amplitude spectrum.

    Args:
        rng: Source of randomness.
        exponent: Amplitude falls as ``frequency ** -exponent``.
        stretch: Elongation of the structures along x.
    """
    fy = np.fft.fftfreq(_SIZE)[:, None]
    fx = np.fft.rfftfreq(_SIZE)[None, :] * stretch
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((_SIZE, _SIZE))) * frequency**-exponent
    return _standardised(np.fft.irfft2(spectrum, s=(_SIZE, _SIZE)))


def _canopy(rng: np.random.Generator, radius: float = 8.0) -> FloatMap:
    """Upper envelope of randomly placed domes, wrapping around at the edges."""
    heights = np.zeros((_SIZE, _SIZE), np.float32)
    count = int(1.5 * _SIZE * _SIZE / (np.pi * radius * radius))
    for y, x, size in zip(
        rng.integers(0, _SIZE, count), rng.integers(0, _SIZE, count), rng.uniform(0.55, 1.25, count), strict=True
    ):
        reach = int(np.ceil(radius * size))
        offsets = np.arange(-reach, reach + 1)
        squared = (offsets[:, None] ** 2 + offsets[None, :] ** 2) / (radius * size) ** 2
        dome = np.sqrt(np.clip(1.0 - squared, 0.0, None)) * size
        window = np.ix_((y + offsets) % _SIZE, (x + offsets) % _SIZE)
        heights[window] = np.maximum(heights[window], dome)
    return _standardised(heights)


@lru_cache(maxsize=1)
def noise_bank() -> NoiseBank:
    """The fields; the same in every process, so that scenes depend on their own seed alone."""
    rng = np.random.default_rng(_SEED)
    return NoiseBank(
        patchy=_fractal(rng, 1.6),
        mottle=_fractal(rng, 1.0),
        grain=_fractal(rng, 0.25),
        ripple=_fractal(rng, 0.9, stretch=5.0),
        canopy=_canopy(rng),
    )


def cut(field: FloatMap, height: int, width: int, rng: np.random.Generator, zoom: float = 1.0) -> FloatMap:
    """A random window of a tileable field, randomly flipped.

    Args:
        field: One field of the bank.
        height: Rows wanted.
        width: Columns wanted.
        rng: Source of randomness for the place and the flip.
        zoom: Pixels of the result per pixel of the field.

    Returns:
        Array of shape (height, width).
    """
    size = field.shape[0]
    rows, columns = max(2, round(height / zoom)), max(2, round(width / zoom))
    y, x = rng.integers(0, size, 2)
    flip_y, flip_x = rng.integers(0, 2, 2) * 2 - 1
    picked = field.take((y + np.arange(rows)) % size, axis=0).take((x + np.arange(columns)) % size, axis=1)
    picked = picked[::flip_y, ::flip_x]
    if (rows, columns) == (height, width):
        return np.ascontiguousarray(picked)
    image = Image.fromarray(np.ascontiguousarray(picked))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
