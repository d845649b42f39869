"""Small labelled folders and stand-in models for the evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from refsam_qgis.engine.models.segmenter import FOREGROUND, Shots

COLOURS = {0: (90, 120, 60), 1: (30, 30, 200), 2: (200, 30, 30)}


class ColourSegmenter:
    """Finds the mean colour of the marked pixels, and counts its calls."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.encoded = 0

    def describe(self, shots: Shots, encodings: Sequence[object] = ()) -> Tensor:
        marked = shots.masks == FOREGROUND
        return torch.stack([shots.images[:, band][marked].float().mean() for band in range(3)])

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        self.encoded += 1
        return images.float()

    def segment(self, encoding: Tensor, reference: Tensor) -> Tensor:
        return 30 - (encoding - reference[None, :, None, None]).norm(dim=1)


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that paints masks (by name) into a folder of images and returns the folder."""

    def write(masks: dict[str, NDArray[np.uint8]], classes: dict[int, str] | None = None) -> Path:
        folder = tmp_path / "données"
        folder.mkdir(exist_ok=True)
        for name, mask in masks.items():
            image = np.zeros((*mask.shape, 3), np.uint8)
            for value, colour in COLOURS.items():
                image[mask == value] = colour
            Image.fromarray(image).save(folder / f"{name}.png")
            Image.fromarray(mask).save(folder / f"{name}_mask.png")
        names = classes or {0: "background", 1: "pool", 2: "roof"}
        (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def folder(write_folder: Callable[..., Path]) -> Path:
    """Four images: pools in all, roofs in the last two."""
    masks = {}
    for i in range(4):
        mask = np.zeros((40, 60), np.uint8)
        mask[5 : 15 + i, 10:30] = 1
        if i >= 2:
            mask[25:35, 30:50] = 2
        masks[f"image{i}"] = mask
    return write_folder(masks)
