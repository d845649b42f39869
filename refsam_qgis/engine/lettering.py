"""Type for the pictures that jobs draw."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

FACES = ("DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")
"""Faces that have most scripts, where the system has one; Pillow's own knows little beside Latin."""


@lru_cache(maxsize=32)
def lettering(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a face of a size in pixels."""
    for name in FACES:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def fitted(text: str, width: float, size: int) -> str:
    """Shorten a text with an ellipsis to a width in pixels, on one line."""
    face = lettering(size)
    text = " ".join(text.split())  # a name may hold line breaks, which have no width
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
