"""A QGIS with RefSAM's provider, and small data to run it on."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal, ogr, osr
from qgis.analysis import QgsNativeAlgorithms
from qgis.core import (
    QgsApplication,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
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
def native_algorithms(qgis_app):
    registry = QgsApplication.processingRegistry()
    if registry.providerById("native") is not None:  # a test before this one started Processing as a whole
        yield
        return
    native = QgsNativeAlgorithms()
    registry.addProvider(native)
    yield
    registry.removeProvider(native)  # it must not outlive QGIS


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
def picture_path(raster_path, tmp_path):
    """The same without georeference and CRS."""
    path = tmp_path / "picture.png"
    gdal.Translate(str(path), raster_path, format="PNG")
    path.with_name("picture.png.aux.xml").unlink()
    return str(path)


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
    context = QgsProcessingContext()
    yield context
    context.temporaryLayerStore().removeAllMapLayers()  # they must not outlive QGIS


class Feedback(QgsProcessingFeedback):
    """Keeps what a run says."""

    def __init__(self):
        super().__init__()
        self.errors = []
        self.warnings = []
        self.infos = []

    def reportError(self, error, fatalError=False):
        self.errors.append(error)

    def pushWarning(self, warning):
        self.warnings.append(warning)

    def pushInfo(self, info):
        self.infos.append(info)


@pytest.fixture
def feedback(qgis_app):
    return Feedback()


@pytest.fixture
def run(context, feedback):
    """Check and run an algorithm as Processing's dialog does; a failure raises with its sentences."""

    def run(algorithm, parameters):
        ok, message = algorithm.checkParameterValues(parameters, context)
        if not ok:
            raise QgsProcessingException(message)
        results, ok = algorithm.run(parameters, context, feedback)
        if not ok:
            raise QgsProcessingException("\n".join(feedback.errors))
        return results

    return run


def write_found(path, rows):
    """Write polygons as the engine does, one for each row of attributes."""
    kinds = {str: ogr.OFTString, float: ogr.OFTReal, int: ogr.OFTInteger64}
    source = ogr.GetDriverByName("GPKG").CreateDataSource(path)
    reference_system = osr.SpatialReference()
    reference_system.ImportFromEPSG(EPSG)
    layer = source.CreateLayer("objects", reference_system, ogr.wkbPolygon)
    for name, value in rows[0].items():
        layer.CreateField(ogr.FieldDefn(name, kinds[type(value)]))
    for row in rows:
        feature = ogr.Feature(layer.GetLayerDefn())
        x, y = WEST + row["object_id"] % SIDE, NORTH - 50
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON(({x} {y}, {x + 1} {y}, {x + 1} {y + 1}, {x} {y}))"))
        for name, value in row.items():
            feature.SetField(name, value)
        layer.CreateFeature(feature)


@pytest.fixture
def engine(monkeypatch):
    """Replace the engine: the test says what a job gets for an answer, and finds the jobs in ``jobs``."""
    from refsam_qgis.algorithms import base
    from refsam_qgis.engine.job import from_dict

    class Engine:
        def __init__(self):
            self.jobs = []

        def answer(self, job):
            raise NotImplementedError

        def run(self, document, reporter):
            job = from_dict(document)
            self.jobs.append(job)
            reporter.progress(0.5, "half", 100.0)
            return self.answer(job)

    instance = Engine()
    monkeypatch.setattr(base, "shared_client", lambda: instance)
    monkeypatch.setattr(base, "engine_python", lambda: Path("python"))
    return instance


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
