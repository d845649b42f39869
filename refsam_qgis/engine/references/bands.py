"""In which bands the raster of the examples is read, where bands were chosen for the raster that is searched."""

from __future__ import annotations


def bands_of_examples(chosen: tuple[int, ...] | None, of_searched: int, of_examples: int) -> tuple[int, ...] | None:
    """Return the chosen bands if they are also those of another raster, the one with the examples.

    Args:
        chosen: One-based indices for the raster that is searched; ``None`` lets each raster choose.
        of_searched: How many bands that raster has.
        of_examples: How many bands the raster of the examples has.

    Returns:
        The chosen ones if the rasters have equally many, else ``None``: the raster chooses its own.
    """
    return chosen if of_searched == of_examples else None
