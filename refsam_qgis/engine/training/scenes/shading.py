"""From drawn colours to a lit, textured picture: noise by material, patterns, and shadows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .canvas import SUPERSAMPLING, Canvas, PlacedPattern
from .geometry import Point
from .noise import FloatMap, cut, noise_bank
from .palettes import MATERIALS

_SKY_LIGHT = np.array([0.86, 0.97, 1.16], np.float32)
"""Colour of the light that remains in a shadow, relative to sunlight."""


def shaded(canvas: Canvas, labels: NDArray[np.int32], rng: np.random.Generator) -> FloatMap:
    """The picture before the sensor.

    Args:
        canvas: The drawn tile.
        labels: (H, W) object numbers at the tile's resolution.
        rng: Source of randomness.

    Returns:
        (H, W, 3) brightness, 0..255 and beyond.
    """
    height, width = labels.shape
    picture = np.array(canvas.colours.convert("RGB").reduce(SUPERSAMPLING), np.float32)
    material = np.asarray(canvas.colours.getchannel("A"))[::SUPERSAMPLING, ::SUPERSAMPLING]
    amplitudes = np.array([canvas.style.materials[name].texture for name in MATERIALS], np.float32).T
    bank, zoom = noise_bank(), canvas.style.ground_zoom
    # Crowns in the bank measure 16 pixels across.
    crown = min(4.0, max(0.25, canvas.style.crown_radius[1] / canvas.style.gsd / 8.0))
    fields = (
        cut(bank.patchy, height, width, rng, zoom=1.0),
        cut(bank.mottle, height, width, rng, zoom=zoom),
        cut(bank.grain, height, width, rng),
        cut(bank.ripple, height, width, rng, zoom=1.5),
        _lit(cut(bank.canopy, height, width, rng, zoom=crown), canvas.style.shadow, 3.0 * crown),
    )
    gain = np.ones((height, width), np.float32)
    for amplitude, field in zip(amplitudes[:5], fields, strict=True):
        gain += amplitude.take(material) * field
    # The brightness field upside down is as good as another field.
    tint = fields[0][::-1] * amplitudes[5].take(material)
    picture *= np.clip(gain, 0.25, 1.9)[..., None]
    picture[..., 0] += tint
    picture[..., 2] -= tint
    for placed in canvas.patterns:
        _apply(placed, picture, labels, canvas.style.gsd)
    covered = np.asarray(canvas.shadows.reduce(SUPERSAMPLING), np.float32)[..., None]
    dark = covered * np.float32(canvas.style.shadow_depth / 255)
    picture *= 1.0 - dark * (1.0 - 0.12 * _SKY_LIGHT)
    return picture


def _lit(heights: FloatMap, shadow: Point, reach: float) -> FloatMap:
    """Brightness of a bumpy surface: high parts, and the sides that face the sun.

    Args:
        heights: (H, W) heights.
        shadow: Direction (x, y) in which shadows fall.
        reach: Distance in pixels over which a slope is measured.
    """
    length = math.hypot(*shadow) or 1.0
    dx, dy = round(reach * shadow[0] / length), round(reach * shadow[1] / length)
    return 0.5 * heights + 0.6 * (heights - np.roll(heights, (dy, dx), (0, 1)))


def _apply(placed: PlacedPattern, picture: FloatMap, labels: NDArray[np.int32], gsd: float) -> None:
    """Draw one pattern onto the pixels of its object, in place."""
    height, width = labels.shape
    x0, y0, x1, y1 = (v / SUPERSAMPLING for v in placed.box)
    left, top = max(0, int(x0)), max(0, int(y0))
    right, bottom = min(width, int(x1) + 2), min(height, int(y1) + 2)
    if right <= left or bottom <= top:
        return
    mask = labels[top:bottom, left:right] == placed.instance
    if not mask.any():
        return
    period = placed.pattern.period / gsd
    if period < 1.8:
        return
    rows, columns = np.nonzero(mask)
    c, s = math.cos(placed.angle), math.sin(placed.angle)
    rate = np.float32(math.tau / period)
    # Measured from the object's own corner, so that like objects carry the pattern in like places.
    x, y = (columns + (left - x0)).astype(np.float32), (rows + (top - y0)).astype(np.float32)
    u, v = (x * c + y * s) * rate, (y * c - x * s) * rate
    wave = _wave(placed.pattern.kind, u, v)
    window = picture[top:bottom, left:right]
    values = window[rows, columns]
    if placed.pattern.tint is None:
        values = values * (1.0 + placed.pattern.amplitude * wave)[:, None]
    else:
        share = (np.clip(wave * 0.5 + 0.5, 0, 1) * min(1.0, 1.6 * placed.pattern.amplitude))[:, None]
        values = values * (1 - share) + np.array(placed.pattern.tint, np.float32) * share
    window[rows, columns] = values


def _wave(kind: str, u: FloatMap, v: FloatMap) -> FloatMap:
    """Pattern values in -1..1 over phases along (u) and across (v)."""
    wave: FloatMap
    if kind == "rows":
        wave = np.sin(v)
    elif kind == "stripes":
        wave = np.sign(np.sin(v))
    elif kind == "grid":
        wave = np.where(np.maximum(np.cos(u), np.cos(v)) > 0.8, np.float32(1), np.float32(-0.4))
    elif kind == "checker":
        wave = np.sign(np.sin(u) * np.sin(v))
    elif kind == "dots":
        wave = np.where(np.cos(u) + np.cos(v) > 0.7, np.float32(1), np.float32(-0.4))
    else:  # "speckle": incommensurate waves that look irregular
        wave = np.sign(np.sin(u * 1.31 + 2.1 * np.sin(v * 0.73)) + np.sin(v * 1.17 + 1.7 * np.sin(u * 0.61)))
    return wave
