"""``refsam:segmentbyreference`` inside QGIS; the engine is real where its results matter, recorded elsewhere."""

import shutil
from pathlib import Path

import pytest
from osgeo import ogr
from qgis.analysis import QgsNativeAlgorithms
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

from refsam_qgis.algorithms import base
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import from_dict

PUBLIC = [
    "INPUT", "REFERENCE_RASTER", "REFERENCES", "CLASS_FIELD", "ANNOTATION", "MODEL", "CHECKPOINT", "ADAPTERS", "METHOD",
    "BANDS", "STRETCH", "EXTENT", "TILE_SIZE", "OVERLAP", "THRESHOLD", "MIN_AREA", "SIMPLIFY", "DEVICE", "OUTPUT",
    "MASK", "PROBABILITY", "REPORT",
]  # fmt: skip
FIRST_RUN = {
    "INPUT", "REFERENCES", "CLASS_FIELD", "REFERENCE_RASTER", "ANNOTATION", "OUTPUT", "MASK", "PROBABILITY", "REPORT",
}  # fmt: skip


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Replace the engine by one that notes the job, keeps its references, and answers with one polygon."""
    jobs = []

    class Client:
        def run(self, document, reporter):
            job = from_dict(document)
            kept = tmp_path / "references.gpkg"
            shutil.copy(job.references.vector, kept)
            jobs.append((job, QgsVectorLayer(str(kept), "kept", "ogr")))
            reporter.progress(0.5, "half", 100.0)
            source = ogr.GetDriverByName("GPKG").CreateDataSource(job.outputs.polygons)
            layer = source.CreateLayer("polygons", geom_type=ogr.wkbPolygon)
            for name, kind in (("class", ogr.OFTString), ("score", ogr.OFTReal), ("area_m2", ogr.OFTReal)):
                layer.CreateField(ogr.FieldDefn(name, kind))
            row = ogr.Feature(layer.GetLayerDefn())
            row.SetGeometry(ogr.CreateGeometryFromWkt("POLYGON((0 0, 1 0, 1 1, 0 0))"))
            for name, value in (("class", "blue square"), ("score", 0.75), ("area_m2", 0.5)):
                row.SetField(name, value)
            layer.CreateFeature(row)
            return {"object_count": 1, "device": "cpu"}

    monkeypatch.setattr(base, "shared_client", Client)
    monkeypatch.setattr(base, "engine_python", lambda: Path("python"))
    yield jobs
    jobs.clear()  # the class above keeps the list, and a layer must not outlive QGIS


def run(algorithm, parameters, context, feedback):
    outputs = {"OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"}
    ok, message = algorithm.checkParameterValues({**outputs, **parameters}, context)
    if not ok:
        raise QgsProcessingException(message)
    results, ok = algorithm.run({**outputs, **parameters}, context, feedback)
    if not ok:
        raise QgsProcessingException("\n".join(feedback.errors))
    return results


def test_parameters_carry_their_public_names(algorithm):
    assert sorted(p.name() for p in algorithm.parameterDefinitions()) == sorted(PUBLIC)
    assert {o.name() for o in algorithm.outputDefinitions()} == {
        "OUTPUT", "MASK", "PROBABILITY", "REPORT", "OBJECT_COUNT", "DEVICE_USED"
    }  # fmt: skip


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert advanced == set(PUBLIC) - FIRST_RUN


def test_every_parameter_is_explained(algorithm):
    assert [p.name() for p in algorithm.parameterDefinitions() if not p.help()] == []


def test_enums_are_static_strings(algorithm):
    enums = [p for p in algorithm.parameterDefinitions() if p.type() == "enum"]
    assert len(enums) == 5 and all(p.usesStaticStrings() for p in enums)


def test_runs_in_the_background(algorithm):
    assert not algorithm.flags() & algorithm.Flag.FlagNoThreading
    assert algorithm.flags() & algorithm.Flag.FlagCanCancel


def test_is_listed_and_explains_when_the_engine_is_missing(provider, monkeypatch, tmp_path):
    monkeypatch.delenv("REFSAM_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    assert [a.id() for a in provider.algorithms()] == ["refsam:segmentbyreference"]
    possible, message = provider.algorithms()[0].canExecute()
    assert not possible and "scripts/setup" in message and str(tmp_path) in message


def test_provider_has_name_and_icon(provider):
    assert provider.name() == "RefSAM" and not provider.icon().isNull()


def test_defaults_make_the_default_job(algorithm, recorded, raster, references, context, feedback):
    results = run(algorithm, {"INPUT": raster, "REFERENCES": references}, context, feedback)
    job, _ = recorded[0]
    plain = type(job)(input=raster.source(), references=job.references, outputs=job.outputs)
    assert job == plain
    assert (job.references.class_field, job.references.raster, job.references.annotation) == (None, None, "complete")
    assert (job.outputs.probability, job.outputs.report) == (None, None)
    assert (results["OBJECT_COUNT"], results["DEVICE_USED"]) == (1, "cpu")
    assert results["MASK"].endswith(".tif") and "PROBABILITY" not in results


def test_polygons_arrive_with_their_attributes(algorithm, recorded, raster, references, context, feedback, tmp_path):
    target = tmp_path / "größe.gpkg"
    run(algorithm, {"INPUT": raster, "REFERENCES": references, "OUTPUT": str(target)}, context, feedback)
    layer = QgsVectorLayer(str(target), "result", "ogr")
    feature = next(layer.getFeatures())
    assert (feature["class"], feature["score"], feature["area_m2"]) == ("blue square", 0.75, 0.5)
    assert layer.crs() == raster.crs()


def test_every_parameter_reaches_the_job(algorithm, recorded, raster, references, context, feedback, tmp_path):
    weights, adapters = tmp_path / "w.pth", tmp_path / "a.safetensors"
    weights.touch()
    adapters.touch()
    run(
        algorithm,
        {
            "INPUT": raster, "REFERENCES": references, "REFERENCE_RASTER": raster, "CLASS_FIELD": "fid",
            "ANNOTATION": "partial", "MODEL": "vit_b", "CHECKPOINT": str(weights), "ADAPTERS": str(adapters),
            "METHOD": "virefsam", "BANDS": [3, 2, 1], "STRETCH": "none",
            "EXTENT": "391210,391250,5820500,5820590 [EPSG:32633]", "TILE_SIZE": 512, "OVERLAP": 25, "THRESHOLD": 0.4,
            "MIN_AREA": 3, "SIMPLIFY": 1, "DEVICE": "cpu", "PROBABILITY": str(tmp_path / "p.tif"),
            "REPORT": str(tmp_path / "r.json"),
        },
        context,
        feedback,
    )  # fmt: skip
    job, kept = recorded[0]
    assert job.model == type(job.model)("vit_b", str(weights), str(adapters), "virefsam", "cpu")
    assert (job.references.raster, job.references.annotation) == (raster.source(), "partial")
    assert (job.bands, job.stretch, job.extent) == ((3, 2, 1), "none", (391210.0, 5820500.0, 391250.0, 5820590.0))
    assert (job.tile_size, job.overlap, job.threshold, job.min_area, job.simplify) == (512, 25.0, 0.4, 3.0, 1.0)
    assert (job.outputs.probability, job.outputs.report) == (str(tmp_path / "p.tif"), str(tmp_path / "r.json"))
    assert [f[job.references.class_field] for f in kept.getFeatures()] == ["blue square"] * 2


def test_an_extent_in_another_crs_is_transformed(algorithm, recorded, raster, references, context, feedback):
    extent = raster.extent()
    to_degrees = QgsCoordinateTransform(
        raster.crs(), QgsCoordinateReferenceSystem("EPSG:4326"), QgsProject.instance().transformContext()
    )
    degrees = to_degrees.transformBoundingBox(extent)
    text = f"{degrees.xMinimum()},{degrees.xMaximum()},{degrees.yMinimum()},{degrees.yMaximum()} [EPSG:4326]"
    run(algorithm, {"INPUT": raster, "REFERENCES": references, "EXTENT": text}, context, feedback)
    xmin, _, _, ymax = recorded[0][0].extent
    # A box in degrees is a little larger than the one it came from.
    assert extent.xMinimum() - 10 < xmin <= extent.xMinimum() and extent.yMaximum() <= ymax < extent.yMaximum() + 10


def test_only_selected_features_are_examples(algorithm, recorded, raster, references, context, feedback):
    references.select(1)
    QgsProject.instance().addMapLayer(references, False)
    selected = QgsProcessingFeatureSourceDefinition(references.id(), selectedFeaturesOnly=True)
    context.setProject(QgsProject.instance())
    run(algorithm, {"INPUT": raster, "REFERENCES": selected}, context, feedback)
    assert recorded[0][1].featureCount() == 1


def test_filtered_features_are_left_out(algorithm, recorded, raster, references_path, context, feedback):
    layer = QgsVectorLayer(references_path, "filtered", "ogr")
    assert layer.setSubsetString("key = 1")
    run(algorithm, {"INPUT": raster, "REFERENCES": layer}, context, feedback)
    assert recorded[0][1].featureCount() == 1


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("Polygon?crs=EPSG:32633", "no features with a geometry"),
        ("NoGeometry?field=a:string", "no features|no geometry"),
    ],
)
def test_useless_examples_are_explained(algorithm, recorded, raster, context, feedback, uri, sentence):
    layer = QgsVectorLayer(uri, "layer", "memory")
    if "NoGeometry" in uri:
        layer.dataProvider().addFeature(QgsFeature(layer.fields()))
    with pytest.raises(QgsProcessingException, match=sentence):
        run(algorithm, {"INPUT": raster, "REFERENCES": layer}, context, feedback)
    assert recorded == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [({"BANDS": [1, 2]}, "2 bands are chosen"), ({"MODEL": "vit_b"}, "needs its SAM checkpoint")],
)
def test_values_that_cannot_work_are_refused(
    algorithm, recorded, raster, references, context, feedback, parameters, sentence
):
    with pytest.raises(QgsProcessingException, match=sentence):
        run(algorithm, {"INPUT": raster, "REFERENCES": references, **parameters}, context, feedback)


def test_a_raster_that_is_no_file_is_refused(algorithm, recorded, references, context, feedback, provider):
    web = QgsRasterLayer("type=xyz&url=file:///nowhere/{z}/{x}/{y}.png&zmax=1&zmin=0", "tiles", "wms")
    QgsProject.instance().addMapLayer(web, False)
    context.setProject(QgsProject.instance())
    with pytest.raises(QgsProcessingException, match="not a file"):
        run(algorithm, {"INPUT": web.id(), "REFERENCES": references}, context, feedback)


def test_the_engines_sentence_is_the_error(
    algorithm, recorded, raster, references, context, feedback, monkeypatch, tmp_path
):
    class Failing:
        def run(self, document, reporter):
            raise RefSAMError("memory", "Memory ran out; use a smaller tile size.")

    monkeypatch.setattr(base, "shared_client", Failing)
    target = tmp_path / "out.gpkg"
    with pytest.raises(QgsProcessingException, match=r"^Memory ran out; use a smaller tile size\.$"):
        run(algorithm, {"INPUT": raster, "REFERENCES": references, "OUTPUT": str(target)}, context, feedback)
    assert not target.exists()


def _fill_defaults(child, source):
    """Do what the model designer's dialog does with every parameter that was left alone."""
    for parameter in child.algorithm().parameterDefinitions():
        if parameter.name() not in child.parameterSources() and not parameter.isDestination():
            child.addParameterSources(parameter.name(), [source.fromStaticValue(parameter.defaultValue())])


@pytest.fixture
def native_algorithms(qgis_app):
    registry = QgsApplication.processingRegistry()
    native = QgsNativeAlgorithms()
    registry.addProvider(native)
    yield
    registry.removeProvider(native)  # it must not outlive QGIS


def test_its_outputs_chain_in_a_model(provider, native_algorithms, recorded, raster, references, context, feedback):
    model = QgsProcessingModelAlgorithm("chain")
    model.addModelParameter(QgsProcessingParameterRasterLayer("raster"), QgsProcessingModelParameter("raster"))
    model.addModelParameter(QgsProcessingParameterFeatureSource("examples"), QgsProcessingModelParameter("examples"))
    source = QgsProcessingModelChildParameterSource

    segment = QgsProcessingModelChildAlgorithm("refsam:segmentbyreference")
    segment.setChildId("segment")
    segment.addParameterSources("INPUT", [source.fromModelParameter("raster")])
    segment.addParameterSources("REFERENCES", [source.fromModelParameter("examples")])
    _fill_defaults(segment, source)
    model.addChildAlgorithm(segment)

    buffer = QgsProcessingModelChildAlgorithm("native:buffer")
    buffer.setChildId("buffer")
    buffer.addParameterSources("INPUT", [source.fromChildOutput("segment", "OUTPUT")])
    buffer.addParameterSources("DISTANCE", [source.fromStaticValue(1.0)])
    _fill_defaults(buffer, source)
    result = QgsProcessingModelOutput("buffered", "buffered")
    result.setChildId("buffer")
    result.setChildOutputName("OUTPUT")
    buffer.setModelOutputs({"buffered": result})
    model.addChildAlgorithm(buffer)

    assert model.validate() == (True, [])
    results, ok = model.create().run(
        {"raster": raster, "examples": references, "buffer:buffered": "TEMPORARY_OUTPUT"}, context, feedback
    )
    assert ok, feedback.errors
    layer = context.getMapLayer(results["buffer:buffered"])
    assert [f["class"] for f in layer.getFeatures()] == ["blue square"]
