"""Movable and small things: vehicles, ships, planes, trees, invented objects, and clutter without a label."""

from __future__ import annotations

import math

from .canvas import NATURAL_GROUND, OPEN_GROUND, Canvas, ids
from .classes import CLASS_ID
from .geometry import Outline, blob, offset_line, placed, rectangle, stations
from .roads import CarPark, Road
from .structures import lit, shade

MAX_VEHICLES = 260
MAX_TREES = 240

_DRIVABLE = ids("road", "paved", "background", "bare_soil", "grass")


def lay_vehicles(canvas: Canvas, roads: list[Road], car_parks: list[CarPark], usual: float, fewest: int) -> None:
    """Cars on lanes, at the kerb and in stalls; more anywhere on open ground until there are enough."""
    r, scale = canvas.r, canvas.scale
    found = 0
    for park in car_parks:
        share = r.uniform(0.2, 0.95)
        for x, y, angle in park.stalls:
            if r.random() < share and found < MAX_VEHICLES:
                found += _vehicle(canvas, x, y, angle + r.gauss(0, 0.04), lorry=False)
    for road in roads:
        gap = 22 * scale / max(0.05, usual)
        for lane in range(road.lanes):
            line = offset_line(road.line, ((lane + 0.5) / road.lanes - 0.5) * road.width)
            for x, y, angle in stations(line, gap, r.uniform(0, gap)):
                if r.random() < 0.45 and found < MAX_VEHICLES:
                    found += _vehicle(canvas, x, y, angle + r.gauss(0, 0.02), lorry=r.random() < 0.12)
    for attempt in range(fewest * 10):
        if found >= fewest:
            break
        x, y = canvas.somewhere()
        if attempt >= fewest * 9 or canvas.class_at(x, y) in _DRIVABLE:
            angle = canvas.style.orientation + r.choice((0, math.pi / 2))
            count = r.choice((1, 1, 4, 8))
            for i in range(count):
                ((px, py),) = placed([(0, 3 * i * scale)], x, y, angle)
                found += _vehicle(canvas, px, py, angle, lorry=count == 1 and r.random() < 0.2)


def _vehicle(canvas: Canvas, x: float, y: float, angle: float, lorry: bool) -> bool:
    """A car, or a lorry or bus; False where something else stands already."""
    if canvas.class_at(x, y) not in _DRIVABLE:
        return False
    r, scale = canvas.r, canvas.scale
    length, width = (r.uniform(7, 13), 2.5) if lorry else (r.uniform(3.8, 5.0), r.uniform(1.7, 2.0))
    length, width = length * scale, width * scale
    a, b = length / 2, width / 2
    shape = [(-a, -b), (a * 0.85, -b), (a, -b * 0.6), (a, b * 0.6), (a * 0.85, b), (-a, b)]
    body = placed(shape if width > 4 else [(-a, -b), (a, -b), (a, b), (-a, b)], x, y, angle)
    canvas.cast_shadow(body, 3.0 if lorry else 1.4)
    ink = canvas.ink("paint")
    canvas.fill(body, ink, canvas.new("vehicle"))
    if length > 9:
        glass = canvas.ink("glass")
        if lorry:
            canvas.fill(placed([(a * 0.62, -b), (a * 0.68, -b), (a * 0.68, b), (a * 0.62, b)], x, y, angle), glass)
            canvas.fill(placed([(a * 0.7, -b), (a, -b), (a, b), (a * 0.7, b)], x, y, angle), canvas.ink("paint"))
        else:
            for begin, end in ((0.18, 0.42), (-0.75, -0.55)):
                window = [(a * begin, -b * 0.8), (a * end, -b * 0.7), (a * end, b * 0.7), (a * begin, b * 0.8)]
                canvas.fill(placed(window, x, y, angle), glass)
    return True


def lay_ships(canvas: Canvas, fewest: int) -> None:
    """Boats and ships, afloat or moored in rows; on dry ground only where the tile has no water."""
    r, scale = canvas.r, canvas.scale
    afloat = frozenset({CLASS_ID["water"]})
    found = 0
    for attempt in range(fewest * 25):
        if found >= fewest:
            break
        length = r.choice((r.uniform(5, 12), r.uniform(8, 25), r.uniform(25, 130))) * scale
        length = min(length, canvas.diagonal * 0.9)
        width = length * r.uniform(0.2, 0.34)
        angle = canvas.style.orientation + r.choice((0, math.pi / 2, math.pi, r.uniform(0, math.tau)))
        x, y = canvas.somewhere()
        for i in range(r.choice((1, 1, 1, 4, 9)) if length < 25 * scale else 1):
            ((px, py),) = placed([(0, i * width * 1.35)], x, y, angle)
            outline = rectangle(px, py, length, width, angle)
            if canvas.has_room(outline, afloat) or (attempt >= fewest * 24 and found < fewest):
                _draw_ship(canvas, px, py, length, width, angle)
                found += 1


def _draw_ship(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float) -> None:
    r = canvas.r
    a, b = length / 2, width / 2
    bow = r.uniform(0.35, 0.75)
    shape = [
        (-a, -b * 0.8),
        (-a * 0.7, -b),
        (a * bow, -b),
        (a * (1 + bow) / 2, -b * 0.62),
        (a, 0),
        (a * (1 + bow) / 2, b * 0.62),
        (a * bow, b),
        (-a * 0.7, b),
        (-a, b * 0.8),
    ]
    hull = placed(shape, x, y, angle)
    if r.random() < 0.3:
        tail = placed(
            [
                (-a, -b * 0.6),
                (-a - length * r.uniform(0.6, 2.5), -b * 1.1),
                (-a - length * r.uniform(0.6, 2.5), b * 1.1),
                (-a, b * 0.6),
            ],
            x,
            y,
            angle,
        )
        canvas.fill(tail, canvas.ink("water", 1.5))
    canvas.cast_shadow(hull, min(12.0, 0.12 * length / canvas.scale))
    ink, instance = canvas.ink("hull"), canvas.new("ship")
    canvas.fill(hull, ink, instance)
    if length < 8:
        return
    canvas.fill(placed([(px * 0.88, py * 0.78) for px, py in shape], x, y, angle), shade(canvas.ink("hull"), 0.95))
    stern = r.choice((-0.55, -0.2, 0.1))
    cabin = placed(
        [
            (a * (stern - 0.2), -b * 0.6),
            (a * (stern + 0.2), -b * 0.6),
            (a * (stern + 0.2), b * 0.6),
            (a * (stern - 0.2), b * 0.6),
        ],
        x,
        y,
        angle,
    )
    canvas.cast_shadow(cabin, 0.05 * length / canvas.scale)
    canvas.fill(cabin, canvas.ink("marking"))
    if length > 30 * canvas.scale or (length > 40 and r.random() < 0.4):
        for i in range(7):
            u = a * (-0.25 + i * 0.13)
            box = [(u, -b * 0.7), (u + a * 0.1, -b * 0.7), (u + a * 0.1, b * 0.7), (u, b * 0.7)]
            canvas.fill(placed(box, x, y, angle), canvas.ink("clutter"))


def lay_planes(canvas: Canvas, fewest: int) -> None:
    """Planes on an apron, in a row or alone."""
    r, scale = canvas.r, canvas.scale
    length = r.choice((r.uniform(8, 16), r.uniform(25, 40), r.uniform(35, 70))) * scale
    length = min(length, canvas.diagonal * 0.6)
    angle = canvas.style.orientation + r.choice((0, 1, 2, 3)) * math.pi / 2
    found = 0
    for attempt in range(fewest * 8):
        if found >= fewest:
            break
        x, y = canvas.somewhere()
        count = min(fewest, r.choice((1, 2, 4)))
        pitch = length * r.uniform(1.1, 1.4)
        apron = rectangle(
            x - math.sin(angle) * pitch * (count - 1) / 2,
            y + math.cos(angle) * pitch * (count - 1) / 2,
            length * 1.7,
            pitch * count + 0.4 * length,
            angle,
        )
        if attempt < fewest * 7 and not canvas.has_room(apron, OPEN_GROUND):
            continue
        if r.random() < 0.8:
            canvas.fill(apron, canvas.ink("paved"), canvas.new("paved"))
        for i in range(count):
            ((px, py),) = placed([(0, pitch * i)], x, y, angle)
            _draw_plane(canvas, px, py, length * r.uniform(0.85, 1.1), angle + r.gauss(0, 0.05))
            found += 1


def _draw_plane(canvas: Canvas, x: float, y: float, length: float, angle: float) -> None:
    r = canvas.r
    a, f = length / 2, length * r.uniform(0.045, 0.065)
    sweep, span = r.uniform(0.05, 0.4), r.uniform(0.75, 1.05) * a
    body: Outline = [
        (-a, -f * 0.3),
        (-a * 0.6, -f),
        (a * 0.75, -f),
        (a * 0.93, -f * 0.6),
        (a, 0),
        (a * 0.93, f * 0.6),
        (a * 0.75, f),
        (-a * 0.6, f),
        (-a, f * 0.3),
    ]
    chord = r.uniform(0.28, 0.42) * a
    parts: list[Outline] = []
    for s in (-1, 1):
        tip = 0.15 * a - sweep * a
        parts.append(
            [
                (0.15 * a + chord / 2, s * f * 0.8),
                (0.15 * a - chord / 2, s * f * 0.8),
                (tip - chord * 0.25, s * span),
                (tip + chord * 0.1, s * span),
            ]
        )
        parts.append(
            [
                (-a * 0.72, s * f * 0.3),
                (-a * 0.95, s * f * 0.3),
                (-a * 1.05, s * span * 0.36),
                (-a * 0.93, s * span * 0.36),
            ]
        )
    turned = [placed(part, x, y, angle) for part in (*parts, body)]
    height = 0.07 * length / canvas.scale
    for part in turned:
        dx, dy = (d * height * canvas.scale for d in canvas.style.shadow)
        canvas.darken([(px + dx, py + dy) for px, py in part])
    ink, instance = canvas.ink("plane"), canvas.new("plane")
    for part in turned[:-1]:
        canvas.lighten(part)
        canvas.fill(part, shade(ink, 0.94), instance)
    if length > 12 * canvas.scale:
        for s in (-1, 1):
            engine = rectangle(0, 0, 0.18 * a, 0.08 * a, 0)
            canvas.fill(
                placed([(px + 0.22 * a - sweep * 0.3 * a, py + s * span * 0.36) for px, py in engine], x, y, angle),
                shade(ink, 0.8),
                instance,
            )
    canvas.lighten(turned[-1])
    canvas.fill(turned[-1], ink, instance)
    if length > 20:
        canvas.stroke(placed([(-a, 0), (-a * 0.7, 0)], x, y, angle), max(1.0, f * 0.5), canvas.ink("paint"))


def lay_trees(canvas: Canvas, roads: list[Road], usual: float, fewest: int) -> None:
    """Single trees and clumps, rows along roads, and the occasional orchard."""
    r, scale = canvas.r, canvas.scale
    found = 0
    area = canvas.width * canvas.height / (scale * scale)
    wanted = min(MAX_TREES, max(fewest, int(usual * r.uniform(0.1, 1.2) * area / 180)))
    if roads and usual > 0.2 and r.random() < 0.4:
        step = r.uniform(7, 16) * scale
        for road in roads:
            side = r.choice((-1, 1))
            line = offset_line(road.line, side * (road.width / 2 + 2.5 * scale))
            for x, y, _ in stations(line, step):
                if found < MAX_TREES:
                    found += _tree(canvas, x, y)
    for _ in range(wanted * 3):
        if found >= wanted:
            break
        x, y = canvas.somewhere()
        clump = r.choice((1, 1, 1, 3, 7))
        spread = canvas.style.crown_radius[1] * scale * math.sqrt(clump)
        for _ in range(clump):
            found += _tree(canvas, x + r.gauss(0, spread) * (clump > 1), y + r.gauss(0, spread) * (clump > 1))
    if r.random() < 0.06 or (fewest and r.random() < 0.3):
        _orchard(canvas)
    if fewest and not found:
        draw_tree(canvas, canvas.width / 2, canvas.height / 2)


_PLANTABLE = ids("background", "bare_soil", "grass", "paved")


def _tree(canvas: Canvas, x: float, y: float) -> bool:
    if canvas.class_at(x, y) not in _PLANTABLE:
        return False
    draw_tree(canvas, x, y)
    return True


def draw_tree(canvas: Canvas, x: float, y: float) -> None:
    """One crown: shadow, body, and lighter clumps of leaves towards the sun."""
    r, scale = canvas.r, canvas.scale
    radius = r.uniform(*canvas.style.crown_radius) * r.choice((0.6, 1.0, 1.0)) * scale
    height = radius / scale * r.uniform(1.0, 2.2)
    ink, instance = canvas.ink("leaf"), canvas.new("tree")
    if radius < 4:
        dx, dy = (d * height * 0.6 * scale for d in canvas.style.shadow)
        canvas.darken(rectangle(x + dx, y + dy, 1.6 * radius, 1.6 * radius, 0.8))
        canvas.lighten(rectangle(x, y, 1.6 * radius, 1.6 * radius, 0.8))
        canvas.disc(x, y, radius, ink, instance)
        return
    outline = blob(r, x, y, radius, 0.16, 20)
    dx, dy = (d * height * 0.5 * scale for d in canvas.style.shadow)
    canvas.darken([(px + dx, py + dy) for px, py in outline])
    canvas.lighten(outline)
    canvas.fill(outline, shade(ink, 0.72), instance)
    length = math.hypot(*canvas.style.shadow) or 1.0
    sx, sy = -canvas.style.shadow[0] / length, -canvas.style.shadow[1] / length
    clumps = min(24, 2 + int(radius / 2.5))
    for i in range(clumps):
        t, d = r.uniform(0, math.tau), radius * 0.72 * math.sqrt(r.random())
        gain = 0.85 + 0.4 * i / clumps
        push = 0.22 * radius * i / clumps
        canvas.disc(
            x + d * math.cos(t) + sx * push,
            y + d * math.sin(t) + sy * push,
            radius * r.uniform(0.14, 0.3),
            shade(ink, gain * r.uniform(0.9, 1.1)),
        )


def _orchard(canvas: Canvas) -> None:
    r, scale = canvas.r, canvas.scale
    pitch = canvas.style.crown_radius[1] * scale * r.uniform(2.0, 3.2)
    x, y = canvas.somewhere()
    for i in range(r.randrange(3, 11)):
        for j in range(r.randrange(3, 11)):
            ((px, py),) = placed([(i * pitch, j * pitch)], x, y, canvas.style.orientation)
            if canvas.class_at(px, py) in _PLANTABLE:
                draw_tree(canvas, px, py)


def lay_novel_objects(canvas: Canvas, count: int, forced: int) -> None:
    """Objects of the invented class of the place.

    Args:
        canvas: The tile.
        count: How many places to try.
        forced: How many of them to draw whatever is there.
    """
    r, recipe = canvas.r, canvas.style.novel_object
    for index in range(count):
        x, y = canvas.somewhere()
        radius = r.uniform(*recipe.radius) * canvas.scale
        angle = canvas.style.orientation if recipe.aligned else r.uniform(0, math.tau)
        around = rectangle(x, y, 1.6 * radius, 1.6 * radius, angle)
        if index >= forced and not canvas.has_room(around, _DRIVABLE):
            continue
        _draw_novel(canvas, x, y, radius, angle)


def _draw_novel(canvas: Canvas, x: float, y: float, radius: float, angle: float) -> None:
    recipe = canvas.style.novel_object
    instance = canvas.new("novel_object")
    height = recipe.height * radius / (recipe.radius[1] * canvas.scale)
    for part in recipe.parts:
        outline = placed(part.points, x, y, angle, radius)
        if part.kind == "polygon":
            canvas.cast_shadow(outline, height)
    for part in recipe.parts:
        outline = placed(part.points, x, y, angle, radius)
        ink = canvas.ink("novel_object", choice=part.choice)
        if part.kind == "polygon":
            canvas.fill(outline, ink, instance)
        elif part.kind == "ring":
            canvas.ring(*outline[0], part.size * radius, part.width * radius, ink, instance)
        else:
            canvas.stroke(outline, part.size * radius, ink, instance)
    if recipe.pattern is not None:
        canvas.add_pattern(instance, rectangle(x, y, 4 * radius, 4 * radius, 0), recipe.pattern, angle)


def lay_ground_clutter(canvas: Canvas) -> None:
    """Stains, paths and marks on open ground; the label of the ground stays."""
    r, scale = canvas.r, canvas.scale
    for _ in range(r.randrange(0, 14)):
        x, y = canvas.somewhere()
        if canvas.class_at(x, y) not in (CLASS_ID["background"], CLASS_ID["bare_soil"], CLASS_ID["grass"]):
            continue
        radius = r.uniform(1, 12) * scale
        ink = canvas.ink(r.choice(("mixed_ground", "bare_soil", "track")), r.uniform(0.8, 1.15))
        canvas.fill(blob(r, x, y, min(radius, canvas.diagonal * 0.2), 0.35, 24, r.uniform(1, 3)), ink, 0)
    for _ in range(r.choice((0, 0, 1, 2, 4))):
        line = [canvas.somewhere(canvas.diagonal * 0.3) for _ in range(2)]
        bend = offset_line(
            [line[0], ((line[0][0] + line[1][0]) / 2, (line[0][1] + line[1][1]) / 2), line[1]],
            r.gauss(0, 0.06) * canvas.diagonal,
        )
        canvas.stroke([line[0], bend[1], line[1]], r.uniform(0.6, 2.5) * scale, canvas.ink("track"), 0)


def lay_standing_clutter(canvas: Canvas) -> None:
    """Containers, rubble, sheds, walls and fences; unlabelled things of all colours."""
    r, scale = canvas.r, canvas.scale
    for _ in range(r.randrange(0, 40)):
        x, y = canvas.somewhere()
        size = math.exp(r.uniform(math.log(0.4), math.log(4))) * scale
        angle = canvas.style.orientation + r.choice((0.0, 0.0, r.uniform(0, 3)))
        if r.random() < 0.5:
            outline = rectangle(x, y, size * r.uniform(1, 3), size, angle)
        else:
            outline = blob(r, x, y, size * 0.6, 0.2, 10)
        if not canvas.has_room(outline, OPEN_GROUND):
            continue
        ink = canvas.ink(r.choice(("clutter", "clutter", "paint", "wall", "roof_metal", "pool", "leaf")))
        canvas.cast_shadow(outline, r.uniform(0.2, 2.5))
        canvas.fill(outline, ink, 0)
    for _ in range(r.choice((0, 0, 0, 3, 8))):
        x, y = canvas.somewhere()
        angle = canvas.style.orientation + r.choice((0.0, math.pi / 2))
        wall = rectangle(x, y, r.uniform(8, 40) * scale, max(1.0, r.uniform(0.15, 0.5) * scale), angle)
        if canvas.has_room(wall, NATURAL_GROUND):
            canvas.cast_shadow(wall, r.uniform(1, 2.5))
            canvas.fill(wall, lit(canvas, canvas.ink("wall"), angle, 0.1), 0)
