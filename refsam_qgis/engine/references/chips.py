"""Reference chips: square cuts that show a class, brought to one ground size and one side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import RefSAMError
from ..models.sam import INPUT_SIZE, resize_pixels
from ..models.segmenter import FOREGROUND, IGNORE, Shots
from ..rasters.source import stretch_between

LARGEST_CHIP = 8192
"""Longest side of a chip in pixels."""


@dataclass(frozen=True, eq=False)
class Chip:
    """One square cut out of a raster, in the raster's own pixels.

    Attributes:
        image: ``(3, S, S)`` uint8 RGB, black where it is not valid.
        mask: ``(S, S)`` uint8 of the mask values of `Shots`, with at least one `FOREGROUND`.
        valid: ``(S, S)`` bool; False where there is no image, and `mask` is `IGNORE`.
        gsd: Ground sample distance in metres (map units without a CRS).
        origin: Where it was cut and how, for people; JSON-compatible.
        areas: Of each object that is outlined in it as a whole, in the square of the unit of `gsd`. In the mask objects
            that touch are one.
        stretched: Whether the contrast of `image` is stretched; ``None`` where nobody knows.
        limits: Values of each band of `image` that a stretch of its raster makes 0 and 255, ``(1 or 3, 2)``, if it is
            of 8-bit data that is not stretched.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    gsd: float
    origin: Mapping[str, Any] = field(default_factory=dict)
    areas: tuple[float, ...] = ()
    stretched: bool | None = None
    limits: NDArray[np.float64] | None = None

    @property
    def side(self) -> int:
        """Side S in pixels."""
        return len(self.mask)

    @property
    def digest(self) -> str:
        """SHA-256 of what the chip shows, whatever its origin."""
        return _sha256(self.image, self.mask, self.valid, self.gsd)


@dataclass(frozen=True)
class ChipSet:
    """Chips of one ground size.

    Attributes:
        ground_size: Side of every chip in metres (map units without a CRS).
        classes: Chips of each class by its name, in the order of the class ids.
        negatives: Chips of what is to be told apart from every class.
    """

    ground_size: float
    classes: Mapping[str, Sequence[Chip]]
    negatives: Sequence[Chip] = ()

    def chips(self) -> list[tuple[str | None, Chip]]:
        """Return every chip with the name of its class, ``None`` for the negatives, which come last."""
        named: list[tuple[str | None, Chip]] = [(name, chip) for name, chips in self.classes.items() for chip in chips]
        return [*named, *((None, chip) for chip in self.negatives)]

    def at_ground_size(self, ground_size: float) -> ChipSet:
        """Return the set with chips that cover another ground size at the same resolution.

        What is too small gets invalid pixels on the right and below, as SAM pads its input; what is too large is cut
        to the part that shows the class best.

        Raises:
            RefSAMError: With code ``reference`` for chips of more than `LARGEST_CHIP` pixels.
        """

        def fit(chips: Sequence[Chip]) -> tuple[Chip, ...]:
            return tuple(
                _with_side(chip, chip_side(ground_size, chip.gsd, chip.origin.get("raster", "?"))) for chip in chips
            )

        return replace(self.changed(fit), ground_size=ground_size)

    def with_stretch(self) -> ChipSet:
        """Return the set with the contrast of every chip stretched of which is known how."""
        return self.changed(lambda chips: tuple(map(_stretched, chips)))

    def changed(self, change: Callable[[Sequence[Chip]], Sequence[Chip]]) -> ChipSet:
        """Return the set with the chips of each class and of the negatives changed."""
        classes = {name: change(chips) for name, chips in self.classes.items()}
        return ChipSet(self.ground_size, classes, change(self.negatives))


def chip_side(ground_size: float, gsd: float, raster: str) -> int:
    """Return the side in pixels of a chip.

    Args:
        ground_size: Its side on the ground in the unit of `gsd`.
        gsd: Ground sample distance of its raster.
        raster: The raster, for the message.

    Raises:
        RefSAMError: With code ``reference`` when that is more than `LARGEST_CHIP`.
    """
    pixels = ground_size / gsd
    if pixels > LARGEST_CHIP + 0.5:
        raise RefSAMError(
            "reference",
            f"A tile covers {pixels:.0f} pixels of the reference raster '{raster}'; use a smaller tile or chip size or "
            "a coarser reference raster.",
        )
    return max(1, round(pixels))


def stack(chips: Sequence[Chip]) -> Shots:
    """Stack the chips of one class.

    Chips of one resolution stay as they are. Others are brought to the longest side among them, but no longer than
    SAM's input, beyond which nothing is seen.
    """
    sides = {chip.side for chip in chips}
    if len(sides) > 1:
        side = min(max(sides), INPUT_SIZE)
        chips = [_resized(chip, side) for chip in chips]
    return Shots(
        torch.from_numpy(np.stack([chip.image for chip in chips])),
        torch.from_numpy(np.stack([chip.mask for chip in chips])),
        torch.from_numpy(np.stack([chip.valid for chip in chips])),
    )


def digest_shots(shots: Shots) -> str:
    """SHA-256 of the content of shots, as hexadecimal digits."""
    return _sha256(shots.images.cpu().numpy(), shots.masks.cpu().numpy(), shots.valid.cpu().numpy())


def resize_mask(
    mask: NDArray[np.uint8], valid: NDArray[np.bool_], side: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Scale a mask and its validity to another side by the nearest pixel, keeping objects that lie between pixels.

    Args:
        mask: ``(S, S)`` of the mask values of `Shots`.
        valid: ``(S, S)``.
        side: The side of both results.
    """
    native = len(mask)
    nearest = ((2 * np.arange(side) + 1) * native) // (2 * side)
    taken = np.ix_(nearest, nearest)
    small, small_valid = mask[taken], valid[taken]
    if side < native:
        objects, _ = ndimage.label(mask == FOREGROUND, structure=np.ones((3, 3), np.int8))
        lost = np.nonzero((objects > 0) & ~np.isin(objects, objects[taken]))
        place = lost[0] * side // native, lost[1] * side // native
        small[place], small_valid[place] = FOREGROUND, True
    return small, small_valid


def _stretched(chip: Chip) -> Chip:
    if chip.limits is None:
        return chip
    image = np.where(chip.valid, stretch_between(chip.image, chip.limits), np.uint8(0))
    return replace(chip, image=image, stretched=True, limits=None)


def _resized(chip: Chip, side: int) -> Chip:
    """Scale a chip, which keeps its ground size."""
    if chip.side == side:
        return chip
    mask, valid = resize_mask(chip.mask, chip.valid, side)
    scaled = resize_pixels(torch.from_numpy(chip.image)[None], (side, side))[0]
    image = scaled.round().clamp(0, 255).to(torch.uint8).numpy()
    image = np.where(valid, image, np.uint8(0))
    return replace(chip, image=image, mask=mask, valid=valid, gsd=chip.gsd * chip.side / side)


def _with_side(chip: Chip, side: int) -> Chip:
    """Pad or cut a chip at its own resolution."""
    if side < chip.side:
        row, column = _best_corner(chip.mask, side)
        rows, columns = slice(row, row + side), slice(column, column + side)
        return replace(
            chip, image=chip.image[:, rows, columns], mask=chip.mask[rows, columns], valid=chip.valid[rows, columns]
        )
    if side == chip.side:
        return chip
    more = (0, side - chip.side)
    return replace(
        chip,
        image=np.pad(chip.image, ((0, 0), more, more)),
        mask=np.pad(chip.mask, (more, more), constant_values=IGNORE),
        valid=np.pad(chip.valid, (more, more)),
    )


def _best_corner(mask: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Return row and column of the window that holds the most class and still shows its surroundings."""
    total = np.pad((mask == FOREGROUND).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    share = (total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]) / side**2
    # As where chips are chosen, equal shares of class and surroundings are best; a window of nothing else comes last
    # but before one without the class.
    score = share * (1.001 - share)
    best = np.argwhere(score == score.max())
    row, column = best[np.argmin(np.square(best - best.mean(axis=0)).sum(axis=1))]
    return int(row), int(column)


def _sha256(image: NDArray[Any], mask: NDArray[Any], valid: NDArray[Any], *more: float) -> str:
    sha256 = hashlib.sha256(repr((image.shape, *map(float, more))).encode())
    for array in (image, mask, valid):
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()
