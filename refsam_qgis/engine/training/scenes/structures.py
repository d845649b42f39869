"""Buildings with their roofs and yards, tanks, pools, courts and solar panels."""

from __future__ import annotations

import math

from .canvas import NATURAL_GROUND, OPEN_GROUND, Canvas, Ink
from .classes import CLASS_ID
from .geometry import Outline, blob, placed, rectangle, stations
from .roads import Road
from .style import Pattern

Body = tuple[float, float, float, float, float]
"""Centre x and y, length, width and direction of a rectangular body, in canvas pixels and radians."""

MAX_BUILDINGS = 320


def lit(canvas: Canvas, ink: Ink, direction: float, slope: float) -> Ink:
    """The colour of a roof plane that faces a direction (radians), by the position of the sun."""
    sx, sy = canvas.style.shadow
    length = math.hypot(sx, sy) or 1.0
    facing = -(sx * math.cos(direction) + sy * math.sin(direction)) / length
    return shade(ink, 1.0 + slope * min(1.0, 0.5 + 0.5 * length) * facing)


def shade(ink: Ink, gain: float) -> Ink:
    """A brighter or darker colour of the same material."""
    red, green, blue, number = ink
    return min(255, int(red * gain)), min(255, int(green * gain)), min(255, int(blue * gain)), number


def lay_buildings(canvas: Canvas, roads: list[Road], plenty: bool) -> list[tuple[float, float, float]]:
    """Buildings along the roads, and scattered where there is room.

    Returns:
        Places (x, y, direction) of the buildings, for yards.
    """
    r, habit, scale = canvas.r, canvas.style.building, canvas.scale
    built: list[tuple[float, float, float]] = []
    step = max(habit.length[0] * 0.9 + habit.gap, 4.0) * scale
    for road in roads:
        for side in (-1, 1):
            for x, y, angle in stations(road.line, step, r.uniform(0, step)):
                if len(built) >= MAX_BUILDINGS:
                    return built
                if r.random() > (0.95 if plenty else habit.fill):
                    continue
                length, width = _size(canvas)
                walk = canvas.style.sidewalk * scale
                away = side * (road.width / 2 + walk + habit.setback * scale * r.uniform(0.8, 1.2) + width / 2)
                px, py = x - math.sin(angle) * away, y + math.cos(angle) * away
                if _build(canvas, px, py, length, width, _turned(canvas, angle)):
                    built.append((px, py, angle))
    area = canvas.width * canvas.height / (step * step)
    share = 0.5 if plenty else 0.35 * habit.fill if roads else 0.08 * habit.fill
    for _ in range(min(int(area * share) + (6 if plenty else r.randrange(2)), 160)):
        if len(built) >= MAX_BUILDINGS:
            break
        x, y = canvas.somewhere()
        length, width = _size(canvas)
        angle = _turned(canvas, canvas.style.orientation + r.choice((0, math.pi / 2)))
        if _build(canvas, x, y, length, width, angle):
            built.append((x, y, angle))
    if plenty and not built:
        _force_building(canvas)
    return built


def _force_building(canvas: Canvas) -> None:
    length, width = _size(canvas)
    x, y = canvas.width * canvas.r.uniform(0.3, 0.7), canvas.height * canvas.r.uniform(0.3, 0.7)
    draw_building(canvas, x, y, length, width, canvas.style.orientation)


def _size(canvas: Canvas) -> tuple[float, float]:
    r, habit = canvas.r, canvas.style.building
    length = r.uniform(*habit.length) * canvas.scale
    return length, length * r.uniform(*habit.aspect)


def _turned(canvas: Canvas, angle: float) -> float:
    loose = 1.0 - canvas.style.building.regularity
    return angle + canvas.r.gauss(0, 0.6) * loose


def _build(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float) -> bool:
    """Draw a building if there is room for it and its gap."""
    gap = canvas.style.building.gap * canvas.scale * 0.5
    if not canvas.has_room(rectangle(x, y, length + gap, width + gap, angle), OPEN_GROUND):
        return False
    _lay_plot(canvas, x, y, length, width, angle)
    draw_building(canvas, x, y, length, width, angle)
    return True


def _lay_plot(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float) -> None:
    """The yard of a building with its wall or hedge, where the place has plots and there is room."""
    habit, scale = canvas.style.building, canvas.scale
    if habit.yard is None:
        return
    plot = rectangle(x, y, length + 1.8 * habit.gap * scale, width + 1.8 * habit.setback * scale, angle)
    if not canvas.has_room(plot, OPEN_GROUND):
        return
    instance = canvas.new(habit.yard) if habit.yard in CLASS_ID else 0
    canvas.fill(plot, canvas.ink(habit.yard, canvas.r.uniform(0.85, 1.1)), instance)
    if habit.fence * scale >= 0.7:
        fence = canvas.ink("wall" if habit.fence < 0.7 else "leaf", 1.1)
        canvas.stroke([*plot, plot[0]], habit.fence * scale, fence, 0)


def draw_building(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float) -> None:
    """One building: shadow, walls where the view shows them, and a roof of one of the place's shapes."""
    r, habit = canvas.r, canvas.style.building
    shape = r.choices([s for s, _ in habit.shapes], [w for _, w in habit.shapes])[0]
    material = r.choices([m for m, _ in habit.roof_materials], [w for _, w in habit.roof_materials])[0]
    height = r.uniform(*habit.height)
    instance, ink = canvas.new("building"), canvas.ink(material)
    wings = [(x, y, length, width, angle)]
    if shape == "complex" or (shape in ("flat", "flat_steps") and r.random() < 0.35):
        wings.append(_wing(canvas, x, y, length, width, angle))
    for wx, wy, wl, ww, wa in wings:
        canvas.cast_shadow(rectangle(wx, wy, wl, ww, wa), height)
    for wx, wy, wl, ww, wa in wings:
        footprint = rectangle(wx, wy, wl, ww, wa)
        canvas.fill(footprint, ink, instance)
        top = canvas.raise_walls(footprint, height, canvas.ink("wall", r.uniform(0.7, 1.0)), instance)
        dx, dy = top[0][0] - footprint[0][0], top[0][1] - footprint[0][1]
        _roof(canvas, shape, top, (wx + dx, wy + dy, wl, ww, wa), ink, instance, height)
    if material == "roof_metal" and r.random() < 0.6:
        ribs = Pattern("rows", r.choice((0.5, 1.0, 2.5)), r.uniform(0.03, 0.12))
        reach = rectangle(x, y, 2 * length, 2 * length, angle)
        canvas.add_pattern(instance, reach, ribs, angle + math.pi / 2)


def _wing(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float) -> Body:
    """A second body that makes the plan an L or a T."""
    r = canvas.r
    along = r.choice((-0.5, 0.5, 0.0)) * (length - width * 0.7)
    out = r.choice((-1, 1)) * width * 0.5
    wx = x + math.cos(angle) * along - math.sin(angle) * out
    wy = y + math.sin(angle) * along + math.cos(angle) * out
    return wx, wy, width * r.uniform(0.8, 1.2), width * r.uniform(0.5, 0.75), angle + math.pi / 2


def _roof(canvas: Canvas, shape: str, top: Outline, body: Body, ink: Ink, instance: int, height: float) -> None:
    x, y, length, width, angle = body
    r = canvas.r
    small = width < 5
    if shape in ("gable", "hip", "complex") and not small:
        _pitched_roof(canvas, body, ink, instance, hipped=shape == "hip" or (shape == "complex" and r.random() < 0.6))
    elif shape == "round" and not small:
        for i in range(6):
            t = (i + 0.5) / 6 - 0.5
            strip = placed(
                [
                    (-length / 2, t * width - width / 12),
                    (length / 2, t * width - width / 12),
                    (length / 2, t * width + width / 12),
                    (-length / 2, t * width + width / 12),
                ],
                x,
                y,
                angle,
            )
            canvas.fill(strip, lit(canvas, ink, angle + math.pi / 2, 0.6 * t), instance)
    else:
        canvas.fill(top, ink, instance)
        if not small:
            edge = shade(ink, r.choice((0.75, 0.85, 1.12, 1.2)))
            canvas.stroke([*top, top[0]], max(1.0, 0.3 * canvas.scale), edge, instance)
            if shape == "court" and min(length, width) > 6:
                inner = rectangle(x, y, length * 0.4, width * 0.35, angle)
                canvas.fill(inner, canvas.ink(r.choice(("paved", "mixed_ground", "grass")), 0.75), 0)
            elif shape == "flat_steps":
                _step(canvas, body, ink, instance)
    if width > 8 and r.random() < 0.3 + canvas.style.building.clutter:
        _roof_clutter(canvas, body, pitched=shape in ("gable", "hip", "complex"))


def _pitched_roof(canvas: Canvas, body: Body, ink: Ink, instance: int, hipped: bool) -> None:
    x, y, length, width, angle = body
    a, b = length / 2, width / 2
    ridge = a - b * (0.9 if hipped else 0.0)
    if ridge < 0:
        ridge = 0.05 * a
    slope = 0.28
    planes = [
        ([(-a, -b), (a, -b), (ridge, 0), (-ridge, 0)], -math.pi / 2),
        ([(-a, b), (a, b), (ridge, 0), (-ridge, 0)], math.pi / 2),
    ]
    if hipped:
        planes += [([(a, -b), (a, b), (ridge, 0)], 0.0), ([(-a, -b), (-a, b), (-ridge, 0)], math.pi)]
    for shape, facing in planes:
        canvas.fill(placed(shape, x, y, angle), lit(canvas, ink, angle + facing, slope), instance)
    if width > 14:
        canvas.stroke(
            placed([(-ridge, 0), (ridge, 0)], x, y, angle),
            max(1.0, 0.2 * canvas.scale),
            shade(ink, canvas.r.choice((0.8, 1.15))),
        )


def _step(canvas: Canvas, body: Body, ink: Ink, instance: int) -> None:
    """A smaller storey on a flat roof."""
    x, y, length, width, angle = body
    r = canvas.r
    sl, sw = length * r.uniform(0.2, 0.65), width * r.uniform(0.3, 0.7)
    u, v = (length - sl) * r.uniform(-0.45, 0.45), (width - sw) * r.uniform(-0.45, 0.45)
    ((sx, sy),) = placed([(u, v)], x, y, angle)
    step = rectangle(sx, sy, sl, sw, angle)
    canvas.cast_shadow(step, r.uniform(1.5, 3.5))
    canvas.fill(step, shade(ink, r.uniform(0.9, 1.15)), instance)
    canvas.stroke([*step, step[0]], max(1.0, 0.25 * canvas.scale), shade(ink, 0.85), instance)


def _roof_clutter(canvas: Canvas, body: Body, pitched: bool) -> None:
    """Chimneys, skylights, ventilation and air conditioning; all part of the building."""
    x, y, length, width, angle = body
    r, scale = canvas.r, canvas.scale
    limit = 3 if pitched else 14
    for _ in range(min(limit, int(canvas.style.building.clutter * length * width / (30 * scale * scale)) + 1)):
        ((px, py),) = placed([(r.uniform(-0.42, 0.42) * length, r.uniform(-0.4, 0.4) * width)], x, y, angle)
        size = r.uniform(0.5, 1.8) * scale
        box = rectangle(px, py, size * r.uniform(1, 2.2), size, angle)
        canvas.cast_shadow(box, r.uniform(0.4, 1.5), clear=False)
        canvas.fill(box, canvas.ink(r.choice(("clutter", "wall", "glass", "marking"))), None)


def lay_roof_panels(canvas: Canvas, yards: list[tuple[float, float, float]], chance: float) -> None:
    """Solar panels on some of the roofs."""
    r, scale = canvas.r, canvas.scale
    for x, y, angle in yards:
        if r.random() < chance:
            columns, rows = r.randrange(2, 7), r.randrange(1, 4)
            off = r.uniform(-1.5, 1.5) * scale
            panel = rectangle(x + off, y - off, columns * 1.1 * scale, rows * 1.7 * scale, angle)
            if all(canvas.class_at(px, py) == CLASS_ID["building"] for px, py in panel):
                _draw_panels(canvas, panel, columns, rows)


def lay_solar_field(canvas: Canvas) -> None:
    """Rows of panels on the ground."""
    r, scale = canvas.r, canvas.scale
    rows, length, depth = r.randrange(2, 14), r.uniform(8, 60) * scale, r.uniform(2, 4.5) * scale
    pitch = depth * r.uniform(1.4, 2.6)
    angle = canvas.style.orientation + r.choice((0, math.pi / 2))
    x, y = canvas.somewhere()
    for row in range(rows):
        ((px, py),) = placed([(0, (row - rows / 2) * pitch)], x, y, angle)
        panel = rectangle(px, py, length, depth, angle)
        if canvas.has_room(panel, NATURAL_GROUND):
            canvas.cast_shadow(panel, 1.2)
            _draw_panels(canvas, panel, max(2, int(length / (1.2 * scale))), 2)


def _draw_panels(canvas: Canvas, panel: Outline, columns: int, rows: int) -> None:
    canvas.fill(panel, canvas.ink("solar", choice=0), canvas.new("solar_panel"))
    if canvas.scale > 3:
        line = canvas.ink("solar", 2.2, choice=0)
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = panel
        for i in range(1, min(columns, 60)):
            t = i / columns
            canvas.stroke([(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t), (x3 + (x2 - x3) * t, y3 + (y2 - y3) * t)], 1, line)
        for i in range(1, rows):
            t = i / rows
            canvas.stroke([(x0 + (x3 - x0) * t, y0 + (y3 - y0) * t), (x1 + (x2 - x1) * t, y1 + (y2 - y1) * t)], 1, line)


def lay_pools(canvas: Canvas, yards: list[tuple[float, float, float]], chance: float, fewest: int) -> None:
    """Pools behind some of the houses, and at least the given number anywhere on open ground."""
    r, scale = canvas.r, canvas.scale
    placed_count = 0
    reach = canvas.style.building.length[1]
    for x, y, angle in yards:
        if r.random() < chance:
            turn = r.uniform(0, math.tau)
            away = (reach * r.uniform(0.6, 1.1) + 3) * scale
            placed_count += _pool(canvas, x + away * math.cos(turn), y + away * math.sin(turn), angle, force=False)
    for attempt in range(fewest * 12):
        if placed_count >= fewest:
            break
        x, y = canvas.somewhere()
        placed_count += _pool(canvas, x, y, canvas.style.orientation, force=attempt >= fewest * 10)


def _pool(canvas: Canvas, x: float, y: float, angle: float, force: bool) -> bool:
    r, scale = canvas.r, canvas.scale
    length = r.choice((r.uniform(5, 12), r.uniform(5, 12), r.uniform(12, 26))) * scale
    width = length * r.uniform(0.35, 0.7)
    if not force and not canvas.has_room(rectangle(x, y, length * 1.3, width * 1.4, angle), OPEN_GROUND):
        return False
    kind = r.choice(("box", "box", "kidney", "round", "ell"))
    outlines = [rectangle(x, y, length, width, angle)]
    if kind == "kidney":
        outlines = [blob(r, x, y, width * 0.65, 0.25, 28, 1.5)]
    elif kind == "round":
        outlines = [blob(r, x, y, width * 0.55, 0.02, 24)]
    elif kind == "ell":
        ((px, py),) = placed([(length * 0.3, width * 0.5)], x, y, angle)
        outlines.append(rectangle(px, py, length * 0.4, width * 0.9, angle))
    deck, ink, instance = canvas.ink("sidewalk", 1.08), canvas.ink("pool"), canvas.new("swimming_pool")
    if r.random() < 0.8:
        border = 2 * r.uniform(0.4, 2.2) * scale
        for outline in outlines:
            canvas.stroke([*outline, outline[0]], border, deck, 0)
    for outline in outlines:
        canvas.fill(outline, ink, instance)
    if length > 24:
        deep = shade(ink, r.uniform(0.75, 0.95))
        canvas.fill(
            placed(
                [(-0.4 * length, -0.3 * width), (0, -0.3 * width), (0, 0.3 * width), (-0.4 * length, 0.3 * width)],
                x,
                y,
                angle,
            )
            if kind == "box"
            else outlines[0],
            deep,
        )
    return True


_COURTS = ((36, 18, "tennis"), (30, 17, "basket"), (40, 20, "basket"), (95, 60, "football"), (60, 38, "football"))
"""Length and width in metres, and the kind of the lines."""


def lay_courts(canvas: Canvas, fewest: int) -> None:
    """Tennis, basketball and football grounds with lines, side by side."""
    r, scale = canvas.r, canvas.scale
    found = 0
    for attempt in range(fewest * 8):
        if found >= fewest:
            break
        # Tiles of fine resolution have room for small courts alone.
        sizes = _COURTS if 95 * scale < 1.5 * canvas.diagonal else _COURTS[:3]
        length, width, kind = r.choice(sizes)
        angle = canvas.style.orientation + r.choice((0, math.pi / 2))
        x, y = canvas.somewhere()
        for i in range(r.choice((1, 1, 2, 3)) if kind == "tennis" else 1):
            ((px, py),) = placed([(0, i * width * scale * 1.02)], x, y, angle)
            outline = rectangle(px, py, length * scale, width * scale, angle)
            if attempt >= fewest * 7 or canvas.has_room(outline, OPEN_GROUND):
                _draw_court(canvas, px, py, length * scale, width * scale, angle, kind)
                found += 1


def _draw_court(canvas: Canvas, x: float, y: float, length: float, width: float, angle: float, kind: str) -> None:
    r, instance = canvas.r, canvas.new("sports_court")
    if kind == "football" and r.random() < 0.7:
        outer = inner = canvas.ink("grass", 1.05)
        if r.random() < 0.6:
            mown = Pattern("stripes", r.uniform(8, 14), r.uniform(0.05, 0.16))
            canvas.add_pattern(instance, rectangle(x, y, length, length, angle), mown, angle)
    else:
        outer, inner = canvas.ink("court", choice=0), canvas.ink("court", choice=r.randrange(2))
    canvas.fill(rectangle(x, y, length, width, angle), outer, instance)
    shrink = 0.68 if kind == "tennis" else 0.9
    a, b = length * shrink / 2, width * shrink / 2
    if kind == "tennis":
        b = width * 0.3
    canvas.fill(placed([(-a, -b), (a, -b), (a, b), (-a, b)], x, y, angle), inner)
    white = canvas.ink("marking", 0.92)
    thin = max(1.0, 0.12 * canvas.scale)
    lines: list[Outline] = [[(-a, -b), (a, -b), (a, b), (-a, b), (-a, -b)], [(0, -b), (0, b)]]
    if kind == "tennis":
        lines += [
            [(-a, -0.75 * b), (a, -0.75 * b)],
            [(-a, 0.75 * b), (a, 0.75 * b)],
            [(-a / 2, 0), (a / 2, 0)],
            [(-a / 2, -0.75 * b), (-a / 2, 0.75 * b)],
            [(a / 2, -0.75 * b), (a / 2, 0.75 * b)],
        ]
    else:
        lines += [
            [(-a, -b / 2), (-0.7 * a, -b / 2), (-0.7 * a, b / 2), (-a, b / 2)],
            [(a, -b / 2), (0.7 * a, -b / 2), (0.7 * a, b / 2), (a, b / 2)],
            [(0.3 * b * math.cos(t / 3), 0.3 * b * math.sin(t / 3)) for t in range(20)],
        ]
    for line in lines:
        canvas.stroke(placed(line, x, y, angle), thin, white)


def lay_tanks(canvas: Canvas, fewest: int) -> None:
    """Storage tanks in groups of equal size."""
    r, scale = canvas.r, canvas.scale
    found = 0
    for attempt in range(fewest * 8):
        if found >= fewest:
            break
        radius = r.choice((r.uniform(2, 6), r.uniform(5, 15), r.uniform(12, 28))) * scale
        radius = min(radius, canvas.diagonal * 0.35)
        pitch, angle = radius * r.uniform(2.3, 3.2), canvas.style.orientation
        x, y = canvas.somewhere()
        for i in range(r.choice((1, 2, 3))):
            for j in range(r.choice((1, 2, 3))):
                ((px, py),) = placed([(i * pitch, j * pitch)], x, y, angle)
                outline = blob(r, px, py, radius, 0.0, 40)
                if attempt >= fewest * 7 or canvas.has_room(outline, OPEN_GROUND):
                    _draw_tank(canvas, px, py, radius, outline)
                    found += 1


def _draw_tank(canvas: Canvas, x: float, y: float, radius: float, outline: Outline) -> None:
    r = canvas.r
    height = radius / canvas.scale * r.uniform(0.5, 1.2)
    instance, ink = canvas.new("storage_tank"), canvas.ink("tank")
    canvas.cast_shadow(outline, height)
    canvas.fill(outline, ink, instance)
    top = canvas.raise_walls(outline, height, shade(ink, 0.75), instance)
    x, y = x + top[0][0] - outline[0][0], y + top[0][1] - outline[0][1]
    canvas.disc(x, y, radius, ink, instance)
    kind = r.choice(("cone", "floating", "plain"))
    if radius < 5:
        return
    if kind == "cone":
        sun = math.atan2(-canvas.style.shadow[1], -canvas.style.shadow[0])
        for i in range(12):
            t0, t1 = math.tau * i / 12, math.tau * (i + 1) / 12
            wedge = [
                (x, y),
                (x + radius * math.cos(t0), y + radius * math.sin(t0)),
                (x + radius * math.cos(t1), y + radius * math.sin(t1)),
            ]
            canvas.fill(wedge, shade(ink, 1.0 + 0.12 * math.cos((t0 + t1) / 2 - sun)))
    elif kind == "floating":
        canvas.disc(x, y, radius * 0.88, shade(ink, r.uniform(0.6, 0.9)))
        canvas.ring(x, y, radius * 0.5, max(1.0, radius * 0.04), shade(ink, 0.75))
    canvas.ring(x, y, radius, max(1.0, radius * 0.05), shade(ink, r.choice((0.7, 1.15))))
    if r.random() < 0.5:
        t = r.uniform(0, math.tau)
        canvas.stroke(
            [(x, y), (x + radius * math.cos(t), y + radius * math.sin(t))], max(1.0, radius * 0.06), shade(ink, 0.7)
        )
