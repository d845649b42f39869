"""A QGIS with RefSAM's provider, and small data to run it on."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, osr
from qgis.core import (
    QgsApplication,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

ROOT = Path(__file__).resolve().parents[2]
EPSG, WEST, NORTH, GSD, SIDE = 32633, 391200.0, 5820600.0, 0.5, 300
SQUARES = ((30, 40), (120, 200), (220, 90), (200, 220))
"""Row and column of the upper left corners of the blue squares in the raster, 24 pixels wide."""

gdal.UseExceptions()


@pytest.fixture
def provider(qgis_app):
    from refsam_qgis.plugin import RefSAMPlugin

    plugin = RefSAMPlugin(None)
    plugin.initProcessing()
    yield QgsApplication.processingRegistry().providerById("refsam")
    plugin.unload()


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmentbyreference").create()


@pytest.fixture(scope="session")
def engine_python():
    python = Path(os.environ["REFSAM_ENGINE_PYTHON"])  # scripts/test sets it
    assert python.is_file()
    return python


@pytest.fixture(scope="session")
def raster_path(tmp_path_factory):
    """A grey ground with blue squares, in a folder with a space and an umlaut."""
    path = tmp_path_factory.mktemp("größe ж") / "my raster.tif"
    pixels = np.full((3, SIDE, SIDE), 90, np.uint8) + np.random.default_rng(0).integers(
        0, 12, (3, SIDE, SIDE), np.uint8
    )
    for row, column in SQUARES:
        pixels[:, row : row + 24, column : column + 24] = np.array([30, 120, 230], np.uint8)[:, None, None]
    dataset = gdal.GetDriverByName("GTiff").Create(str(path), SIDE, SIDE, 3, gdal.GDT_Byte)
    reference_system = osr.SpatialReference()
    reference_system.ImportFromEPSG(EPSG)
    dataset.SetProjection(reference_system.ExportToWkt())
    dataset.SetGeoTransform((WEST, GSD, 0, NORTH, 0, -GSD))
    dataset.WriteArray(pixels)
    dataset = None
    return str(path)


@pytest.fixture
def raster(qgis_app, raster_path):
    layer = QgsRasterLayer(raster_path, "raster")
    assert layer.isValid()
    return layer


@pytest.fixture
def references(qgis_app):
    """A layer in memory with the first two squares and their class."""
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:{EPSG}&field=fid:string(20)", "references", "memory")
    for row, column in SQUARES[:2]:
        feature = QgsFeature(layer.fields())
        left, top = WEST + column * GSD, NORTH - row * GSD
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(left, top - 24 * GSD, left + 24 * GSD, top)))
        feature.setAttributes(["blue square"])
        assert layer.dataProvider().addFeature(feature)
    return layer


@pytest.fixture
def references_path(references, tmp_path):
    """The same in a GeoPackage."""
    path = str(tmp_path / "references.gpkg")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.layerOptions = ["FID=key"]
    error, *_ = QgsVectorFileWriter.writeAsVectorFormatV3(references, path, QgsCoordinateTransformContext(), options)
    assert error == QgsVectorFileWriter.WriterError.NoError
    return path


@pytest.fixture
def context(qgis_app):
    return QgsProcessingContext()


class Feedback(QgsProcessingFeedback):
    """Keeps what a run says."""

    def __init__(self):
        super().__init__()
        self.errors = []

    def reportError(self, error, fatalError=False):
        self.errors.append(error)


@pytest.fixture
def feedback(qgis_app):
    return Feedback()


@pytest.fixture(scope="session")
def untrained_checkpoint(engine_python, tmp_path_factory):
    """Weights of the compact SAM as they are before training: enough to run everything, good for nothing."""
    path = tmp_path_factory.mktemp("weights") / "compact.safetensors"
    code = (
        "import sys, torch; from pathlib import Path; torch.manual_seed(0)\n"
        "from refsam_qgis.engine.models.sam import build_sam\n"
        "from refsam_qgis.engine.models.checkpoints import save_weights\n"
        "save_weights(build_sam('compact').state_dict(), Path(sys.argv[1]))"
    )
    subprocess.run([engine_python, "-c", code, path], cwd=ROOT, check=True)
    return str(path)
