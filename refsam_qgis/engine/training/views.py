"""Training views: labelled windows, scaled as a tile is scaled into SAM's input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Uint8Array = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledImage:
    """An image with its class map, before it is cut to a view.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        classes: ``(H, W)`` uint8 class ids of `namespace`.
        instances: ``(H, W)`` uint16, 0 where there is no object.
        ignore: Class id that says that nobody labelled the pixel; -1 for none.
        namespace: Data set, and style where ids mean something only inside one, that the class ids belong to.
    """

    image: Uint8Array
    classes: Uint8Array
    instances: NDArray[np.uint16]
    ignore: int
    namespace: str


def augment(source: LabelledImage, rng: np.random.Generator, side: int, recolour: float = 1.0) -> LabelledImage:
    """Turn, mirror, recolour and scale a square labelled image to `side` pixels.

    Colour is changed a little only: reference and target of one sensor differ by light and season, not by sensor.

    Args:
        source: A square labelled image.
        rng: Random draws.
        side: Side of the view in pixels.
        recolour: Share of the usual change of colour; 0 leaves it.
    """
    turns, mirror = int(rng.integers(4)), bool(rng.integers(2))

    def orient(array: NDArray[np.generic]) -> NDArray[np.generic]:
        turned = np.rot90(array, turns)
        return np.ascontiguousarray(turned[:, ::-1] if mirror else turned)

    image = np.asarray(Image.fromarray(orient(source.image)).resize((side, side), Image.Resampling.BILINEAR))
    return LabelledImage(
        image=_jitter(image, rng, recolour),
        classes=_nearest(orient(source.classes), side).astype(np.uint8),
        instances=_nearest(orient(source.instances), side).astype(np.uint16),
        ignore=source.ignore,
        namespace=source.namespace,
    )


def _nearest(labels: NDArray[np.generic], side: int) -> NDArray[np.generic]:
    rows = (np.arange(side) * labels.shape[0]) // side
    columns = (np.arange(side) * labels.shape[1]) // side
    scaled: NDArray[np.generic] = labels[rows[:, None], columns[None, :]]
    return scaled


def _jitter(image: Uint8Array, rng: np.random.Generator, recolour: float) -> Uint8Array:
    gain = (rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, size=3)) ** recolour
    offset = rng.uniform(-12, 12) * recolour
    recoloured: Uint8Array = np.clip(image * gain.astype(np.float32) + np.float32(offset), 0, 255).astype(np.uint8)
    return recoloured
