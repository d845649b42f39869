"""Rasters whose CRS was set in QGIS, on their way to the engine."""

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProcessingException,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

from refsam_qgis.algorithms import engine_rasters
from refsam_qgis.algorithms.engine_rasters import EngineRasters
from refsam_qgis.engine.errors import RefSAMError

from .conftest import EPSG, WEST, write_found

GIVEN = "EPSG:25833"
FOUND = {"object_id": 1, "class": "blue square", "class_id": 1, "score": 0.75, "area_m2": 0.5}


def layer_of(path, crs=GIVEN):
    """A layer of a file, with a CRS set as 'Set Layer CRS' does."""
    layer = QgsRasterLayer(str(path), "layer")
    assert layer.isValid()
    layer.setCrs(QgsCoordinateReferenceSystem(crs))
    return layer


def epsg_of(path):
    return gdal.Open(path).GetSpatialRef().GetAuthorityCode(None)


@pytest.fixture
def jpeg_path(raster_path, tmp_path):
    """The picture of the raster, which lies on the map by a world file and says no CRS."""
    path = str(tmp_path / "größe b.jpg")
    gdal.Translate(path, raster_path, format="JPEG", creationOptions=["WORLDFILE=YES", "QUALITY=95"])
    Path(path + ".aux.xml").unlink()
    assert gdal.Open(path).GetSpatialRef() is None
    return path


def test_a_file_is_read_itself_in_its_own_crs(raster, raster_path):
    assert EngineRasters().path(raster) == EngineRasters().path(raster_path) == raster_path


def test_a_layer_without_crs_is_read_as_its_file(qgis_app, jpeg_path):
    assert EngineRasters().path(layer_of(jpeg_path, "")) == jpeg_path


def test_a_crs_set_in_qgis_reaches_the_engine(raster_path, qgis_app):
    path = EngineRasters().path(layer_of(raster_path))
    assert epsg_of(path) == "25833" and epsg_of(raster_path) == str(EPSG)
    assert os.path.basename(path) == os.path.basename(raster_path)  # as results say where they come from
    virtual, file = gdal.Open(path), gdal.Open(raster_path)
    assert virtual.GetGeoTransform() == file.GetGeoTransform()
    assert (virtual.ReadAsArray() == file.ReadAsArray()).all()


def test_a_crs_of_ones_own_reaches_the_engine(raster_path, qgis_app):
    own = QgsCoordinateReferenceSystem.fromProj("+proj=tmerc +lat_0=52 +lon_0=13.4 +k=1 +ellps=bessel +units=m")
    path = EngineRasters().path(layer_of(raster_path, own))
    assert "lat_0=52 +lon_0=13.4" in gdal.Open(path).GetSpatialRef().ExportToProj4()


def test_everything_else_of_the_file_stays(qgis_app, tmp_path):
    path = str(tmp_path / "four.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(path, 20, 10, 4, gdal.GDT_UInt16)
    dataset.SetGeoTransform((WEST, 1, 0.5, 100, 0.5, -1))
    dataset.WriteArray(np.arange(800, dtype=np.uint16).reshape(4, 10, 20))
    for band, colour in enumerate((gdal.GCI_BlueBand, gdal.GCI_GreenBand, gdal.GCI_RedBand, gdal.GCI_Undefined), 1):
        dataset.GetRasterBand(band).SetColorInterpretation(colour)
        dataset.GetRasterBand(band).SetNoDataValue(7)
        dataset.GetRasterBand(band).SetDescription(f"band {band}")
    dataset.GetRasterBand(1).SetMetadataItem("CLASS_1", "roof")  # as the masks of RefSAM carry it
    dataset = None
    virtual, file = gdal.Open(EngineRasters().path(layer_of(path))), gdal.Open(path)
    assert virtual.GetGeoTransform() == file.GetGeoTransform()
    for number in range(1, 5):
        band, same = virtual.GetRasterBand(number), file.GetRasterBand(number)
        assert band.GetColorInterpretation() == same.GetColorInterpretation()
        assert (band.DataType, band.GetNoDataValue(), band.GetDescription()) == (gdal.GDT_UInt16, 7, f"band {number}")
        assert band.GetMetadataItem("CLASS_1") == same.GetMetadataItem("CLASS_1")
    assert virtual.GetRasterBand(1).GetMetadataItem("CLASS_1") == "roof"


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_where_a_raster_has_no_data_stays(qgis_app, tmp_path, kind):
    path = str(tmp_path / "holes.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(path, 20, 10, 4 if kind == "alpha" else 3, gdal.GDT_Byte)
    dataset.SetGeoTransform((WEST, 1, 0, 100, 0, -1))
    if kind == "alpha":
        dataset.GetRasterBand(4).SetColorInterpretation(gdal.GCI_AlphaBand)
        mask = dataset.GetRasterBand(4)
    else:
        dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
        mask = dataset.GetRasterBand(1).GetMaskBand()
    mask.WriteArray(np.repeat([[0, 255]], 10, axis=1).repeat(10, axis=0).astype(np.uint8))
    mask = dataset = None
    virtual, file = gdal.Open(EngineRasters().path(layer_of(path))), gdal.Open(path)
    for band in (1, 3):
        same, mask = file.GetRasterBand(band), virtual.GetRasterBand(band)
        assert mask.GetMaskFlags() == same.GetMaskFlags()
        assert (mask.GetMaskBand().ReadAsArray() == same.GetMaskBand().ReadAsArray()).all()


def test_an_image_without_georeference_stays_one(raster_path, qgis_app, tmp_path):
    path = str(tmp_path / "picture.png")
    gdal.Translate(path, raster_path, format="PNG")
    Path(path + ".aux.xml").unlink()
    assert gdal.Open(EngineRasters().path(layer_of(path))).GetGeoTransform(can_return_null=True) is None


def test_a_relative_path_is_one_from_here(raster_path, qgis_app, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(raster_path).parent)
    path = EngineRasters().path(layer_of(Path(raster_path).name))
    monkeypatch.chdir(tmp_path)
    assert gdal.Open(path).ReadAsArray().any()


@pytest.mark.parametrize("form", ["zip", "gpkg"])
def test_rasters_inside_other_files_are_read_too(raster_path, qgis_app, tmp_path, form):
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "rasters.zip", "w") as file:
            file.write(raster_path, "inner.tif")
        source = f"/vsizip/{tmp_path}/rasters.zip/inner.tif"
    else:
        gdal.Translate(str(tmp_path / "r.gpkg"), raster_path, creationOptions=["RASTER_TABLE=inner", "TILE_FORMAT=PNG"])
        source = f"GPKG:{tmp_path}/r.gpkg:inner"
    path = EngineRasters().path(layer_of(source))
    assert epsg_of(path) == "25833" and gdal.Open(path).ReadAsArray().any()


def test_the_same_raster_has_one_path_in_a_run_and_one_text_in_all(raster_path, qgis_app):
    rasters = EngineRasters()
    first, again = rasters.path(layer_of(raster_path)), rasters.path(layer_of(raster_path))
    other = EngineRasters().path(layer_of(raster_path))
    assert first == again != other
    assert Path(first).read_bytes() == Path(other).read_bytes()
    assert rasters.path(layer_of(raster_path, "EPSG:32632")) != first


def test_rasters_of_one_name_do_not_meet(raster_path, qgis_app, tmp_path):
    other = tmp_path / Path(raster_path).name
    other.write_bytes(Path(raster_path).read_bytes())
    rasters = EngineRasters()
    assert len({rasters.path(layer_of(raster_path)), rasters.path(layer_of(other))}) == 2


def test_a_full_disk_is_explained(raster_path, qgis_app, monkeypatch):
    monkeypatch.setattr(engine_rasters.gdal, "Translate", lambda *arguments, **options: None)
    with pytest.raises(RefSAMError, match=r"my raster\.tif' has in QGIS cannot be handed on .*; free space"):
        EngineRasters().path(layer_of(raster_path))


@pytest.fixture
def segment(provider, run, raster, references):
    """Run on the raster with the references, unless the test says otherwise."""
    usual = {"INPUT": raster, "REFERENCES": references, "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"}
    return lambda **parameters: run(provider.algorithm("segmentbyreference").create(), {**usual, **parameters})


def test_sentences_name_the_users_file(segment, engine, raster, raster_path):
    def answer(job):
        raise RefSAMError("input", f"Raster '{job.input}' cannot be read; restore it.")

    engine.answer = answer
    raster.setCrs(QgsCoordinateReferenceSystem(GIVEN))
    with pytest.raises(
        QgsProcessingException, match=f"^Raster '{re.escape(raster_path)}' cannot be read; restore it.$"
    ):
        segment()


@pytest.mark.parametrize(
    ("name", "parameters", "read"),
    [
        ("segmentbyreference", {"INPUT": 1, "REFERENCES": 2, "REFERENCE_RASTER": 1}, "input references.raster"),
        ("segmentwithprompts", {"INPUT": 1, "BOXES": 2}, "input"),
        ("segmenteverything", {"INPUT": 1}, "input"),
        ("segmentfolder", {"INPUTS": [1], "REFERENCES": 2, "REFERENCE_RASTER": 1}, "inputs.0 references.raster"),
        ("buildreferenceset", {"RASTERS": [1], "REFERENCES": 2}, "sources.0.raster"),
        ("trainadapters", {"RASTERS": [1], "LABELS": 2}, "rasters.0"),
        ("evaluate", {"RESULT": 1, "TRUTH": 1}, "result truth"),
    ],
)
def test_every_algorithm_hands_the_crs_on(
    provider, engine, raster, references, context, feedback, tmp_path, name, parameters, read
):
    crs_read = []

    def answer(job):
        for field in read.split():
            value = job
            for part in field.split("."):
                value = value[int(part)] if part.isdecimal() else getattr(value, part)
            crs_read.append(epsg_of(value))
        raise RefSAMError("input", "That is all.")

    engine.answer = answer
    raster.setCrs(QgsCoordinateReferenceSystem(GIVEN))
    layers = {1: raster, 2: references}
    given = {key: [layers[1]] if isinstance(value, list) else layers[value] for key, value in parameters.items()}
    algorithm = provider.algorithm(name).create()
    outputs = {p.name(): str(tmp_path / p.name()) for p in algorithm.parameterDefinitions() if p.isDestination()}
    outputs |= {key: "TEMPORARY_OUTPUT" for key in outputs if key in ("OUTPUT", "MASK", "PROBABILITY")}
    algorithm.run({**outputs, **given}, context, feedback)
    assert feedback.errors == ["That is all."] and crs_read == ["25833"] * len(read.split())


def test_a_failed_raster_of_a_folder_is_the_users(provider, run, engine, raster, raster_path, references, context):
    def answer(job):
        rows = [{"source": job.inputs[0], "reason": f"'{job.inputs[0]}' is damaged."}]
        counts = {"done": 0, "skipped": 0, "failed": 1, "object_count": 0, "device": None}
        write_found(job.merged, [{**FOUND, "source": "x"}])
        return {**counts, "failures": rows, "not_merged": []}

    engine.answer = answer
    raster.setCrs(QgsCoordinateReferenceSystem(GIVEN))
    results = run(
        provider.algorithm("segmentfolder").create(),
        {
            "INPUTS": [raster], "REFERENCES": references, "REFERENCE_RASTER": raster,
            "OUTPUT_FOLDER": "TEMPORARY_OUTPUT", "OUTPUT": "TEMPORARY_OUTPUT", "FAILURES": "TEMPORARY_OUTPUT",
        },
    )  # fmt: skip
    (row,) = context.getMapLayer(results["FAILURES"]).getFeatures()
    assert (row["source"], row["reason"]) == (raster_path, f"'{raster_path}' is damaged.")


def test_a_real_run_on_a_picture_whose_crs_is_set_in_qgis(
    segment, jpeg_path, references, context, untrained_checkpoint, engine_python, tmp_path
):
    """Its examples come in degrees; mask and polygons lie in the CRS of the layer."""
    utm = QgsCoordinateReferenceSystem(f"EPSG:{EPSG}")
    degrees = QgsVectorLayer("Polygon?crs=EPSG:4326", "degrees", "memory")
    to_degrees = QgsCoordinateTransform(utm, degrees.crs(), QgsProject.instance().transformContext())
    for feature in references.getFeatures():
        geometry = feature.geometry()
        geometry.transform(to_degrees)
        feature.setGeometry(geometry)
        feature.setAttributes([])
        assert degrees.dataProvider().addFeature(feature)
    report = tmp_path / "report.json"
    results = segment(
        INPUT=layer_of(jpeg_path, utm), REFERENCES=degrees, CHECKPOINT=untrained_checkpoint, DEVICE="cpu",
        REPORT=str(report),
    )  # fmt: skip
    assert epsg_of(results["MASK"]) == str(EPSG)
    assert context.getMapLayer(results["OUTPUT"]).crs() == utm
    read = json.loads(report.read_text(encoding="utf-8"))["input"]
    assert [stamp[0] for stamp in read["files"]] == [os.path.realpath(jpeg_path)]
