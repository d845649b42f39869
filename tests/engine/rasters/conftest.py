from __future__ import annotations

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from scipy.ndimage import gaussian_filter

from refsam_qgis.engine.rasters.geodesy import GroundMeasure
from refsam_qgis.engine.rasters.objects import PixelGrid
from refsam_qgis.engine.rasters.vectorise import Vectoriser

UTM = CRS.from_epsg(32640)
NORTH_UP = from_origin(500000, 2790000, 0.5, 0.5)


@pytest.fixture(scope="session")
def pixel_grid():
    """The grid of a part of a raster in UTM, or of the transform and CRS given."""

    def build(transform=NORTH_UP, crs=UTM, raster_width=1000, origin=(0, 0)):
        measure = GroundMeasure(crs)
        here = transform @ Affine.translation(origin[1], origin[0])
        return PixelGrid(here, measure, measure.pixel_size(transform, 100, 100), raster_width, origin)

    return build


@pytest.fixture(scope="session")
def noise_classes():
    """Class ids 0, 1, 2 in blobs of about `blur` pixels."""

    def build(seed=0, shape=(90, 70), blur=1.0):
        noise = np.random.default_rng(seed).normal(size=shape)
        if blur:
            noise = gaussian_filter(noise, blur)
        return np.digitize(noise / noise.std(), [0.0, 0.9]).astype(np.uint8)

    return build


@pytest.fixture(scope="session")
def pixel_objects():
    """The objects of a class raster with their pixel outlines."""

    def build(classes, grid, options, scores=None, step=None, across=None):
        height, width = classes.shape
        vectoriser = Vectoriser(grid, width, options)
        scores = np.full(classes.shape, 0.75, np.float32) if scores is None else scores
        for row in range(0, height, step or height):
            for column in range(0, width, across or width):
                part = slice(row, row + (step or height)), slice(column, column + (across or width))
                vectoriser.add(row, column, classes[part], scores[part])
        return vectoriser.finish()

    return build
