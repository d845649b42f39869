"""Ground cover: the base, fields, woods, water, lawns and the invented ground."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import numpy as np
from PIL import Image

from .canvas import SUPERSAMPLING, Canvas
from .classes import CLASS_ID
from .geometry import Outline, bezier, blob, offset_line, placed, rectangle
from .noise import cut, noise_bank
from .style import Pattern, SceneStyle

_BASES = ("grass", "bare_soil", "mixed_ground", "paved")
_BASE_CLASSES = ("grass", "bare_soil", "background", "paved")


def base_canvas(style: SceneStyle, rng: np.random.Generator, height: int, width: int) -> Canvas:
    """A canvas covered by one to three kinds of ground in natural patches.

    Args:
        style: The place.
        rng: Source of randomness of this tile.
        height: Rows of the finished tile.
        width: Columns of the finished tile.
    """
    r = Random(int(rng.integers(2**62)))
    weights = [w * r.uniform(0.2, 1.0) for w in style.settlement.grounds]
    kinds = r.choices(range(len(_BASES)), weights, k=r.choice((1, 2, 2, 3)))
    pick = np.full((height, width), kinds[0], np.int32)
    bank = noise_bank()
    for kind in kinds[1:]:
        field = cut(bank.patchy, height, width, rng, zoom=r.uniform(1.0, 2.5))
        field = field + np.float32(r.uniform(0.02, 0.25)) * cut(bank.mottle, height, width, rng)
        pick[field > r.uniform(-0.6, 1.2)] = kind
    palette = np.array([style.materials[name].ink(r) for name in _BASES], np.uint8)
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    numbers = np.array([0, 1, 2, 3], np.int32)
    class_of = [0]
    for kind, name in enumerate(_BASE_CLASSES):
        if name == "background":
            numbers[kind] = 0
        else:
            class_of.append(CLASS_ID[name])
            numbers[kind] = len(class_of) - 1
    return Canvas(
        style=style,
        r=r,
        colours=Image.fromarray(palette[pick], "RGBA").resize(size, Image.Resampling.NEAREST),
        labels=Image.fromarray(numbers[pick]).resize(size, Image.Resampling.NEAREST),
        scale=SUPERSAMPLING / style.gsd,
        class_of=class_of,
    )


def _patch(canvas: Canvas, radius: float, regular: bool) -> Outline:
    """An outline of a patch of ground somewhere in the tile; radius in canvas pixels."""
    r = canvas.r
    x, y = canvas.somewhere()
    if regular:
        angle = canvas.style.orientation + r.choice((0, math.pi / 2)) + r.gauss(0, 0.05)
        return rectangle(x, y, 2 * radius * r.uniform(0.6, 1.4), 2 * radius * r.uniform(0.4, 1.0), angle)
    return blob(r, x, y, radius, r.uniform(0.1, 0.4), 48, r.uniform(1.0, 2.2))


def lay_patches(canvas: Canvas, name: str, count: int) -> None:
    """Lawns, sandy or paved patches, the kind of ground named by the class."""
    for _ in range(count):
        radius = canvas.diagonal * math.exp(canvas.r.uniform(math.log(0.06), math.log(0.4)))
        outline = _patch(canvas, radius, canvas.r.random() < (0.8 if name == "paved" else 0.4))
        canvas.fill(outline, canvas.ink(name), canvas.new(name))


def lay_novel_ground(canvas: Canvas, count: int) -> None:
    """Patches of the invented ground of the place."""
    recipe = canvas.style.novel_ground
    for _ in range(count):
        radius = recipe.radius * canvas.scale * canvas.r.uniform(0.6, 1.5)
        outline = _patch(canvas, min(radius, canvas.diagonal * 0.6), recipe.regular)
        instance = canvas.new("novel_ground")
        canvas.fill(outline, canvas.ink("novel_ground", choice=0), instance)
        if recipe.pattern is not None:
            canvas.add_pattern(instance, outline, recipe.pattern, canvas.style.orientation)


def lay_fields(canvas: Canvas) -> None:
    """A patchwork of fields: a turned grid of uneven strips, some of its cells left out."""
    r, style = canvas.r, canvas.style
    reach = canvas.diagonal * 1.1
    cell = min(max(40.0, r.uniform(50, 180)) * canvas.scale, reach)
    xs, ys = _cuts(r, reach, cell * r.uniform(0.6, 1.4)), _cuts(r, reach, cell)
    balk = r.uniform(0.3, 3.0) * canvas.scale
    kept = r.uniform(0.5, 1.0)
    turn, bend = style.orientation, r.gauss(0, 0.12)
    cx, cy = canvas.width / 2, canvas.height / 2
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            if r.random() > kept or x1 - x0 < 3 * balk or y1 - y0 < 3 * balk:
                continue
            corners = [(x0 + balk, y0 + balk), (x1 - balk, y0 + balk), (x1 - balk, y1 - balk), (x0 + balk, y1 - balk)]
            outline = placed([(x + bend * y, y + bend * x) for x, y in corners], cx, cy, turn)
            instance = canvas.new("field")
            canvas.fill(outline, canvas.ink("crop"), instance)
            if r.random() < 0.8:
                rows = Pattern("rows", r.choice((0.8, 1.5, 3.0, 6.0)) * r.uniform(0.7, 1.4), r.uniform(0.04, 0.3))
                canvas.add_pattern(instance, outline, rows, turn + r.choice((0.0, 0.0, math.pi / 2)))


def _cuts(r: Random, reach: float, cell: float) -> list[float]:
    """Increasing positions from -reach to reach at uneven distances around ``cell``."""
    cuts = [-reach]
    while cuts[-1] < reach:
        cuts.append(cuts[-1] + cell * r.uniform(0.35, 1.6))
    return cuts


def lay_woods(canvas: Canvas, count: int) -> None:
    """Closed woods with lobed edges."""
    r = canvas.r
    outlines = []
    height = r.uniform(2, 8)
    for _ in range(count):
        radius = canvas.diagonal * math.exp(r.uniform(math.log(0.15), math.log(0.7)))
        x, y = canvas.somewhere(radius * 0.4)
        outlines.append(blob(r, x, y, radius, r.uniform(0.15, 0.4), 90, r.uniform(1.0, 2.2)))
        canvas.cast_shadow(outlines[-1], height)
    for outline in outlines:
        canvas.lighten(outline)
        instance, ink = canvas.new("wood"), canvas.ink("wood")
        canvas.fill(outline, ink, instance)
        crown = canvas.style.crown_radius[1] * canvas.scale
        # Crowns along the edge break the smooth outline up.
        if crown > 2:
            for px, py in outline:
                canvas.disc(px + r.gauss(0, crown), py + r.gauss(0, crown), crown * r.uniform(0.5, 1.1), ink, instance)


def lay_water(canvas: Canvas) -> None:
    """One body of water: sea with a shore or quay, a river, a canal, or a pond."""
    r = canvas.r
    place = canvas.style.settlement.name
    if place == "harbour" or (place == "coast" and r.random() < 0.8):
        _lay_sea(canvas, quay=place == "harbour" or r.random() < 0.1)
    elif r.random() < 0.5:
        _lay_river(canvas)
    else:
        radius = min(canvas.diagonal * r.uniform(0.1, 0.55), r.uniform(15, 250) * canvas.scale)
        x, y = canvas.somewhere()
        outline = blob(r, x, y, radius, r.uniform(0.1, 0.35), 60, r.uniform(1.0, 2.0))
        _flood(canvas, outline)


def _flood(canvas: Canvas, outline: Outline) -> None:
    """Fill with water, a shallow or bare rim first."""
    instance = canvas.new("water")
    r = canvas.r
    rim = r.uniform(0.5, 4.0) * canvas.scale
    if r.random() < 0.5:
        canvas.stroke([*outline, outline[0]], 2 * rim, canvas.ink("track"), 0)
    canvas.fill(outline, canvas.ink("water"), instance)
    if r.random() < 0.5:
        canvas.stroke([*outline, outline[0]], rim, canvas.ink("shallow"), instance)


def _lay_sea(canvas: Canvas, quay: bool) -> None:
    r, reach = canvas.r, canvas.diagonal * 1.5
    angle = canvas.style.orientation + (r.choice((0, 0, math.pi)) if quay else r.uniform(0, math.tau))
    shore: Outline
    if quay:
        shore, x, step, level = [], -reach, canvas.diagonal * 0.35, 0.0
        while x < reach:
            width = step * r.uniform(0.4, 2.0)
            shore += [(x, level), (x + width, level)]
            x += width
            level = r.choice((0.0, 0.0, 0.35, -0.35)) * canvas.diagonal
    else:
        swing = canvas.diagonal * r.uniform(0.03, 0.2)
        waves = [(r.uniform(0.5, 6), r.uniform(0, math.tau)) for _ in range(5)]
        shore = [
            (x, swing * sum(math.sin(f * x / canvas.diagonal + p) / math.sqrt(f) for f, p in waves))
            for x in (reach * (i / 40 - 1) for i in range(81))
        ]
    away = canvas.diagonal * r.uniform(-0.35, 0.3)
    cx, cy = canvas.width / 2 - math.sin(angle) * away, canvas.height / 2 + math.cos(angle) * away
    instance = canvas.new("water")
    turned = placed(shore, cx, cy, angle)
    beach = 0.0 if quay else r.uniform(0, 25) * canvas.scale
    if beach > 2:
        canvas.fill(
            placed([(x, y - beach) for x, y in shore] + [(reach, 2 * reach), (-reach, 2 * reach)], cx, cy, angle),
            canvas.ink("bare_soil", 1.15),
            canvas.new("bare_soil"),
        )
    canvas.fill(
        [*turned, *placed([(reach, 2 * reach), (-reach, 2 * reach)], cx, cy, angle)], canvas.ink("water"), instance
    )
    if quay:
        canvas.stroke(turned, r.uniform(1, 3) * canvas.scale, canvas.ink("paved"), canvas.new("paved"))
        _lay_piers(canvas, cx, cy, angle)
    else:
        shallow = r.uniform(2, 10) * canvas.scale
        canvas.stroke(offset_line(turned, shallow * 0.5), shallow, canvas.ink("shallow"), instance)
        if r.random() < 0.6:
            canvas.stroke(
                offset_line(turned, shallow * r.uniform(0.1, 0.8)),
                r.uniform(0.5, 2.0) * canvas.scale,
                canvas.ink("marking", 0.95),
                instance,
            )


def _lay_piers(canvas: Canvas, cx: float, cy: float, angle: float) -> None:
    r = canvas.r
    length, width = r.uniform(15, 90) * canvas.scale, r.uniform(2, 6) * canvas.scale
    gap = r.uniform(15, 60) * canvas.scale
    ink = canvas.ink("paved", r.uniform(0.85, 1.1))
    for i in range(-6, 7):
        if r.random() < 0.6:
            pier = placed(
                [
                    (i * gap - width / 2, -width),
                    (i * gap + width / 2, -width),
                    (i * gap + width / 2, length),
                    (i * gap - width / 2, length),
                ],
                cx,
                cy,
                angle,
            )
            canvas.cast_shadow(pier, 1.5)
            canvas.fill(pier, ink, 0)


def _lay_river(canvas: Canvas) -> None:
    r, d = canvas.r, canvas.diagonal
    angle = r.uniform(0, math.tau)
    width = min(r.choice((r.uniform(2, 8), r.uniform(8, 60))) * canvas.scale, 0.8 * d)
    shape = [
        (-1.5 * d, r.uniform(-d, d) * 0.5),
        (-0.5 * d, r.uniform(-d, d)),
        (0.5 * d, r.uniform(-d, d)),
        (1.5 * d, r.uniform(-d, d) * 0.5),
    ]
    a, b, c, e = placed(shape, canvas.width / 2, canvas.height / 2, angle)
    line = bezier(a, b, c, e, 40)
    instance = canvas.new("water")
    bank = r.uniform(1.05, 1.4)
    canvas.stroke(line, width * bank, canvas.ink(r.choice(("track", "grass", "bare_soil"))), 0)
    canvas.stroke(line, width, canvas.ink("water"), instance)
