"""Kinds of places and what is usual in them."""

from __future__ import annotations

from dataclasses import dataclass, field

Range = tuple[float, float]


@dataclass(frozen=True)
class Settlement:
    """What is usual in one kind of place; lengths in metres.

    Attributes:
        name: Kind of place.
        arid: Whether vegetation is dry.
        grounds: Weights of the ground: grass, bare_soil, background, paved.
        roads: Chances of a street grid, winding roads, a motorway, or none (any that remains).
        road_spacing: Distance between streets.
        building_length: Range of the shortest building's length.
        building_height: Range of the lowest building's height.
        setback: Distance of buildings from the road.
        gap: Usual distance between neighbours.
        fill: Share of lots built on.
        roof_shapes: Shapes that occur.
        roof_materials: Roof materials that occur.
        usual: For each class of things, the usual share or number per tile; see the modules that place them.
    """

    name: str
    arid: bool
    grounds: tuple[float, float, float, float]
    roads: tuple[float, float, float]
    road_spacing: Range = (40, 90)
    building_length: Range = (8, 14)
    building_height: Range = (3, 7)
    setback: Range = (2, 8)
    gap: float = 5.0
    fill: float = 0.8
    roof_shapes: tuple[str, ...] = ("flat", "gable", "hip", "complex")
    roof_materials: tuple[str, ...] = ("roof_concrete", "roof_tile", "roof_dark", "roof_metal", "roof_brown")
    usual: dict[str, float] = field(default_factory=dict)


SETTLEMENTS: tuple[Settlement, ...] = (
    Settlement(
        "desert_town",
        True,
        (0.1, 1.0, 0.5, 0.2),
        (0.75, 0.15, 0.1),
        (35, 70),
        (9, 16),
        (3, 9),
        (1, 5),
        3.0,
        0.85,
        ("flat", "flat_steps", "court", "complex"),
        ("roof_concrete", "roof_brown", "roof_metal"),
        {"tree": 0.25, "vehicle": 0.6, "swimming_pool": 0.12, "solar_panel": 0.1, "paved": 0.3, "bare_soil": 0.5},
    ),
    Settlement(
        "suburb",
        False,
        (1.0, 0.15, 0.4, 0.05),
        (0.65, 0.3, 0.05),
        (45, 80),
        (9, 14),
        (4, 8),
        (4, 9),
        5.0,
        0.9,
        ("gable", "hip", "complex"),
        ("roof_tile", "roof_dark", "roof_brown", "roof_metal"),
        {
            "tree": 0.8,
            "vehicle": 0.5,
            "swimming_pool": 0.3,
            "solar_panel": 0.25,
            "sports_court": 0.2,
            "wood": 0.3,
            "water": 0.1,
            "grass": 0.3,
        },
    ),
    Settlement(
        "dense_city",
        False,
        (0.25, 0.1, 0.6, 0.8),
        (0.9, 0.05, 0.05),
        (45, 90),
        (12, 28),
        (8, 26),
        (1, 5),
        1.5,
        0.95,
        ("flat", "flat_steps", "court", "complex", "hip"),
        ("roof_concrete", "roof_tile", "roof_dark", "roof_metal", "roof_brown"),
        {
            "tree": 0.4,
            "vehicle": 1.2,
            "paved": 0.5,
            "solar_panel": 0.1,
            "sports_court": 0.25,
            "railway": 0.15,
            "water": 0.1,
            "grass": 0.3,
        },
    ),
    Settlement(
        "rural",
        False,
        (0.8, 0.5, 0.5, 0.0),
        (0.15, 0.65, 0.05),
        (120, 260),
        (9, 22),
        (3, 7),
        (5, 14),
        14.0,
        0.3,
        ("gable", "hip", "complex"),
        ("roof_tile", "roof_metal", "roof_dark", "roof_brown"),
        {
            "field": 1.0,
            "tree": 0.5,
            "wood": 0.6,
            "vehicle": 0.1,
            "water": 0.25,
            "storage_tank": 0.08,
            "solar_panel": 0.1,
            "bare_soil": 0.3,
        },
    ),
    Settlement(
        "harbour",
        False,
        (0.2, 0.5, 0.6, 0.9),
        (0.5, 0.3, 0.1),
        (60, 140),
        (18, 45),
        (5, 12),
        (3, 10),
        6.0,
        0.6,
        ("flat", "gable", "flat_steps", "round"),
        ("roof_metal", "roof_concrete", "roof_dark"),
        {"water": 1.0, "ship": 1.0, "storage_tank": 0.35, "vehicle": 0.6, "paved": 0.8, "tree": 0.15, "railway": 0.2},
    ),
    Settlement(
        "airport",
        False,
        (1.0, 0.4, 0.4, 0.3),
        (0.3, 0.3, 0.1),
        (120, 240),
        (20, 50),
        (6, 14),
        (8, 20),
        12.0,
        0.4,
        ("flat", "flat_steps", "gable", "round"),
        ("roof_metal", "roof_concrete", "roof_dark"),
        {"plane": 1.0, "paved": 1.0, "vehicle": 0.5, "tree": 0.15, "storage_tank": 0.2, "grass": 0.4},
    ),
    Settlement(
        "industry",
        False,
        (0.3, 0.5, 0.5, 0.8),
        (0.6, 0.2, 0.15),
        (70, 160),
        (20, 60),
        (5, 13),
        (4, 12),
        7.0,
        0.75,
        ("flat", "gable", "flat_steps", "round"),
        ("roof_metal", "roof_concrete", "roof_dark", "roof_brown"),
        {
            "storage_tank": 0.6,
            "vehicle": 0.9,
            "paved": 0.9,
            "railway": 0.35,
            "tree": 0.25,
            "solar_panel": 0.3,
            "water": 0.15,
            "bare_soil": 0.4,
        },
    ),
    Settlement(
        "coast",
        True,
        (0.5, 0.7, 0.3, 0.1),
        (0.35, 0.5, 0.0),
        (50, 110),
        (9, 18),
        (3, 9),
        (3, 9),
        6.0,
        0.6,
        ("flat", "hip", "gable", "flat_steps"),
        ("roof_tile", "roof_concrete", "roof_metal"),
        {"water": 1.0, "ship": 0.4, "swimming_pool": 0.4, "tree": 0.5, "vehicle": 0.4, "wood": 0.2, "bare_soil": 0.4},
    ),
    Settlement(
        "forest",
        False,
        (0.9, 0.3, 0.5, 0.0),
        (0.1, 0.6, 0.05),
        (120, 240),
        (7, 12),
        (3, 6),
        (4, 10),
        12.0,
        0.25,
        ("gable", "hip"),
        ("roof_dark", "roof_metal", "roof_brown", "roof_tile"),
        {"wood": 1.6, "tree": 0.7, "water": 0.35, "field": 0.2, "vehicle": 0.08, "bare_soil": 0.3},
    ),
    Settlement(
        "desert",
        True,
        (0.02, 1.0, 0.6, 0.0),
        (0.1, 0.5, 0.15),
        (120, 260),
        (7, 16),
        (3, 6),
        (4, 12),
        12.0,
        0.25,
        ("flat", "court"),
        ("roof_concrete", "roof_brown", "roof_metal"),
        {
            "tree": 0.12,
            "vehicle": 0.15,
            "solar_panel": 0.2,
            "storage_tank": 0.1,
            "water": 0.1,
            "bare_soil": 0.7,
            "field": 0.15,
        },
    ),
    Settlement(
        "resort",
        False,
        (0.9, 0.3, 0.3, 0.3),
        (0.3, 0.65, 0.0),
        (50, 100),
        (9, 24),
        (3, 10),
        (3, 9),
        6.0,
        0.75,
        ("hip", "flat", "complex", "flat_steps", "gable"),
        ("roof_tile", "roof_concrete", "roof_brown"),
        {
            "swimming_pool": 0.7,
            "sports_court": 0.5,
            "tree": 1.0,
            "vehicle": 0.4,
            "water": 0.25,
            "wood": 0.3,
            "grass": 0.5,
        },
    ),
)
