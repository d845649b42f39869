"""Colours and textures that surfaces take in aerial pictures."""

from __future__ import annotations

import colorsys
from random import Random
from typing import NamedTuple

Colour = tuple[float, float, float]


class Texture(NamedTuple):
    """Amplitudes of the noise fields on a surface, as fractions of its brightness; ``chroma`` in grey levels."""

    patchy: float
    mottle: float
    grain: float
    ripple: float
    canopy: float
    chroma: float


class _Recipe(NamedTuple):
    """Typical colours of a surface, how many of them a place uses, and the upper limits of its texture."""

    colours: tuple[Colour, ...]
    kept: tuple[int, int]
    texture: Texture


_ANY: tuple[Colour, ...] = ()

_GREYS: tuple[Colour, ...] = ((70, 70, 72), (100, 100, 102), (130, 130, 128), (160, 158, 154), (190, 188, 184))

_RECIPES: dict[str, _Recipe] = {
    "bare_soil": _Recipe(
        (
            (150, 125, 95),
            (175, 150, 118),
            (196, 178, 150),
            (210, 198, 178),
            (140, 104, 76),
            (120, 96, 74),
            (205, 205, 202),
            (165, 92, 62),
            (108, 92, 78),
        ),
        (1, 2),
        Texture(0.12, 0.13, 0.09, 0.06, 0.0, 8),
    ),
    "grass": _Recipe(
        ((74, 98, 54), (92, 112, 62), (110, 124, 74), (128, 132, 84), (60, 84, 44), (138, 134, 96), (84, 122, 58)),
        (1, 2),
        Texture(0.12, 0.13, 0.10, 0.0, 0.03, 9),
    ),
    "mixed_ground": _Recipe(
        ((130, 126, 104), (112, 110, 90), (150, 144, 126), (122, 122, 116), (98, 96, 78), (170, 164, 150)),
        (1, 2),
        Texture(0.14, 0.16, 0.11, 0.0, 0.0, 9),
    ),
    "paved": _Recipe((*_GREYS, (176, 166, 150), (150, 140, 130)), (1, 2), Texture(0.06, 0.07, 0.05, 0.0, 0.0, 3)),
    "asphalt": _Recipe(
        ((62, 62, 64), (80, 80, 82), (98, 97, 96), (116, 114, 112), (136, 133, 130), (92, 82, 78), (50, 52, 58)),
        (1, 2),
        Texture(0.06, 0.05, 0.05, 0.02, 0.0, 2),
    ),
    "track": _Recipe(
        ((190, 176, 150), (170, 150, 122), (150, 124, 96), (206, 200, 188)),
        (1, 1),
        Texture(0.08, 0.1, 0.07, 0.0, 0.0, 4),
    ),
    "sidewalk": _Recipe(
        ((150, 148, 144), (176, 172, 166), (196, 186, 172), (160, 138, 124)),
        (1, 1),
        Texture(0.04, 0.05, 0.04, 0.0, 0.0, 2),
    ),
    "marking": _Recipe(((225, 225, 222), (235, 235, 230)), (1, 1), Texture(0.0, 0.05, 0.04, 0.0, 0.0, 0)),
    "water": _Recipe(
        (
            (22, 34, 42),
            (30, 52, 64),
            (38, 68, 84),
            (44, 82, 78),
            (58, 84, 66),
            (86, 96, 76),
            (20, 22, 26),
            (26, 70, 40),
            (60, 110, 126),
            (110, 112, 88),
        ),
        (1, 1),
        Texture(0.09, 0.05, 0.05, 0.08, 0.0, 4),
    ),
    "shallow": _Recipe(
        ((80, 130, 126), (120, 136, 112), (96, 104, 84), (70, 96, 96)), (1, 1), Texture(0.08, 0.06, 0.04, 0.06, 0.0, 4)
    ),
    "leaf": _Recipe(
        ((44, 66, 36), (56, 80, 42), (68, 92, 50), (36, 56, 36), (82, 98, 54), (96, 104, 62), (50, 62, 44)),
        (2, 4),
        Texture(0.08, 0.16, 0.16, 0.0, 0.0, 6),
    ),
    "wood": _Recipe(
        ((38, 60, 34), (50, 74, 40), (60, 82, 46), (34, 50, 36), (74, 88, 52), (92, 88, 56)),
        (1, 2),
        Texture(0.10, 0.1, 0.14, 0.0, 0.36, 7),
    ),
    "crop": _Recipe(
        (
            (92, 118, 60),
            (120, 134, 72),
            (150, 142, 92),
            (180, 164, 112),
            (70, 104, 52),
            (128, 104, 78),
            (100, 84, 66),
            (160, 168, 96),
            (196, 182, 128),
            (84, 92, 60),
        ),
        (3, 6),
        Texture(0.07, 0.06, 0.06, 0.0, 0.0, 5),
    ),
    "roof_concrete": _Recipe(
        ((190, 186, 180), (210, 206, 200), (160, 156, 150), (226, 224, 220), (176, 164, 148)),
        (2, 4),
        Texture(0.05, 0.08, 0.04, 0.0, 0.0, 2),
    ),
    "roof_tile": _Recipe(
        ((168, 92, 66), (150, 78, 58), (184, 112, 82), (140, 88, 72), (196, 128, 92), (120, 72, 60)),
        (2, 3),
        Texture(0.04, 0.07, 0.06, 0.0, 0.0, 3),
    ),
    "roof_dark": _Recipe(
        ((70, 70, 74), (88, 86, 86), (104, 98, 94), (60, 62, 70), (112, 104, 98)),
        (2, 4),
        Texture(0.03, 0.06, 0.05, 0.0, 0.0, 2),
    ),
    "roof_metal": _Recipe(
        (
            (200, 204, 206),
            (236, 238, 240),
            (120, 144, 172),
            (72, 104, 150),
            (150, 156, 158),
            (96, 130, 110),
            (178, 96, 72),
            (222, 214, 196),
        ),
        (2, 4),
        Texture(0.03, 0.05, 0.02, 0.02, 0.0, 1),
    ),
    "roof_brown": _Recipe(
        ((122, 96, 76), (140, 114, 92), (104, 84, 70), (156, 134, 112)), (2, 3), Texture(0.04, 0.07, 0.05, 0.0, 0.0, 2)
    ),
    "wall": _Recipe(
        ((150, 144, 136), (120, 116, 112), (176, 166, 150), (96, 94, 94)),
        (1, 2),
        Texture(0.03, 0.05, 0.05, 0.0, 0.0, 2),
    ),
    "clutter": _Recipe(
        (
            (210, 210, 208),
            (120, 120, 122),
            (60, 60, 62),
            (168, 150, 124),
            (176, 80, 56),
            (70, 96, 140),
            (220, 214, 190),
            (98, 110, 84),
        ),
        (4, 7),
        Texture(0.04, 0.08, 0.06, 0.0, 0.0, 3),
    ),
    "paint": _Recipe(
        (
            (236, 236, 236),
            (30, 32, 36),
            (130, 134, 138),
            (180, 184, 188),
            (168, 40, 36),
            (44, 72, 130),
            (70, 74, 80),
            (200, 186, 150),
            (214, 180, 50),
        ),
        (5, 8),
        Texture(0.0, 0.03, 0.03, 0.0, 0.0, 0),
    ),
    "glass": _Recipe(((34, 40, 48), (56, 66, 76)), (1, 1), Texture(0.0, 0.02, 0.02, 0.0, 0.0, 0)),
    "hull": _Recipe(
        ((234, 234, 230), (206, 206, 200), (150, 70, 54), (60, 66, 84), (124, 126, 124), (170, 140, 100)),
        (2, 4),
        Texture(0.0, 0.05, 0.04, 0.0, 0.0, 1),
    ),
    "plane": _Recipe(
        ((238, 238, 238), (216, 218, 222), (168, 172, 176), (112, 120, 112)),
        (1, 2),
        Texture(0.0, 0.03, 0.02, 0.0, 0.0, 1),
    ),
    "tank": _Recipe(
        ((232, 232, 228), (206, 204, 198), (180, 176, 166), (146, 126, 106), (120, 128, 124)),
        (1, 2),
        Texture(0.03, 0.05, 0.03, 0.0, 0.0, 1),
    ),
    "pool": _Recipe(
        (
            (90, 190, 205),
            (60, 160, 196),
            (120, 206, 214),
            (52, 124, 170),
            (84, 176, 160),
            (40, 84, 96),
            (150, 214, 216),
        ),
        (2, 4),
        Texture(0.05, 0.05, 0.04, 0.05, 0.0, 3),
    ),
    "court": _Recipe(
        ((66, 118, 78), (150, 72, 58), (60, 98, 150), (186, 112, 66), (92, 140, 92), (84, 92, 120)),
        (1, 3),
        Texture(0.03, 0.05, 0.03, 0.0, 0.0, 2),
    ),
    "solar": _Recipe(
        ((30, 38, 66), (38, 46, 78), (26, 28, 38), (48, 60, 92)), (1, 2), Texture(0.03, 0.03, 0.03, 0.0, 0.0, 2)
    ),
    "rail": _Recipe(((112, 100, 92), (132, 124, 116), (96, 88, 84)), (1, 1), Texture(0.05, 0.1, 0.1, 0.0, 0.0, 3)),
    "novel_object": _Recipe(_ANY, (2, 5), Texture(0.1, 0.15, 0.15, 0.0, 0.0, 10)),
    "novel_ground": _Recipe(_ANY, (1, 2), Texture(0.2, 0.25, 0.25, 0.2, 0.25, 14)),
}

MATERIALS: tuple[str, ...] = tuple(_RECIPES)
"""Names of the surfaces; the index is the material number."""

_DRIES: frozenset[str] = frozenset({"grass", "leaf", "wood"})


def sample_colours(r: Random, name: str, arid: bool) -> tuple[Colour, ...]:
    """The colours that a surface has in one place.

    Args:
        r: Source of randomness.
        name: One of ``MATERIALS``.
        arid: Whether vegetation is shifted to yellow and brown.

    Returns:
        One to eight colours, 0..255.
    """
    recipe = _RECIPES[name]
    count = r.randint(*recipe.kept)
    if not recipe.colours:
        hue = r.random()
        return tuple(_random_colour(r, hue) for _ in range(count))
    drift = [r.gauss(0, 0.07) for _ in range(3)]
    common = r.gauss(0, 0.08)
    dry = r.uniform(0.2, 0.6) if arid and name in _DRIES else 0.0
    picked = r.sample(recipe.colours, min(count, len(recipe.colours)))
    found: list[Colour] = []
    for colour in picked:
        red, green, blue = (c * (1 - dry) + d * dry for c, d in zip(colour, (134.0, 124.0, 92.0), strict=True))
        own = r.gauss(0, 0.04)
        found.append(
            (
                red * (1 + common + own + drift[0] * 0.5),
                green * (1 + common + own + drift[1] * 0.5),
                blue * (1 + common + own + drift[2] * 0.5),
            )
        )
    return tuple(found)


def _random_colour(r: Random, hue: float) -> Colour:
    """Any colour, muted more often than vivid, often near the given hue."""
    own = hue + r.gauss(0, 0.06) if r.random() < 0.6 else r.random()
    red, green, blue = colorsys.hsv_to_rgb(own % 1.0, r.random() ** 1.6, r.uniform(0.12, 0.97))
    return red * 255, green * 255, blue * 255


def sample_texture(r: Random, name: str) -> Texture:
    """How strongly the surface is textured in one place: each amplitude between a third and all of its limit."""
    return Texture(*(limit * r.uniform(0.33, 1.0) for limit in _RECIPES[name].texture))
