"""What a stretch is made of: the raster's own pixels, wherever they lie, whatever its pyramids say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from refsam_qgis.engine.rasters import sampling
from refsam_qgis.engine.rasters.sampling import sample_pixels
from refsam_qgis.engine.rasters.source import RasterSource

HEIGHT, WIDTH = 2000, 3000


@pytest.fixture(params=["all over", "in spots"])
def size(request, monkeypatch):
    """Whether rasters of the tests are small or large."""
    monkeypatch.setattr(sampling, "SMALL", HEIGHT * WIDTH if request.param == "all over" else 0)


def sample(values, valid=None, block=(1, WIDTH)):
    """Return the sample of an array and how often each pixel of it was read."""
    height, width = values.shape[1:]
    valid = np.ones((height, width), bool) if valid is None else valid
    seen = np.zeros((height, width), int)

    def read(window):
        rows, columns = window.toslices()
        assert window.width * window.height <= max(sampling.AT_ONCE, block[0] * block[1])
        seen[rows, columns] += 1
        inside = valid[rows, columns]
        return (values[:, rows, columns] if inside.any() else None), inside

    return sample_pixels(read, width, height, block), seen


@pytest.mark.parametrize("internal", [True, False])
def test_pyramids_do_not_change_the_stretch(write_raster, write_virtual, size, internal):
    """Averages lie closer together than pixels."""
    noise = np.random.default_rng(0).normal(3000, 800, (1, 1200, 2500)).clip(1).astype(np.uint16)
    path = write_raster(noise, tiled=True)
    mosaic = write_virtual(path, "mosaic.vrt", noise.shape)
    Path(mosaic).write_text(Path(mosaic).read_text().replace("Byte", "UInt16"))
    with RasterSource(path) as raster:
        plain = raster.limits
    with rasterio.Env(TIFF_USE_OVR=not internal), rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
    assert Path(path + ".ovr").exists() is not internal
    for each in (path, mosaic):
        with RasterSource(each) as raster:
            assert raster.limits == plain, each


def test_the_sample_is_like_the_raster(size):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = np.stack([rows, columns]).astype(np.uint16)
    found, seen = sample(values)
    assert 500_000 < found.shape[1] < 2_000_000 and seen.max() == 1
    for band, longest in zip(found, (HEIGHT, WIDTH), strict=True):
        assert np.abs(np.percentile(band, (2, 50, 98)) / longest - (0.02, 0.5, 0.98)).max() < 0.01


def test_a_large_raster_is_not_read_all_over(monkeypatch):
    monkeypatch.setattr(sampling, "SMALL", 0)
    _, seen = sample(np.ones((1, HEIGHT, WIDTH), np.uint16))
    assert seen.mean() < 0.2


@pytest.mark.parametrize("nothing", ["nodata", "zero"])
def test_what_lies_between_the_spots_is_found(size, nothing):
    values = np.zeros((1, HEIGHT, WIDTH), np.float32)
    values[0, 100:112, 200:230] = 7
    found, _ = sample(values, values[0] > 0 if nothing == "nodata" else None)
    assert (found == 7).any() and (nothing == "zero" or (found == 7).all())


def test_nothing_is_found_where_nothing_is(size):
    assert sample(np.ones((1, HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH), bool))[0] is None


def test_how_a_file_is_laid_out_does_not_matter(size, monkeypatch):
    values = np.random.default_rng(1).integers(0, 1000, (3, HEIGHT, WIDTH), dtype=np.uint16)
    expected = np.sort(sample(values)[0])
    monkeypatch.setattr(sampling, "AT_ONCE", 2**18)
    for block in ((7, WIDTH), (256, 256), (64, 4096), (HEIGHT, WIDTH), (1, 1)):
        found, seen = sample(values, block=block)
        assert np.array_equal(np.sort(found), expected) and seen.max() == 1
