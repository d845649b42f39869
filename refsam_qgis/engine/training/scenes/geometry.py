"""Outlines of the shapes that scenes are drawn from; coordinates are (x, y), angles in radians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from random import Random

Point = tuple[float, float]
Outline = list[Point]


def placed(shape: Sequence[Point], x: float, y: float, angle: float, scale: float = 1.0) -> Outline:
    """A shape given around the origin, scaled, turned and moved."""
    c, s = math.cos(angle) * scale, math.sin(angle) * scale
    return [(x + px * c - py * s, y + px * s + py * c) for px, py in shape]


def rectangle(x: float, y: float, length: float, width: float, angle: float) -> Outline:
    """Corners of a rectangle around (x, y), its length along the angle."""
    a, b = length / 2, width / 2
    return placed(((-a, -b), (a, -b), (a, b), (-a, b)), x, y, angle)


def blob(r: Random, x: float, y: float, radius: float, roughness: float, corners: int, aspect: float = 1.0) -> Outline:
    """An irregular closed outline from a few random harmonics.

    Args:
        r: Source of randomness.
        x: Centre.
        y: Centre.
        radius: Mean radius.
        roughness: 0 for an ellipse, about 0.3 for a strongly lobed outline.
        corners: Vertices of the outline.
        aspect: Length over width; the long axis is turned at random.
    """
    waves = [(k, r.uniform(0, math.tau), roughness * r.uniform(0.3, 1.0) / math.sqrt(k)) for k in (2, 3, 5)]
    turn = r.uniform(0, math.tau)
    shape = []
    for i in range(corners):
        t = math.tau * i / corners
        d = radius * max(0.2, 1.0 + sum(a * math.sin(k * t + p) for k, p, a in waves))
        shape.append((d * math.cos(t) * aspect, d * math.sin(t)))
    return placed(shape, x, y, turn)


def bezier(a: Point, b: Point, c: Point, d: Point, steps: int) -> Outline:
    """Points along a cubic Bezier curve."""
    line = []
    for i in range(steps + 1):
        t = i / steps
        u = 1 - t
        w0, w1, w2, w3 = u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t
        line.append((w0 * a[0] + w1 * b[0] + w2 * c[0] + w3 * d[0], w0 * a[1] + w1 * b[1] + w2 * c[1] + w3 * d[1]))
    return line


def stations(line: Sequence[Point], step: float, start: float = 0.0) -> list[tuple[float, float, float]]:
    """Points (x, y, direction) at equal distances along a line."""
    found = []
    due = start
    walked = 0.0
    for (x0, y0), (x1, y1) in pairwise(line):
        length = math.hypot(x1 - x0, y1 - y0)
        if length <= 0:
            continue
        angle = math.atan2(y1 - y0, x1 - x0)
        while due <= walked + length:
            t = (due - walked) / length
            found.append((x0 + (x1 - x0) * t, y0 + (y1 - y0) * t, angle))
            due += step
        walked += length
    return found


def offset_line(line: Sequence[Point], distance: float) -> Outline:
    """The line moved sideways (to the right of its direction in image coordinates)."""
    moved = []
    for i, (x, y) in enumerate(line):
        x0, y0 = line[max(0, i - 1)]
        x1, y1 = line[min(len(line) - 1, i + 1)]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        moved.append((x - (y1 - y0) / length * distance, y + (x1 - x0) / length * distance))
    return moved


def probes(outline: Sequence[Point]) -> Outline:
    """Points that stand for an outline in a test for room: corners, edge middles, centre and half-way points."""
    n = len(outline)
    cx, cy = sum(p[0] for p in outline) / n, sum(p[1] for p in outline) / n
    points = [(cx, cy)]
    stride = max(1, n // 8)
    for i in range(0, n, stride):
        x, y = outline[i]
        x1, y1 = outline[(i + stride) % n]
        points += [(x, y), ((x + x1) / 2, (y + y1) / 2), ((x + cx) / 2, (y + cy) / 2)]
    return points
