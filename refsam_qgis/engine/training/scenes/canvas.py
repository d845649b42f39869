"""The drawing surface of a scene: colours with materials, object numbers and shadows, drawn together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from .classes import CLASS_ID
from .geometry import Outline, Point, probes
from .style import Pattern, SceneStyle

Ink = tuple[int, int, int, int]

SUPERSAMPLING = 2


@dataclass(frozen=True)
class PlacedPattern:
    """A pattern on one object: which object, where (pixels of the canvas), and the turn of the pattern."""

    instance: int
    box: tuple[float, float, float, float]
    pattern: Pattern
    angle: float


@dataclass
class Canvas:
    """Four layers that are drawn together; coordinates are canvas pixels, ``SUPERSAMPLING`` per pixel of the tile.

    Attributes:
        style: The place.
        r: Source of randomness of the layout.
        colours: RGBA; the fourth channel holds the number of the material.
        labels: Object numbers ("I").
        shadows: 255 where the sun is blocked ("L").
        scale: Canvas pixels per metre.
        class_of: Class id of each object number; number 0 is nothing.
        patterns: Patterns to be applied to the finished colours.
    """

    style: SceneStyle
    r: Random
    colours: Image.Image
    labels: Image.Image
    scale: float
    class_of: list[int] = field(default_factory=lambda: [0])
    patterns: list[PlacedPattern] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.shadows = Image.new("L", self.colours.size)
        self._paint = ImageDraw.Draw(self.colours)
        self._number = ImageDraw.Draw(self.labels)
        self._shade = ImageDraw.Draw(self.shadows)
        self._pixels: Any = self.labels.load()
        self.width, self.height = self.colours.size

    def new(self, name: str) -> int:
        """A fresh object number of the named class."""
        self.class_of.append(CLASS_ID[name])
        return len(self.class_of) - 1

    def ink(self, material: str, light: float = 1.0, choice: int | None = None) -> Ink:
        """A colour of a material of the place."""
        return self.style.materials[material].ink(self.r, light, choice)

    def fill(self, outline: Sequence[Point], ink: Ink, instance: int | None = None) -> None:
        """Fill an outline; without an object number the labels stay."""
        self._paint.polygon(outline, fill=ink)
        if instance is not None:
            self._number.polygon(outline, fill=instance)

    def stroke(self, line: Sequence[Point], width: float, ink: Ink, instance: int | None = None) -> None:
        """Draw a line with round joints."""
        thickness = max(1, round(width))
        joint = "curve" if thickness > 3 and len(line) > 2 else None
        self._paint.line(line, fill=ink, width=thickness, joint=joint)
        if instance is not None:
            self._number.line(line, fill=instance, width=thickness, joint=joint)

    def disc(self, x: float, y: float, radius: float, ink: Ink, instance: int | None = None) -> None:
        """Fill a circle."""
        box = (x - radius, y - radius, x + radius, y + radius)
        self._paint.ellipse(box, fill=ink)
        if instance is not None:
            self._number.ellipse(box, fill=instance)

    def ring(self, x: float, y: float, radius: float, width: float, ink: Ink, instance: int | None = None) -> None:
        """Draw a circle's band, inside the radius."""
        box = (x - radius, y - radius, x + radius, y + radius)
        thickness = max(1, round(width))
        self._paint.ellipse(box, outline=ink, width=thickness)
        if instance is not None:
            self._number.ellipse(box, outline=instance, width=thickness)

    def cast_shadow(self, outline: Sequence[Point], height: float, clear: bool = True) -> None:
        """Block the sun behind an upright body.

        Args:
            outline: Footprint.
            height: Metres.
            clear: Whether the body's own top lies in the sun whatever stands around it.
        """
        dx, dy = (d * height * self.scale for d in self.style.shadow)
        if abs(dx) + abs(dy) >= 1.0:
            self._sweep(self._shade, outline, dx, dy, 255)
        if clear:
            self.lighten(outline)

    def darken(self, outline: Sequence[Point]) -> None:
        """Block the sun within an outline on the ground."""
        self._shade.polygon(outline, fill=255)

    def lighten(self, outline: Sequence[Point]) -> None:
        """Let the sun reach what stands above the shadows around it."""
        self._shade.polygon(outline, fill=0)

    def raise_walls(self, outline: Sequence[Point], height: float, ink: Ink, instance: int) -> Outline:
        """Draw the walls that an oblique view shows.

        Returns:
            The outline of the top, displaced by the view.
        """
        dx, dy = (d * height * self.scale for d in self.style.lean)
        if abs(dx) + abs(dy) < 1.0:
            return list(outline)
        self._sweep(self._paint, outline, dx, dy, ink)
        self._sweep(self._number, outline, dx, dy, instance)
        self._sweep(self._shade, outline, dx, dy, 0)
        return [(x + dx, y + dy) for x, y in outline]

    @staticmethod
    def _sweep(draw: ImageDraw.ImageDraw, outline: Sequence[Point], dx: float, dy: float, ink: int | Ink) -> None:
        """Fill all that an outline covers while it moves by (dx, dy)."""
        x0, y0 = outline[-1]
        for x1, y1 in outline:
            # The edges on one side sweep all that the moved outline itself does not cover.
            if (x1 - x0) * dy > (y1 - y0) * dx:
                draw.polygon(((x0, y0), (x1, y1), (x1 + dx, y1 + dy), (x0 + dx, y0 + dy)), fill=ink)
            x0, y0 = x1, y1
        draw.polygon([(x + dx, y + dy) for x, y in outline], fill=ink)

    def add_pattern(self, instance: int, outline: Sequence[Point], pattern: Pattern, angle: float) -> None:
        """Remember a pattern on an object that lies within the outline."""
        xs, ys = [p[0] for p in outline], [p[1] for p in outline]
        self.patterns.append(PlacedPattern(instance, (min(xs), min(ys), max(xs), max(ys)), pattern, angle))

    def class_at(self, x: float, y: float) -> int:
        """Class id under a point, -1 outside."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return -1
        number: int = self._pixels[int(x), int(y)]
        return self.class_of[number]

    def has_room(self, outline: Sequence[Point], allowed: frozenset[int]) -> bool:
        """Whether an outline lies on allowed classes alone, as far as it lies in the tile at all."""
        inside = False
        for x, y in probes(outline):
            found = self.class_at(x, y)
            if found >= 0:
                inside = True
                if found not in allowed:
                    return False
        return inside

    def somewhere(self, margin: float = 0.0) -> Point:
        """A random point in the tile, a margin (canvas pixels) beyond its edges included."""
        return self.r.uniform(-margin, self.width + margin), self.r.uniform(-margin, self.height + margin)

    @property
    def diagonal(self) -> float:
        """Half of the diagonal of the canvas in pixels."""
        return math.hypot(self.width, self.height) / 2


def ids(*names: str) -> frozenset[int]:
    """Class ids of names."""
    return frozenset(CLASS_ID[name] for name in names)


OPEN_GROUND = ids("background", "bare_soil", "grass", "paved")
"""Where things can be built or put."""

NATURAL_GROUND = ids("background", "bare_soil", "grass")
