"""Stand-ins for the model and the listener, and the scene that the raster path is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rasterio.transform import from_origin
from torch import Tensor

from refsam_qgis.engine import raster_run
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.models.segmenter import FOREGROUND, Shots

UTM = "EPSG:32640"
HALF_METRE = from_origin(320000.0, 2790000.0, 0.5, 0.5)
RED = (200, 30, 30)
BLUE = (30, 30, 200)
GROUND = (90, 120, 60)


class ColourSegmenter:
    """Finds the mean colour of the marked pixels; what it says of a pixel depends on that pixel alone."""

    device = torch.device("cpu")

    def describe(self, shots: Shots, encodings: Sequence[object] = ()) -> Tensor:
        marked = shots.masks == FOREGROUND
        return torch.stack([shots.images[:, band][marked].float().mean() for band in range(3)])

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        return images.float()

    def segment(self, encoding: Tensor, reference: Tensor) -> Tensor:
        return 4 - (encoding - reference[None, :, None, None]).norm(dim=1) / 8


class RampSegmenter(ColourSegmenter):
    """Says something else at every place of a tile, as networks do near borders."""

    def segment(self, encoding: Tensor, reference: Tensor) -> Tensor:
        side = encoding.shape[-1]
        ramp = torch.linspace(-3, 3, side)
        return (ramp[:, None] + ramp[None, :])[None]


class CoarseSegmenter(ColourSegmenter):
    """Answers in a quarter of the tile's resolution, as networks do, and counts its tiles."""

    def __init__(self) -> None:
        self.tiles = 0

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        self.tiles += 1
        return super().encode(images, valid)

    def segment(self, encoding: Tensor, reference: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(super().segment(encoding, reference), 4)


class PortableSegmenter(CoarseSegmenter):
    """Its encodings can be stored; what they are of is worked out from the pixels again."""

    def __init__(self, kind: str = "colours") -> None:
        super().__init__()
        self.kind = kind

    def encoding_kind(self) -> list[str]:
        return [self.kind]

    def encode(self, images: Tensor, valid: Tensor) -> Tensor:
        return super().encode(images, valid) / 3

    def segment(self, encoding: Tensor, reference: Tensor) -> Tensor:
        return super().segment(encoding * 3, reference)

    def dump_encoding(self, encoding: Tensor) -> dict[str, Tensor]:
        return {"colours": encoding}

    def restore_encoding(self, tensors: dict[str, Tensor], images: Tensor, valid: Tensor) -> Tensor:
        if "colours" not in tensors or tensors["colours"].shape != images.shape:
            raise ValueError("the tensors hold no colours")
        return tensors["colours"]


class Recorder(SilentReporter):
    """Keeps what it hears, and cancels after so many progress events if asked to."""

    def __init__(self, cancel_after: int | None = None) -> None:
        self.messages: list[str] = []
        self.events: list[tuple[float, str, float | None]] = []
        self._cancel_after = cancel_after

    def progress(self, fraction: float, stage: str, remaining_seconds: float | None = None) -> None:
        self.events.append((fraction, stage, remaining_seconds))

    def log(self, message: str) -> None:
        self.messages.append(message)

    def is_cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.events) > self._cancel_after

    def cancel_once_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cancel when a job has written its report and nothing has its final name yet."""
        write = raster_run.write_report

        def write_and_cancel(*arguments: Any) -> None:
            write(*arguments)
            self._cancel_after = 0

        monkeypatch.setattr(raster_run, "write_report", write_and_cancel)


def painted(height: int, width: int, patches: Sequence[tuple[slice, slice, tuple[int, int, int]]]) -> NDArray[np.uint8]:
    """Return an RGB image ``(3, h, w)`` of ground with coloured patches."""
    image = np.empty((3, height, width), np.uint8)
    image[:] = np.array(GROUND, np.uint8)[:, None, None]
    for rows, columns, colour in patches:
        image[:, rows, columns] = np.array(colour, np.uint8)[:, None, None]
    return image
