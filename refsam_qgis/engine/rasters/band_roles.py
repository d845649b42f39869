"""Which bands of a raster are red, green and blue, and which ones tell where it holds data."""

from __future__ import annotations

import re
from collections.abc import Iterable

import rasterio
from rasterio.enums import ColorInterp, MaskFlags

from ..errors import RefSAMError

COLOURS = ("red", "green", "blue")
OPACITY_WORDS = {"a", "alpha", "mask", "opacity", "transparency", "band", "channel", "layer"}
"""Words in the description of an alpha band that do not make it anything else; so are numbers."""


def rgb_bands(dataset: rasterio.DatasetReader, path: str, bands: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the one-based indices of red, green and blue, or of one band for grey or a palette.

    Args:
        dataset: The raster.
        path: Its name for messages.
        bands: Those that were chosen; ``None`` takes those that the raster calls red, green and blue, else the first
            three that are not opacity. Descriptions come before the colour interpretation: somebody wrote them, and
            GDAL calls three or four 8-bit bands red, green, blue and alpha unless it is told otherwise.

    Raises:
        RefSAMError: With code ``input`` where the raster has no such bands.
    """
    if bands is None:
        data = _data_bands(dataset)
        chosen = _named_bands(dataset) or (data[:3] if len(data) >= 3 else data[:1])
    elif len(bands) not in (1, 3):
        raise RefSAMError("input", f"{len(bands)} bands were given for '{path}'; give one (grey) or three (RGB).")
    else:
        chosen = bands
    for band in chosen:
        if not 1 <= band <= dataset.count:
            raise RefSAMError("input", f"Raster '{path}' has no band {band}; use bands 1 to {dataset.count}.")
        if dataset.dtypes[band - 1].startswith("complex"):
            raise RefSAMError("input", f"Band {band} of '{path}' is complex; give a raster of real values.")
    return chosen


def doubt(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> str | None:
    """Return a sentence where the raster does not say which bands are red, green and blue, or contradicts itself.

    Args:
        dataset: The raster.
        bands: Those of `rgb_bands` when none were chosen.
    """
    taken = f"Bands {', '.join(map(str, bands))} are taken as red, green and blue"
    described, interpreted = _described(dataset), _interpreted(dataset)
    if _named_bands(dataset) is None:
        return f"{taken}; choose others with Bands." if len(_data_bands(dataset)) > 3 else None
    if any(described.get(colour, band) != band for colour, band in interpreted.items() if colour in COLOURS):
        return f"{taken}, of which descriptions and colour interpretation disagree; choose others with Bands."
    return None


def masking_bands(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> tuple[int, ...]:
    """Return the bands whose masks, as GDAL makes them, tell where the bands taken hold data; none where all do.

    They are the bands taken if they differ, as those with a nodata value do, else the first of them for all.
    """
    flags = {band: dataset.mask_flag_enums[band - 1] for band in bands}
    opacity = _opacity_bands(dataset, bands)
    own = tuple(band for band in bands if opacity or MaskFlags.alpha not in flags[band])
    if any({MaskFlags.per_dataset, MaskFlags.all_valid}.isdisjoint(flags[band]) for band in own):
        return own
    return tuple(band for band in own if MaskFlags.per_dataset in flags[band])[:1]


def unmasked_opacity(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> int | None:
    """Return the band of opacity that GDAL's masks of the bands taken do not tell of; ``None`` where there is none.

    GDAL makes masks of alpha in bytes and 16-bit integers without sign alone, of the last of two or four bands. Where
    it makes them of nodata or of a mask instead, the alpha of four 8-bit bands says nothing: it may be GDAL's guess.
    """
    opacity = _opacity_bands(dataset, bands)
    flags = {flag for band in bands for flag in dataset.mask_flag_enums[band - 1]}
    if not opacity or MaskFlags.alpha in flags:
        return None
    guessed = dataset.count == 4 and dataset.dtypes[opacity[0] - 1] == "uint8" and flags != {MaskFlags.all_valid}
    return None if guessed else opacity[0]


def _named_bands(dataset: rasterio.DatasetReader) -> tuple[int, ...] | None:
    """Return the bands that say that they are red, green and blue."""
    described = _described(dataset)
    for named in (described, {**described, **_interpreted(dataset)}):
        if all(colour in named for colour in COLOURS):
            return tuple(named[colour] for colour in COLOURS)
    return None


def _described(dataset: rasterio.DatasetReader) -> dict[str, int]:
    return _first_of_each((text or "").strip().lower() for text in dataset.descriptions)


def _interpreted(dataset: rasterio.DatasetReader) -> dict[str, int]:
    return _first_of_each(kind.name for kind in dataset.colorinterp)


def _first_of_each(names: Iterable[str]) -> dict[str, int]:
    """Return the first band of each name."""
    return {name: band for band, name in reversed(list(enumerate(names, 1)))}


def _data_bands(dataset: rasterio.DatasetReader) -> tuple[int, ...]:
    """Return the bands that are not opacity, the first one where there is nothing else."""
    return tuple(band for band in dataset.indexes if not _is_opacity(dataset, band)) or (1,)


def _opacity_bands(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> tuple[int, ...]:
    """Return the bands of opacity that are not taken; one that is taken is data and masks nothing."""
    return tuple(band for band in dataset.indexes if band not in bands and _is_opacity(dataset, band))


def _is_opacity(dataset: rasterio.DatasetReader, band: int) -> bool:
    """Whether a band is alpha and its description does not call it anything else, such as near infrared."""
    words = re.findall(r"[^\W\d_]+", (dataset.descriptions[band - 1] or "").lower())
    return dataset.colorinterp[band - 1] == ColorInterp.alpha and OPACITY_WORDS.issuperset(words)
