"""Roads, railways and car parks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .canvas import OPEN_GROUND, Canvas
from .geometry import Outline, bezier, offset_line, placed, rectangle, stations


@dataclass(frozen=True)
class Road:
    """A road's middle line and width in canvas pixels."""

    line: Outline
    width: float
    lanes: int


@dataclass(frozen=True)
class CarPark:
    """A car park: the stalls (x, y, direction) in canvas pixels."""

    stalls: tuple[tuple[float, float, float], ...]


def plan_roads(canvas: Canvas, wanted: bool) -> list[Road]:
    """Choose the road network of the tile.

    Args:
        canvas: The tile.
        wanted: Whether there must be roads.
    """
    r, style = canvas.r, canvas.style
    grid, winding, motorway = style.settlement.roads
    draw = r.random()
    roads: list[Road] = []
    if draw < grid:
        roads = _grid(canvas)
    elif draw < grid + winding or (wanted and draw >= grid + winding + motorway):
        roads = [_winding(canvas, style.road_width * r.uniform(0.6, 1.2)) for _ in range(r.choice((1, 1, 2, 3)))]
    if draw < grid + winding + motorway and (draw >= grid + winding or r.random() < 0.12):
        roads += _motorway(canvas)
    return roads


def _grid(canvas: Canvas) -> list[Road]:
    """Parallel and cross streets around the main direction, bent by a common slow wave."""
    r, style, reach = canvas.r, canvas.style, canvas.diagonal * 1.15
    along, across = (spacing * canvas.scale for spacing in style.road_spacing)
    bend, wave = style.road_bend * along, math.pi / max(along, across) * r.uniform(0.5, 1.0)
    phase = (r.uniform(0, math.tau), r.uniform(0, math.tau))
    cx, cy = canvas.width / 2, canvas.height / 2

    def warped(x: float, y: float) -> tuple[float, float]:
        return x + bend * math.sin(wave * y + phase[0]), y + bend * math.sin(wave * x + phase[1])

    steps = 28 if bend else 8
    roads = []
    for spacing, upright, skipped in ((along, False, 0.08), (across, True, 0.2)):
        position = -reach + r.uniform(0, spacing)
        while position < reach:
            if r.random() > skipped:
                begin, end = -reach, reach
                if r.random() < 0.15:
                    begin, end = sorted((r.uniform(-reach, reach), r.uniform(-reach, reach)))
                points = [begin + (end - begin) * i / steps for i in range(steps + 1)]
                shape = [warped(position, t) if upright else warped(t, position) for t in points]
                main = r.random() < 0.2
                width = style.road_width * (1.7 if main else 1.0) * canvas.scale
                roads.append(Road(placed(shape, cx, cy, style.orientation), width, 4 if main else 2))
            position += spacing * r.uniform(0.8, 1.25)
    return roads


def _winding(canvas: Canvas, width: float) -> Road:
    r, d = canvas.r, canvas.diagonal * 1.3
    turn = r.uniform(0, math.tau)
    shape = [
        (-d, r.uniform(-d, d) * 0.6),
        (-d * 0.4, r.uniform(-d, d) * 0.8),
        (d * 0.4, r.uniform(-d, d) * 0.8),
        (d, r.uniform(-d, d) * 0.6),
    ]
    a, b, c, e = placed(shape, canvas.width / 2, canvas.height / 2, turn)
    return Road(bezier(a, b, c, e, 30), width * canvas.scale, 2)


def _motorway(canvas: Canvas) -> list[Road]:
    """Two parallel carriageways with a median."""
    r = canvas.r
    width = r.uniform(10, 18)
    middle = _winding(canvas, width)
    apart = (width / 2 + r.uniform(1, 5)) * canvas.scale
    return [Road(offset_line(middle.line, side * apart), middle.width, 4) for side in (-1, 1)]


def lay_roads(canvas: Canvas, roads: list[Road]) -> None:
    """Draw walks, asphalt and markings of all roads, so that junctions merge."""
    r, style, scale = canvas.r, canvas.style, canvas.scale
    if not roads:
        return
    instance = canvas.new("road")
    unpaved = style.settlement.name in ("rural", "forest", "desert") and r.random() < 0.4
    surface = canvas.ink("track" if unpaved else "asphalt")
    walk = 0.0 if unpaved else style.sidewalk * scale
    if walk >= 1:
        pavement, kerb = canvas.new("paved"), canvas.ink("sidewalk")
        for road in roads:
            canvas.stroke(road.line, road.width + 2 * walk, kerb, pavement)
    for road in roads:
        canvas.stroke(road.line, road.width, surface, instance)
    if unpaved:
        rut = canvas.ink("grass", 0.9)
        for road in roads:
            if r.random() < 0.3:
                canvas.stroke(road.line, max(1.0, 0.8 * scale), rut)
        return
    _wear(canvas, roads, surface)
    if style.lane_marks and 0.15 * scale > 0.12:
        _mark(canvas, roads)


def _wear(canvas: Canvas, roads: list[Road], surface: tuple[int, int, int, int]) -> None:
    """Darker or lighter wheel tracks and repaired patches."""
    r = canvas.r
    red, green, blue, number = surface
    for road in roads:
        if road.width < 6:
            continue
        lighter = r.choice((0.92, 0.95, 1.05, 1.1))
        tone = (min(255, int(red * lighter)), min(255, int(green * lighter)), min(255, int(blue * lighter)), number)
        for side in (-0.28, 0.28):
            canvas.stroke(offset_line(road.line, side * road.width), road.width * 0.2, tone)
        for x, y, angle in stations(road.line, road.width * 9, r.uniform(0, 9) * road.width):
            if r.random() < 0.3:
                tone = canvas.ink("asphalt", r.uniform(0.8, 1.0))
                length, width = road.width * r.uniform(0.2, 1.5), road.width * r.uniform(0.15, 0.45)
                canvas.fill(rectangle(x, y, length, width, angle), tone)


def _mark(canvas: Canvas, roads: list[Road]) -> None:
    """Edge lines, lane dashes, and bare junctions with zebra crossings left to chance."""
    r, scale = canvas.r, canvas.scale
    white = canvas.ink("marking", min(1.0, 0.6 + 0.15 * scale))
    line_width = max(1.0, 0.18 * scale)
    for road in roads:
        if road.width < 8:
            continue
        lanes = [(i / road.lanes - 0.5) * road.width for i in range(1, road.lanes)]
        for lane in lanes:
            line = offset_line(road.line, lane)
            for x, y, angle in stations(line, 9 * scale, r.uniform(0, 9) * scale):
                dx, dy = math.cos(angle) * 1.7 * scale, math.sin(angle) * 1.7 * scale
                canvas.stroke([(x - dx, y - dy), (x + dx, y + dy)], line_width, white)
        if road.lanes > 2:
            for side in (-0.46, 0.46):
                canvas.stroke(offset_line(road.line, side * road.width), line_width, white)
        if scale > 2 and r.random() < 0.5:
            places = stations(road.line, 60 * scale, r.uniform(0, 60) * scale)
            for x, y, angle in places[:4]:
                _zebra(canvas, x, y, angle, road.width, white)


def _zebra(canvas: Canvas, x: float, y: float, angle: float, width: float, white: tuple[int, int, int, int]) -> None:
    bars = max(3, int(width / (1.1 * canvas.scale)))
    for i in range(bars):
        t = ((i + 0.5) / bars - 0.5) * width
        px, py = x - math.sin(angle) * t, y + math.cos(angle) * t
        canvas.fill(rectangle(px, py, 3 * canvas.scale, width / bars * 0.5, angle), white)


def lay_railway(canvas: Canvas) -> None:
    """One to six parallel tracks on ballast."""
    r, scale = canvas.r, canvas.scale
    road = _winding(canvas, 1.0)
    tracks = r.choice((1, 2, 2, 4, 6))
    gauge, gap = 1.5 * scale, 4.5 * scale
    canvas.stroke(road.line, tracks * gap + scale, canvas.ink("rail"), canvas.new("railway"))
    for track in range(tracks):
        middle = offset_line(road.line, (track - (tracks - 1) / 2) * gap)
        if scale > 3:
            tie = canvas.ink("rail", 0.75)
            for x, y, angle in stations(middle, 0.7 * scale)[:900]:
                canvas.fill(rectangle(x, y, 0.3 * scale, 2.5 * scale, angle), tie)
        for side in (-0.5, 0.5):
            canvas.stroke(offset_line(middle, side * gauge), max(1.0, 0.12 * scale), canvas.ink("rail", 1.35))


def lay_car_park(canvas: Canvas, anywhere: bool) -> CarPark | None:
    """A paved lot with rows of stalls.

    Args:
        canvas: The tile.
        anywhere: Whether to build it over whatever is there.

    Returns:
        The lot, or None where there was no room.
    """
    r, scale = canvas.r, canvas.scale
    rows, stalls = r.randrange(1, 5), r.randrange(5, 22)
    length, width = stalls * 2.6 * scale, rows * 8.0 * scale
    angle = canvas.style.orientation + r.choice((0, math.pi / 2))
    x, y = canvas.somewhere()
    outline = rectangle(x, y, length + 4 * scale, width + 3 * scale, angle)
    if not anywhere and not canvas.has_room(outline, OPEN_GROUND):
        return None
    instance = canvas.new("paved")
    canvas.fill(outline, canvas.ink(r.choice(("asphalt", "paved"))), instance)
    white = canvas.ink("marking", 0.9)
    places = []
    c, s = math.cos(angle), math.sin(angle)
    for row in range(rows):
        v = ((row + 0.5) / rows - 0.5) * width
        for stall in range(stalls):
            u = ((stall + 0.5) / stalls - 0.5) * length
            px, py = x + u * c - v * s, y + u * s + v * c
            places.append((px, py, angle + math.pi / 2))
            if scale > 2:
                ux, uy = px + 1.3 * scale * c, py + 1.3 * scale * s
                dx, dy = 2.5 * scale * s, 2.5 * scale * c
                canvas.stroke([(ux + dx, uy - dy), (ux - dx, uy + dy)], max(1.0, 0.12 * scale), white)
    return CarPark(tuple(places))
