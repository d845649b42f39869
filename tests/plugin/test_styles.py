"""The styles of results that QGIS loads, through Processing's own way of loading them."""

import gc

import numpy as np
import pytest
from osgeo import gdal, ogr
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingOutputLayerDefinition,
    QgsProject,
    QgsRectangle,
    QgsRenderContext,
)
from qgis.PyQt import sip

from refsam_qgis.algorithms import styles
from refsam_qgis.engine.palette import COLOURS, class_colour

from .conftest import WEST, write_found

CLASSES = {1: "pool", 3: "größe"}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmentbyreference").create()


@pytest.fixture
def found(engine):
    """The engine finds one polygon of each class, and writes rasters as small as can be."""

    def raster(path, kind, tags):
        dataset = gdal.GetDriverByName("GTiff").Create(path, 4, 4, 1, kind)
        dataset.GetRasterBand(1).WriteArray(np.tile(np.array([0, 1, 3, 0]), (4, 1)))
        dataset.GetRasterBand(1).SetMetadata(tags)

    def answer(job):
        rows = [
            {"object_id": i, "class": name, "class_id": i, "score": 0.5, "area_m2": 1.0} for i, name in CLASSES.items()
        ]
        write_found(job.outputs.polygons, rows)
        raster(job.outputs.mask, gdal.GDT_Byte, {"CLASS_1": "pool", "CLASS_2": "ship", "CLASS_3": "größe"})
        if job.outputs.probability:
            raster(job.outputs.probability, gdal.GDT_Float32, {})
        return {"object_count": 2, "device": "cpu"}

    engine.answer = answer


@pytest.fixture
def load(qgis_processing, algorithm, found, run, raster, references, context, feedback):
    """Run the algorithm, load its outputs as Processing's dialog does, and return the layers by their output."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    def load(INPUT=raster, **outputs):
        project = QgsProject.instance()
        context.setProject(project)
        wanted = {name: QgsProcessingOutputLayerDefinition(sink, project) for name, sink in outputs.items()}
        usual = {"INPUT": INPUT, "REFERENCES": references, "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"}
        results = run(algorithm, {**usual, **wanted})
        gc.collect()  # nothing that the loading needs may hang on the run
        assert handleAlgorithmResults(algorithm, context, feedback)
        layers = project.mapLayers().values()
        return {
            name: next(layer for layer in layers if results[name] in (layer.id(), layer.source().split("|")[0]))
            for name in wanted
        }

    yield load
    QgsProject.instance().clear()


@pytest.mark.parametrize("target", ["TEMPORARY_OUTPUT", "found.gpkg"])
def test_polygons_have_a_colour_for_each_class(load, tmp_path, target):
    layer = load(OUTPUT=target if target == "TEMPORARY_OUTPUT" else str(tmp_path / target))["OUTPUT"]
    renderer = layer.renderer()
    assert renderer.type() == "categorizedSymbol" and renderer.classAttribute() == "class"
    categories = renderer.categories()  # they own the symbols
    fills = {category.value(): category.symbol().symbolLayer(0) for category in categories}
    assert list(fills) == ["pool", "größe"]
    for class_id, name in CLASSES.items():
        assert fills[name].fillColor().getRgb()[:3] == fills[name].strokeColor().getRgb()[:3] == class_colour(class_id)
        assert 0 < fills[name].fillColor().alpha() < fills[name].strokeColor().alpha() == 255


@pytest.mark.parametrize("target", ["TEMPORARY_OUTPUT", "found.gpkg", "found.shp"])
def test_polygons_that_a_person_has_changed_are_shown(load, engine, tmp_path, target):
    """As results of a folder's earlier runs may hold them: without a class, or of one that was renamed or added."""
    found = engine.answer

    def answer(job):
        result = found(job)
        source = ogr.Open(job.outputs.polygons, 1)
        for attributes in ({}, {"class": 'pond\'s "shore"', "class_id": 1}, {"class": "barn"}):
            feature = ogr.Feature(source.GetLayer(0).GetLayerDefn())
            feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON(({WEST} 0,{WEST} 9,{WEST + 9} 9,{WEST} 0))"))
            for name, value in attributes.items():
                feature.SetField(name, value)
            source.GetLayer(0).CreateFeature(feature)
        return result

    engine.answer = answer
    layer = load(OUTPUT=target if target == "TEMPORARY_OUTPUT" else str(tmp_path / target))["OUTPUT"]
    context = QgsRenderContext()
    renderer = layer.renderer().clone()
    renderer.startRender(context, layer.fields())
    shown = [renderer.symbolForFeature(feature, context) for feature in layer.getFeatures()]
    renderer.stopRender(context)
    assert len(shown) == 5 and all(shown)
    labels = [category.label() for category in renderer.categories()]
    assert labels == ['pond\'s "shore"', "pool", "größe", "barn", "Others"]


@pytest.mark.parametrize("target", ["TEMPORARY_OUTPUT", "found.gpkg"])
def test_what_is_found_on_a_raster_without_crs_is_loaded_without_one(load, picture_path, tmp_path, target):
    """So that it lies over the raster; GeoPackages say that a CRS is not defined by one that QGIS takes for a CRS."""
    target = target if target == "TEMPORARY_OUTPUT" else str(tmp_path / target)
    layer = load(INPUT=picture_path, OUTPUT=target)["OUTPUT"]
    assert layer.featureCount() == 2 and not layer.crs().isValid()


def test_a_table_is_loaded_as_it_is(load, tmp_path):
    layer = load(OUTPUT=str(tmp_path / "found.csv"))["OUTPUT"]
    assert not layer.isSpatial() and [feature["class"] for feature in layer.getFeatures()] == ["pool", "größe"]


def test_a_mask_has_the_polygons_colours_and_names(load, tmp_path):
    renderer = load(MASK=str(tmp_path / "mask.tif"))["MASK"].renderer()
    entries = {entry.value: (entry.label, entry.color.getRgb()[:3]) for entry in renderer.classes()}
    assert entries == {i: (name, class_colour(i)) for i, name in ((1, "pool"), (2, "ship"), (3, "größe"))}
    assert renderer.opacity() < 1


def test_probabilities_run_from_nothing_to_full(load, tmp_path):
    layer = load(PROBABILITY=str(tmp_path / "p.tif"))["PROBABILITY"]
    shader = layer.renderer().shader().rasterShaderFunction()
    assert (shader.minimumValue(), shader.maximumValue()) == (0, 1)
    items = shader.colorRampItemList()
    assert [item.value for item in items] == [0, 0.25, 0.5, 0.75, 1]
    assert items[0].color.alpha() == 0 and items[-1].color.alpha() == 255
    assert layer.renderer().block(1, QgsRectangle(0, -4, 4, 0), 4, 4).isValid()


def test_without_loading_nothing_is_styled(algorithm, found, run, raster, references, context):
    run(
        algorithm,
        {"INPUT": raster, "REFERENCES": references, "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"},
    )
    assert context.layersToLoadOnCompletion() == {}


def test_styles_wait_as_long_as_their_run(qgis_app):
    styles._waiting.clear()
    details = QgsProcessingContext.LayerDetails("name", QgsProject.instance())
    contexts = [QgsProcessingContext(), QgsProcessingContext()]
    for context in contexts:
        context.addLayerToLoadOnCompletion("layer", details)
        styles.style_when_loaded(context, "layer", styles.ObjectStyle)
    first, second = styles._waiting
    context = contexts.pop()
    del context
    gc.collect()
    assert sip.isdeleted(second) and not sip.isdeleted(first)
    styles.style_when_loaded(contexts[0], "layer", styles.ObjectStyle)
    assert second not in styles._waiting and not sip.isdeleted(styles._waiting[-1])


def test_colours_repeat_and_differ():
    assert len(set(COLOURS)) == len(COLOURS)
    assert class_colour(len(COLOURS) + 1) == class_colour(1) == COLOURS[0]
