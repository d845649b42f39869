"""The segmenter behind each method's name of the protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import RefSAMError
from ..job import THRESHOLD, ModelOptions
from ..models.promptable import load_promptable, stock_options
from ..models.segmenter import ReferenceSegmenter
from .baselines.static_prompts import StaticPromptsSegmenter
from .baselines.stitched import DESIGNS, StitchedSegmenter

Loader = Callable[[ModelOptions], ReferenceSegmenter]
"""Builds a RefSAM segmenter, weights and all."""

REFSAM_METHODS = ("virefsam", "fitted", "training_free")
PIXEL_METHODS = ("random_forest", "colour_prototype")
"""Methods that need scikit-learn and no network."""
STATIC_PROMPTS = "static_prompts"
STITCHED = {f"stitched_{design}": design for design in DESIGNS}
"""Design of each stitched method."""


def network_options(method: str, model: ModelOptions) -> ModelOptions | None:
    """Return what a method loads of a network: one of RefSAM's own, or the stock SAM; ``None`` for a pixel method."""
    if method in PIXEL_METHODS:
        return None
    if method == STATIC_PROMPTS or method in STITCHED:
        return stock_options(model)
    return replace(model, method=method)


def least_probability(method: str) -> float:
    """Probability from which a method marks a pixel: RefSAM's as they ship, the baselines at the majority."""
    return THRESHOLD if method in REFSAM_METHODS else 0.5


def build_segmenter(method: str, model: ModelOptions, seed: int, load: Loader) -> ReferenceSegmenter:
    """Build the segmenter behind a method's name.

    Args:
        method: One of `job.PROTOCOL_METHODS`.
        model: The network of the methods that use one; its own method does not matter.
        seed: Of everything that a baseline draws at random.
        load: Builds the segmenters that are RefSAM's own; the baselines take their SAM from the training-free one.

    Raises:
        RefSAMError: If a checkpoint cannot be loaded, or scikit-learn is not there for a pixel method.
    """
    options = network_options(method, model)
    if options is None:
        return _build_pixel_method(method, seed)
    if method == STATIC_PROMPTS:
        return StaticPromptsSegmenter(load_promptable(model, load).sam, seed)
    if method in STITCHED:
        return StitchedSegmenter(load_promptable(model, load).sam, STITCHED[method], seed)
    return load(options)


def _build_pixel_method(method: str, seed: int) -> ReferenceSegmenter:
    # scikit-learn serves comparison alone and is not part of a user's environment.
    try:
        from .baselines.colour_prototype import ColourPrototypeSegmenter
        from .baselines.random_forest import RandomForestSegmenter
    except ImportError as error:
        raise RefSAMError(
            "environment", f"Method '{method}' needs scikit-learn; install requirements/dev.txt or leave it out."
        ) from error
    return RandomForestSegmenter(seed) if method == "random_forest" else ColourPrototypeSegmenter(seed)
