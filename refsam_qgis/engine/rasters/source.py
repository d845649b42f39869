"""Windows of any raster as 8-bit RGB with a validity mask."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from ..errors import RefSAMError
from ..events import Reporter
from .band_roles import doubt, masking_bands, rgb_bands, unmasked_opacity
from .geodesy import GroundMeasure
from .georeference import map_transform, open_raster
from .sampling import sample_pixels

STRETCH_PERCENTILES = (2.0, 98.0)
"""Share of the darkest and brightest pixels that a stretch saturates."""
CACHE_BYTES = 128 * 2**20
"""GDAL's block cache; its default grows to 5 % of the machine's memory."""


class RasterSource:
    """An open raster that is read window by window, by several threads at a time if need be; a context manager.

    Bands become RGB: the given ones, else those whose description or colour interpretation says red, green and blue,
    else the first three that are not opacity; a single band is repeated and a palette looked up. A pixel is valid where
    the raster's own mask (nodata of these bands, alpha if it is none of them and not described as data, mask band) says
    so, all three values are finite, and a palette does not make it transparent.

    Args:
        path: Any raster GDAL opens.
        bands: One-based indices of one (grey) or three (red, green, blue) bands; ``None`` chooses.
        stretch: ``auto`` stretches anything but 8-bit data between percentiles, ``percentile`` always does,
            ``none`` never does and clips to 0..255. Percentiles are those of the whole raster, whatever is read later,
            and never those of its pyramids.

    Attributes:
        path: As given.
        is_8_bit: Whether its values are bytes, or the colours of a palette, before any stretch.
        crs: Its CRS, ``None`` where it has none.
        transform: From pixels to its CRS.
        width: In pixels.
        height: In pixels.
        measure: Of lengths and areas on the ground.
        gsd: Ground sample distance in metres (map units without a CRS).

    Raises:
        RefSAMError: With code ``input`` when the raster is missing, unreadable or has no such bands.
    """

    def __init__(self, path: str, bands: tuple[int, ...] | None = None, stretch: str = "auto") -> None:
        self.path = path
        self._handles = threading.local()
        self._opening = threading.Lock()  # warnings are silenced for all threads at once
        self._opened: list[rasterio.DatasetReader] = []
        try:
            self._bands = rgb_bands(self._dataset, path, bands)
            self._doubt = doubt(self._dataset, self._bands) if bands is None else None
            self._palette = _palette(self._dataset, self._bands)
            self.is_8_bit = _is_8_bit(self._dataset, self._bands)
            self._dtypes = {self._dataset.dtypes[band - 1] for band in self._bands}
            self._masking_bands = masking_bands(self._dataset, self._bands)
            self._opacity = unmasked_opacity(self._dataset, self._bands)
            self.crs = self._dataset.crs
            self.transform = map_transform(self._dataset)
            self.width: int = self._dataset.width
            self.height: int = self._dataset.height
            self.measure = GroundMeasure(self.crs)
            self.gsd = self.measure.pixel_size(self.transform, self.width, self.height)
            stretched = stretch == "percentile" or (stretch == "auto" and not self.is_8_bit)
            self._limits = self._percentiles() if stretched else None
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> RasterSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for dataset in self._opened:
            dataset.close()

    @property
    def _dataset(self) -> rasterio.DatasetReader:
        """The calling thread's own handle: GDAL's must not be shared."""
        if not hasattr(self._handles, "dataset"):
            with self._opening:
                self._handles.dataset = open_input(self.path)
            self._opened.append(self._handles.dataset)
        return self._handles.dataset

    @property
    def bands(self) -> tuple[int, ...]:
        """One-based indices of the bands taken: three, or one for grey or a palette."""
        return self._bands

    @property
    def limits(self) -> list[list[float]] | None:
        """Values of each band that become 0 and 255; ``None`` when nothing is stretched."""
        return None if self._limits is None else self._limits.tolist()

    def stretch_limits(self) -> NDArray[np.float64]:
        """Return what a stretch makes 0 and 255 in each band, ``(1 or 3, 2)``, whether there is one or not."""
        return self._percentiles() if self._limits is None else self._limits

    def tell_bands(self, reporter: Reporter) -> None:
        """Log which bands are taken where the raster does not say which to take, or contradicts itself."""
        if self._doubt is not None:
            reporter.log(self._doubt)

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window that may stick out of the raster.

        Args:
            window: In whole pixels; may be larger than the raster or lie beside it.

        Returns:
            RGB ``(3, h, w)`` and validity ``(h, w)``; invalid pixels are black.

        Raises:
            RefSAMError: With code ``input`` when it cannot be read there: damaged, or a part of a mosaic that is gone.
        """
        height, width = int(window.height), int(window.width)
        rgb = np.zeros((3, height, width), np.uint8)
        valid = np.zeros((height, width), np.bool_)
        top, left = max(0, int(window.row_off)), max(0, int(window.col_off))
        bottom = min(self.height, int(window.row_off) + height)
        right = min(self.width, int(window.col_off) + width)
        if top < bottom and left < right:
            values, inside = self._read_native(Window(left, top, right - left, bottom - top))
            rows = slice(top - int(window.row_off), bottom - int(window.row_off))
            columns = slice(left - int(window.col_off), right - int(window.col_off))
            if values is not None:
                valid[rows, columns] = inside
                rgb[:, rows, columns] = np.where(inside, self._to_8_bit(values), 0)
        return rgb, valid

    def _read_native(self, window: Window) -> tuple[NDArray[Any] | None, NDArray[np.bool_]]:
        """Read values ``(1 or 3, h, w)`` and validity ``(h, w)`` inside the raster.

        There are no values, and nothing is read but the mask, where the mask says that no pixel is valid.
        """
        try:
            valid = self._read_mask(window)
            if not valid.any():
                return None, valid
            values = self._read_bands(window)
        except RasterioError as error:
            raise RefSAMError(
                "input",
                f"Raster '{self.path}' cannot be read near row {int(window.row_off)}, column {int(window.col_off)} "
                f"({reading_failure(error)}); restore or export it anew.",
            ) from error
        if self._palette is not None:
            colours = self._palette[:, values[0]]
            return colours[:3], valid & (colours[3] > 0)
        return values, valid & np.isfinite(values).all(axis=0)

    def _read_bands(self, window: Window) -> NDArray[Any]:
        """Read values ``(1 or 3, h, w)``; bands of several types, as VRTs stack them, in one that holds them all."""
        if len(self._dtypes) == 1:
            values: NDArray[Any] = self._dataset.read(self._bands, window=window)
            return values
        return np.stack([self._dataset.read(band, window=window) for band in self._bands])

    def _read_mask(self, window: Window) -> NDArray[np.bool_]:
        """Read where the bands taken hold data, ``(h, w)``; what other bands hold there says nothing of them.

        Nodata is a value of its own to floats: no band may have it. Of integers one band may, as it is often 0.
        """
        valid: NDArray[np.bool_] = np.ones((int(window.height), int(window.width)), np.bool_)
        if self._masking_bands:
            masks = self._dataset.read_masks(self._masking_bands, window=window) > 0
            floats = any(dtype.startswith("float") for dtype in self._dtypes)
            valid = masks.all(axis=0) if floats else masks.any(axis=0)
        if self._opacity is not None:
            valid &= self._dataset.read(self._opacity, window=window) > 0
        return valid

    def _percentiles(self) -> NDArray[np.float64]:
        """Return the lower and upper limit of each band, ``(1 or 3, 2)``.

        Pixels that are 0 in all bands do not count, as rasters often have a black border that nodata does not tell of.
        """
        block = self._dataset.block_shapes[self._bands[0] - 1]
        values = sample_pixels(self._read_native, self.width, self.height, block)
        if values is None:
            return np.tile([0.0, 255.0], (1 if len(self._bands) == 1 and self._palette is None else 3, 1))
        counted = values[:, (values != 0).any(axis=0)]
        if not (counted != counted[:, :1]).any():  # 0 and one other value, as in a mask: 0 is half of the contrast
            counted = values
        limits: NDArray[np.float64] = np.percentile(counted, STRETCH_PERCENTILES, axis=1).T.astype(np.float64)
        return limits

    def _to_8_bit(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Scale ``(1 or 3, h, w)`` values into 0..255."""
        scaled: NDArray[Any]
        if self._limits is None:
            scaled = np.clip(np.nan_to_num(values), 0, 255)
            return scaled.astype(np.uint8)
        return stretch_between(values, self._limits)


def stretch_between(values: NDArray[Any], limits: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Scale ``(bands, h, w)`` values so that the limits of each band, ``(1 or bands, 2)``, become 0 and 255."""
    low = limits[:, 0, None, None]
    span = limits[:, 1, None, None] - low
    # A constant band has no span; it becomes black.
    scaled = (np.nan_to_num(values) - low) / np.where(span > 0, span, np.inf)
    eight_bit: NDArray[np.uint8] = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    return eight_bit


def stretches_by_itself(dataset: rasterio.DatasetReader, path: str, bands: tuple[int, ...] | None) -> bool:
    """Whether a raster that `open_input` opened is stretched if that is left to its data type.

    See `RasterSource` for arguments and errors.
    """
    return not _is_8_bit(dataset, rgb_bands(dataset, path, bands))


def open_input(path: str) -> rasterio.DatasetReader:
    """Open a raster of the user's.

    Raises:
        RefSAMError: With code ``input`` when that fails, or it has no bands.
    """
    try:
        dataset = open_raster(path)
    except RasterioError as error:
        if not os.path.exists(path):
            raise RefSAMError("input", f"Raster '{path}' does not exist; check its path.") from error
        raise RefSAMError("input", f"'{path}' cannot be read as a raster; give a file that GDAL opens.") from error
    except UnicodeError as error:
        raise RefSAMError("input", f"Raster '{path}' has a name that is no UTF-8; rename it.") from error
    if dataset.count == 0:
        dataset.close()
        raise RefSAMError("input", f"Raster '{path}' has no bands of its own; give one of its subdatasets.")
    return dataset


def reading_failure(error: RasterioError) -> str:
    """What GDAL says of a failure to read, which rasterio only refers to."""
    return str(error.__cause__ or error).rstrip(".")


def _is_8_bit(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> bool:
    """Whether the values of bands are bytes, or the colours of a palette."""
    return _has_palette(dataset, bands) or {dataset.dtypes[band - 1] for band in bands} == {"uint8"}


def _has_palette(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> bool:
    return len(bands) == 1 and dataset.colorinterp[bands[0] - 1] == ColorInterp.palette


def _palette(dataset: rasterio.DatasetReader, bands: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Return the colours and opacities of a single palette band as ``(4, entries)``, or ``None``."""
    if not _has_palette(dataset, bands):
        return None
    table = np.zeros((4, np.iinfo(dataset.dtypes[bands[0] - 1]).max + 1), np.uint8)
    table[3] = 255  # what is not listed is black
    for index, colour in dataset.colormap(bands[0]).items():
        table[:, index] = colour
    return table
