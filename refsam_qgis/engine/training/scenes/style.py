"""What holds for one sensor over one place: colours, textures, light, building habits and invented classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np

from .geometry import Point
from .palettes import MATERIALS, Colour, Texture, sample_colours, sample_texture
from .settlements import SETTLEMENTS, Settlement


@dataclass(frozen=True)
class Material:
    """One surface: the colours it comes in and how they vary within a surface.

    Attributes:
        number: Position in the material table.
        colours: Colours to choose from, 0..255.
        jitter: Standard deviation of the brightness between objects, as a fraction.
        texture: Amplitudes of the noise fields.
    """

    number: int
    colours: tuple[Colour, ...]
    jitter: float
    texture: Texture

    def ink(self, r: Random, light: float = 1.0, choice: int | None = None) -> tuple[int, int, int, int]:
        """A colour of this material as (red, green, blue, material number)."""
        colour = self.colours[r.randrange(len(self.colours)) if choice is None else choice % len(self.colours)]
        gain = light * max(0.3, 1.0 + r.gauss(0, self.jitter))
        red, green, blue = (max(0, min(255, round(c * gain))) for c in colour)
        return red, green, blue, self.number


@dataclass(frozen=True)
class Pattern:
    """A regular pattern on a surface.

    Attributes:
        kind: ``rows``, ``stripes``, ``grid``, ``checker``, ``dots`` or ``speckle``.
        period: Metres.
        amplitude: Change of the brightness, as a fraction.
        tint: Second colour mixed in by the pattern, or None for a change of brightness alone.
    """

    kind: str
    period: float
    amplitude: float
    tint: Colour | None = None


@dataclass(frozen=True)
class NovelPart:
    """One primitive of an invented object, in units of the object's radius.

    Attributes:
        kind: ``polygon``, ``ring`` or ``stroke``.
        points: Outline or line; for a ring its centre.
        size: Radius of a ring, or width of a stroke.
        width: Width of a ring's band.
        choice: Which colour of the material.
    """

    kind: str
    points: tuple[Point, ...]
    size: float
    width: float
    choice: int


@dataclass(frozen=True)
class NovelObject:
    """How an invented class of objects looks.

    Attributes:
        parts: Primitives, drawn in order.
        radius: Smallest and largest radius in metres.
        height: Metres, for the shadow; 0 without one.
        aligned: Whether all objects share the orientation of the place.
        usual_count: Upper limit of the number in a tile.
        pattern: Pattern on the object, if any.
    """

    parts: tuple[NovelPart, ...]
    radius: tuple[float, float]
    height: float
    aligned: bool
    usual_count: int
    pattern: Pattern | None


@dataclass(frozen=True)
class NovelGround:
    """How an invented class of ground looks.

    Attributes:
        pattern: Pattern on the ground, if any.
        regular: Straight-edged patches instead of irregular ones.
        radius: Mean radius in metres.
    """

    pattern: Pattern | None
    regular: bool
    radius: float


@dataclass(frozen=True)
class BuildingHabit:
    """How people build here; lengths in metres.

    Attributes:
        length: Smallest and largest length of a building.
        aspect: Smallest and largest width over length.
        height: Smallest and largest height.
        shapes: Roof shapes with weights: flat, gable, hip, complex, court, round.
        clutter: Density of roof clutter, 0..1.
        setback: Distance from the road's edge.
        gap: Distance between neighbours.
        fill: Share of the lots that are built on.
        regularity: 1 for strict alignment with the road, 0 for none.
        roof_materials: Material names with weights.
        yard: Material of the plots around buildings, or None where there are no marked plots.
        fence: Width of walls or hedges around plots; 0 for none.
    """

    length: tuple[float, float]
    aspect: tuple[float, float]
    height: tuple[float, float]
    shapes: tuple[tuple[str, float], ...]
    clutter: float
    setback: float
    gap: float
    fill: float
    regularity: float
    roof_materials: tuple[tuple[str, float], ...]
    yard: str | None
    fence: float


@dataclass(frozen=True)
class Sensor:
    """How the instrument and its processing change the picture.

    Attributes:
        blur: Radius of the point spread in pixels.
        haze: Share of the path radiance, 0..0.4.
        haze_colour: Its colour, 0..255.
        cast: Gains of red, green and blue.
        gain: Exposure.
        gamma: Exponent applied to the brightness.
        contrast: Gain around mid-grey.
        saturation: 1 as is, 0 grey.
        noise: Standard deviation in grey levels.
        sharpen: Strength of the unsharp mask of the processing, in percent; 0 for none.
        jpeg_quality: 0 for no compression.
    """

    blur: float
    haze: float
    haze_colour: Colour
    cast: Colour
    gain: float
    gamma: float
    contrast: float
    saturation: float
    noise: float
    sharpen: int
    jpeg_quality: int


@dataclass(frozen=True)
class SceneStyle:
    """Everything that the tiles of one sensor over one place share.

    Attributes:
        gsd: Ground size of a pixel in metres.
        settlement: Kind of place.
        materials: Surfaces by name.
        building: Building habits.
        sensor: The instrument.
        shadow: Offset (x, y) of a shadow per metre of height, in metres.
        shadow_depth: Share of the light that a shadow takes, 0..1.
        lean: Offset (x, y) of a roof per metre of height, from the oblique view.
        orientation: Main direction of streets in radians.
        road_width: Width of ordinary roads in metres.
        road_spacing: Distances between streets in metres, along and across.
        road_bend: Amplitude of the bends of streets, as a fraction of the spacing.
        sidewalk: Width of the walk along roads in metres; 0 for none.
        lane_marks: Whether roads carry markings.
        crown_radius: Smallest and largest radius of tree crowns in metres.
        ground_zoom: Pixels per cell of the ground's noise fields.
        novel_object: The invented class of objects.
        novel_ground: The invented class of ground.
    """

    gsd: float
    settlement: Settlement
    materials: Mapping[str, Material]
    building: BuildingHabit
    sensor: Sensor
    shadow: Point
    shadow_depth: float
    lean: Point
    orientation: float
    road_width: float
    road_spacing: tuple[float, float]
    road_bend: float
    sidewalk: float
    lane_marks: bool
    crown_radius: tuple[float, float]
    ground_zoom: float
    novel_object: NovelObject
    novel_ground: NovelGround


def sample_style(rng: np.random.Generator, gsd: float | None = None) -> SceneStyle:
    """Draw a sensor and a place.

    Args:
        rng: Source of randomness.
        gsd: Ground size of a pixel in metres, 0.05..5; None draws 0.1..2 with equal chance per octave.

    Returns:
        The style, to be used for any number of tiles.
    """
    r = Random(int(rng.integers(2**62)))
    size = gsd if gsd is not None else math.exp(r.uniform(math.log(0.1), math.log(2.0)))
    settlement = SETTLEMENTS[r.randrange(len(SETTLEMENTS))]
    materials = {
        name: Material(number, sample_colours(r, name, settlement.arid), r.uniform(0.02, 0.12), sample_texture(r, name))
        for number, name in enumerate(MATERIALS)
    }
    azimuth = r.uniform(0, math.tau)
    shadow_length = 1.0 / math.tan(math.radians(r.uniform(28, 75)))
    lean_angle, lean = r.uniform(0, math.tau), abs(r.gauss(0, 0.14))
    spacing = r.uniform(*settlement.road_spacing)
    crown = r.uniform(1.2, 4.0)
    return SceneStyle(
        gsd=size,
        settlement=settlement,
        materials=materials,
        building=_building_habit(r, settlement),
        sensor=_sensor(r),
        shadow=(math.cos(azimuth) * shadow_length, math.sin(azimuth) * shadow_length),
        shadow_depth=r.uniform(0.45, 0.88),
        lean=(math.cos(lean_angle) * lean, math.sin(lean_angle) * lean),
        orientation=r.uniform(0, math.pi),
        road_width=r.uniform(4.5, 12.0),
        road_spacing=(spacing, spacing * r.uniform(0.8, 2.5)),
        road_bend=r.choice((0.0, 0.0, r.uniform(0.02, 0.1), r.uniform(0.1, 0.35))),
        sidewalk=r.choice((0.0, r.uniform(0.8, 3.0))),
        lane_marks=r.random() < 0.65,
        crown_radius=(crown * 0.6, crown * r.uniform(1.1, 2.0)),
        ground_zoom=r.uniform(0.7, 3.0),
        novel_object=_novel_object(r, size),
        novel_ground=_novel_ground(r, size),
    )


def _weighted(r: Random, names: tuple[str, ...], spread: float = 2.0) -> tuple[tuple[str, float], ...]:
    """Names with weights far from equal, so that places differ in what dominates."""
    return tuple((name, r.random() ** spread + 0.01) for name in names)


def _building_habit(r: Random, settlement: Settlement) -> BuildingHabit:
    shortest = r.uniform(*settlement.building_length)
    lowest = r.uniform(*settlement.building_height)
    return BuildingHabit(
        length=(shortest, shortest * r.uniform(1.2, 2.2)),
        aspect=(r.uniform(0.35, 0.6), r.uniform(0.65, 1.0)),
        height=(lowest, lowest * r.uniform(1.1, 2.5)),
        shapes=_weighted(r, settlement.roof_shapes),
        clutter=r.random(),
        setback=r.uniform(*settlement.setback),
        gap=r.uniform(0.5, 1.0) * settlement.gap,
        fill=min(1.0, settlement.fill * r.uniform(0.7, 1.2)),
        regularity=r.uniform(0.75, 1.0) if r.random() < 0.85 else r.uniform(0.0, 0.6),
        roof_materials=_weighted(r, settlement.roof_materials),
        yard=r.choice((None, None, "grass", "paved", "mixed_ground", "bare_soil")),
        fence=r.choice((0.0, r.uniform(0.3, 1.0))),
    )


def _sensor(r: Random) -> Sensor:
    grey = r.random() < 0.05
    warmth, tint = r.gauss(0, 0.06), r.gauss(0, 0.03)
    return Sensor(
        blur=r.choice((0.0, r.uniform(0.2, 0.6), r.uniform(0.4, 1.1))),
        haze=max(0.0, r.gauss(0.05, 0.07)),
        haze_colour=(r.uniform(130, 200), r.uniform(150, 210), r.uniform(170, 230)),
        cast=(1 + warmth, 1 + tint, 1 - warmth),
        gain=math.exp(r.gauss(0.08, 0.13)),
        gamma=math.exp(r.gauss(-0.05, 0.13)),
        contrast=math.exp(r.gauss(0.08, 0.16)),
        saturation=0.05 if grey else r.choice((1.0, r.uniform(0.45, 1.0), r.uniform(0.9, 1.5))),
        noise=r.choice((0.0, r.uniform(0.5, 3.0), r.uniform(1.0, 7.0))),
        sharpen=r.choice((0, 0, r.randrange(40, 160))),
        jpeg_quality=r.choice((0, 0, r.randrange(70, 96), r.randrange(40, 85))),
    )


def _pattern(r: Random, gsd: float, coloured: bool) -> Pattern:
    tint = (r.uniform(10, 245), r.uniform(10, 245), r.uniform(10, 245)) if coloured else None
    return Pattern(
        kind=r.choice(("rows", "stripes", "grid", "checker", "dots", "speckle")),
        period=gsd * math.exp(r.uniform(math.log(2.5), math.log(24))),
        amplitude=r.uniform(0.15, 0.6),
        tint=tint,
    )


def _novel_object(r: Random, gsd: float) -> NovelObject:
    radius = gsd * math.exp(r.uniform(math.log(1.5), math.log(32)))
    pattern = _pattern(r, min(gsd, radius / 8), r.random() < 0.5) if r.random() < 0.3 else None
    return NovelObject(
        parts=tuple(_novel_part(r, first=index == 0) for index in range(r.choice((1, 1, 2, 2, 3, 4)))),
        radius=(radius * r.uniform(0.6, 1.0), radius * r.uniform(1.0, 1.6)),
        height=r.choice((0.0, radius * r.uniform(0.2, 1.5))),
        aligned=r.random() < 0.4,
        usual_count=r.choice((0, 3, 8, 20, 40)),
        pattern=pattern,
    )


def _novel_part(r: Random, first: bool) -> NovelPart:
    """One primitive; the first is centred and large, later ones are details or attachments."""
    reach = 1.0 if first else r.uniform(0.25, 0.8)
    x, y = (0.0, 0.0) if first else (r.uniform(-0.7, 0.7), r.uniform(-0.7, 0.7))
    choice = r.randrange(8)
    shape = r.choice(("polygon", "star", "cross", "ell", "tee", "cup", "bar", "lobes", "ring", "arc", "wave", "disc"))
    if shape == "ring":
        return NovelPart("ring", ((x, y),), reach, reach * r.uniform(0.2, 0.6), choice)
    if shape == "arc":
        begin, sweep = r.uniform(0, math.tau), r.uniform(1.5, 5.0)
        arc = [begin + sweep * i / 12 for i in range(13)]
        points = tuple((x + reach * math.cos(t), y + reach * math.sin(t)) for t in arc)
        return NovelPart("stroke", points, reach * r.uniform(0.2, 0.5), 0.0, choice)
    if shape == "wave":
        turns, swing = r.uniform(1, 3), r.uniform(0.2, 0.6)
        steps = [i / 8 - 1 for i in range(17)]
        points = tuple((x + reach * t, y + reach * swing * math.sin(turns * t * math.pi)) for t in steps)
        return NovelPart("stroke", points, reach * r.uniform(0.2, 0.4), 0.0, choice)
    outline = _novel_outline(r, shape)
    return NovelPart("polygon", tuple((x + px * reach, y + py * reach) for px, py in outline), 0.0, 0.0, choice)


def _novel_outline(r: Random, shape: str) -> list[Point]:
    """Outline of a filled primitive within the unit circle."""
    t = r.uniform(0.15, 0.4)
    fixed: dict[str, list[Point]] = {
        "cross": [
            (-1, -t),
            (-t, -t),
            (-t, -1),
            (t, -1),
            (t, -t),
            (1, -t),
            (1, t),
            (t, t),
            (t, 1),
            (-t, 1),
            (-t, t),
            (-1, t),
        ],
        "ell": [(-1, -1), (1, -1), (1, -1 + 2 * t), (-1 + 2 * t, -1 + 2 * t), (-1 + 2 * t, 1), (-1, 1)],
        "tee": [
            (-1, -1),
            (1, -1),
            (1, -1 + 2 * t),
            (t, -1 + 2 * t),
            (t, 1),
            (-t, 1),
            (-t, -1 + 2 * t),
            (-1, -1 + 2 * t),
        ],
        "cup": [
            (-1, -1),
            (-1 + 2 * t, -1),
            (-1 + 2 * t, 1 - 2 * t),
            (1 - 2 * t, 1 - 2 * t),
            (1 - 2 * t, -1),
            (1, -1),
            (1, 1),
            (-1, 1),
        ],
        "bar": [(-1, -t), (1, -t), (1, t), (-1, t)],
    }
    if shape in fixed:
        return fixed[shape]
    corners = {"polygon": r.randrange(3, 8), "star": 2 * r.randrange(3, 9)}.get(shape, 24)
    notch, lobes, depth = r.uniform(0.35, 0.75), r.randrange(2, 7), r.uniform(0.1, 0.4)
    flat = r.uniform(0.4, 1.0)
    outline = []
    for i in range(corners):
        angle = math.tau * i / corners
        d = 1.0
        if shape == "star" and i % 2:
            d = notch
        elif shape == "lobes":
            d = 1.0 - depth + depth * math.cos(lobes * angle)
        outline.append((d * math.cos(angle), d * math.sin(angle) * flat))
    return outline


def _novel_ground(r: Random, gsd: float) -> NovelGround:
    return NovelGround(
        pattern=_pattern(r, gsd, r.random() < 0.7) if r.random() < 0.75 else None,
        regular=r.random() < 0.4,
        radius=gsd * math.exp(r.uniform(math.log(12), math.log(90))),
    )
