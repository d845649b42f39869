"""segment_anything's own predictor and mask generator, to compare with, where torchvision is not installed.

The few functions they take from torchvision are given to them by their definition: Pillow's bilinear scaling, and
non-maximum suppression box by box.
"""

from __future__ import annotations

import importlib
import sys
import types
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn


@lru_cache(maxsize=1)
def segment_anything_own() -> types.SimpleNamespace:
    """Load the package as it is.

    Returns:
        A namespace with ``SamPredictor`` and ``SamAutomaticMaskGenerator``.
    """
    before = _take_away("segment_anything", "torchvision")
    try:
        sys.modules.update(_torchvision())
        package = importlib.import_module("segment_anything")
        return types.SimpleNamespace(
            SamPredictor=package.SamPredictor, SamAutomaticMaskGenerator=package.SamAutomaticMaskGenerator
        )
    finally:
        _take_away("segment_anything", "torchvision")
        sys.modules.update(before)


def _take_away(*packages: str) -> dict[str, types.ModuleType]:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in packages}


def _torchvision() -> dict[str, types.ModuleType]:
    contents: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": _batched_nms, "box_area": _box_area},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": _resize, "to_pil_image": Image.fromarray},
    }
    modules = {name: types.ModuleType(name) for name in contents}
    for name, module in modules.items():
        vars(module).update(contents[name])
        module.__path__ = []
    return modules


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def _box_area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    if bool((idxs != 0).any()):
        raise NotImplementedError("one category only")
    kept: list[int] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        if all(_iou(boxes[index].tolist(), boxes[other].tolist()) <= iou_threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)


def _iou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / either if either > 0 else 0.0


def make_responsive(sam: nn.Module) -> nn.Module:
    """Scale random weights so that masks follow the prompts, have sure insides, and are rated differently."""
    decoder: Any = sam.mask_decoder
    with torch.no_grad():
        for name, weights in decoder.named_parameters():
            if weights.ndim > 1 and name.startswith("transformer"):
                weights *= 4
            if weights.ndim > 1 and name.startswith("output_upscaling"):
                weights *= 2
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight *= 100
        decoder.iou_prediction_head.layers[-1].weight *= 10
        decoder.iou_prediction_head.layers[-1].bias.fill_(-1.0)
    return sam.eval()


def as_pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn ``(3, h, w)`` into the ``(h, w, 3)`` that segment_anything takes."""
    return np.ascontiguousarray(image.transpose(1, 2, 0))
