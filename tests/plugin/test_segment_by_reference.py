"""``refsam:segmentbyreference`` inside QGIS; the engine's own results are tested elsewhere."""

import re
from pathlib import Path

import pytest
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsProcessingException,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterRasterLayer,
    QgsProject,
    QgsProperty,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QVariant

from refsam_qgis.algorithms import files, origin
from refsam_qgis.algorithms.values import Values
from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.host.qgis_compat import DOUBLE_FIELD, INTEGER64_FIELD, INTEGER_FIELD, STRING_FIELD

from .conftest import write_found

PUBLIC = [
    "INPUT", "REFERENCE_RASTER", "REFERENCES", "CLASS_FIELD", "ANNOTATION", "NEGATIVES", "REFERENCE_SET", "MODEL",
    "CHECKPOINT", "ADAPTERS", "METHOD", "BANDS", "STRETCH", "EXTENT", "TILE_SIZE", "OVERLAP", "THRESHOLD", "SEPARATE",
    "MIN_AREA", "FILL_HOLES", "SIMPLIFY", "RIGHT_ANGLES", "DEVICE", "OUTPUT", "MASK", "PROBABILITY", "REPORT",
]  # fmt: skip
FIRST_RUN = {
    "INPUT", "REFERENCES", "CLASS_FIELD", "REFERENCE_RASTER", "ANNOTATION", "REFERENCE_SET", "OUTPUT", "MASK",
    "PROBABILITY", "REPORT",
}  # fmt: skip
FOUND = {"object_id": 3_000_000_001, "class": "blue square", "class_id": 1, "score": 0.75, "area_m2": 0.5}


@pytest.fixture
def algorithm(provider):
    return provider.algorithm("segmentbyreference").create()


@pytest.fixture
def jobs(engine):
    """The jobs of the runs; the engine answers each with one polygon."""

    def answer(job):
        write_found(job.outputs.polygons, [FOUND])
        return {"object_count": 1, "device": "cpu"}

    engine.answer = answer
    return engine.jobs


@pytest.fixture
def segment(algorithm, run, raster, references):
    """Run on the raster and the references, unless the test says otherwise."""
    usual = {"INPUT": raster, "REFERENCES": references, "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"}
    return lambda **parameters: run(algorithm, {**usual, **parameters})


@pytest.fixture
def refset_path(tmp_path):
    path = tmp_path / "ships.refset"
    path.touch()
    return str(path)


def features_of(path):
    return list(QgsVectorLayer(path, "marks", "ogr").getFeatures())


def test_parameters_carry_their_public_names(algorithm):
    assert sorted(p.name() for p in algorithm.parameterDefinitions()) == sorted(PUBLIC)
    assert {o.name() for o in algorithm.outputDefinitions()} == {
        "OUTPUT", "MASK", "PROBABILITY", "REPORT", "OBJECT_COUNT", "DEVICE_USED"
    }  # fmt: skip


def test_what_a_first_run_does_not_need_is_advanced(algorithm):
    advanced = {p.name() for p in algorithm.parameterDefinitions() if p.flags() & p.Flag.FlagAdvanced}
    assert advanced == set(PUBLIC) - FIRST_RUN


def test_defaults_make_the_default_job(segment, jobs, raster):
    results = segment()
    job = jobs[0]
    plain = type(job)(input=raster.source(), references=job.references, outputs=job.outputs)
    assert job == plain
    assert job.references == type(job.references)(vector=job.references.vector)
    assert (job.outputs.probability, job.outputs.report) == (None, None)
    assert (results["OBJECT_COUNT"], results["DEVICE_USED"]) == (1, "cpu")
    assert results["MASK"].endswith(".tif") and "PROBABILITY" not in results


@pytest.mark.parametrize("name", ["größe.gpkg", "größe.shp", "größe.geojson", "TEMPORARY_OUTPUT"])
def test_polygons_arrive_with_their_attributes(segment, jobs, raster, context, tmp_path, name):
    target = name if name == "TEMPORARY_OUTPUT" else str(tmp_path / name)
    result = segment(OUTPUT=target)["OUTPUT"]
    layer = context.takeResultLayer(result) or QgsVectorLayer(target, "result", "ogr")
    feature = next(layer.getFeatures())
    assert {name: feature[name] for name in FOUND} == FOUND
    kinds = [layer.fields().field(name).type() for name in FOUND]
    assert kinds == [INTEGER64_FIELD, STRING_FIELD, INTEGER_FIELD, DOUBLE_FIELD, DOUBLE_FIELD]
    assert layer.crs() == raster.crs() or name.endswith("geojson")


def test_every_parameter_reaches_the_job(segment, jobs, raster, references, tmp_path):
    weights, adapters = tmp_path / "w.pth", tmp_path / "a.safetensors"
    weights.touch()
    adapters.touch()
    segment(
        REFERENCE_RASTER=raster, CLASS_FIELD="fid", ANNOTATION="partial", NEGATIVES=references, MODEL="vit_b",
        CHECKPOINT=str(weights), ADAPTERS=str(adapters), METHOD="virefsam", BANDS=[3, 2, 1], STRETCH="none",
        EXTENT="391210,391250,5820500,5820590 [EPSG:32633]", TILE_SIZE=512, OVERLAP=25, THRESHOLD=0.4, SEPARATE=0.2,
        MIN_AREA=3, FILL_HOLES=2, SIMPLIFY=1, RIGHT_ANGLES=True, DEVICE="cpu", PROBABILITY=str(tmp_path / "p.tif"),
        REPORT=str(tmp_path / "r.json"),
    )  # fmt: skip
    job = jobs[0]
    assert job.model == type(job.model)("vit_b", str(weights), str(adapters), "virefsam", "cpu")
    assert (job.references.raster, job.references.annotation) == (raster.source(), "partial")
    assert job.raster == type(job.raster)((3, 2, 1), "none", 512, 25.0)
    assert job.polygons == type(job.polygons)(3.0, 2.0, 1.0, True)
    assert (job.threshold, job.separate) == (0.4, 0.2)
    assert job.extent == (391210.0, 5820500.0, 391250.0, 5820590.0)
    assert (job.outputs.probability, job.outputs.report) == (str(tmp_path / "p.tif"), str(tmp_path / "r.json"))
    assert [f[job.references.class_field] for f in features_of(job.references.vector)] == ["blue square"] * 2
    assert len(features_of(job.references.negatives)) == 2


@pytest.mark.parametrize(
    ("value", "area"),
    [
        (None, None),
        (NULL, None),
        ("", None),
        (0, 0.0),
        ("2.5", 2.5),
        (QgsProperty.fromExpression("NULL"), None),
        (QgsProperty.fromExpression("to_real(NULL)"), None),
        (QgsProperty.fromExpression("0"), 0.0),
        (QgsProperty.fromExpression("1 + 1.5"), 2.5),
        (QgsProperty.fromField("missing"), None),
    ],
)
def test_a_smallest_area_that_comes_to_nothing_is_not_given(segment, jobs, value, area):
    segment(MIN_AREA=value)
    assert jobs[0].polygons.min_area == area


NULLS = [NULL, QVariant(QVariant.Type.String), QVariant(QVariant.Type.Double), QgsProperty.fromExpression("NULL")]


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize(
    "name",
    ["CLASS_FIELD", "REFERENCE_RASTER", "REFERENCE_SET", "NEGATIVES", "BANDS", "EXTENT", "THRESHOLD", "ANNOTATION"],
)
def test_null_is_no_value(segment, jobs, raster, name, null):
    """As an attribute or an expression may be; QGIS makes '0' or 0 of it."""
    segment(**{name: null})
    job = jobs[0]
    assert job == type(job)(
        input=raster.source(), references=type(job.references)(vector=job.references.vector), outputs=job.outputs
    )


def test_a_choice_by_expression_is_one_of_those_there_are(segment, jobs):
    """QGIS takes the default for any other, here 'complete'."""
    segment(ANNOTATION=QgsProperty.fromExpression("'part' || 'ial'"))
    assert jobs.pop().references.annotation == "partial"
    for wrong in ("'part'", "1"):
        with pytest.raises(QgsProcessingException, match=r"ANNOTATION '.*' is unknown; use one of complete, partial\."):
            segment(ANNOTATION=QgsProperty.fromExpression(wrong))
    assert jobs == []


def test_a_reference_set_replaces_the_examples(segment, jobs, refset_path):
    segment(REFERENCES=None, REFERENCE_SET=refset_path)
    assert jobs[0].references == type(jobs[0].references)(refset=refset_path)


def test_an_extent_in_another_crs_is_transformed(segment, jobs, raster):
    extent = raster.extent()
    to_degrees = QgsCoordinateTransform(
        raster.crs(), QgsCoordinateReferenceSystem("EPSG:4326"), QgsProject.instance().transformContext()
    )
    degrees = to_degrees.transformBoundingBox(extent)
    segment(EXTENT=f"{degrees.xMinimum()},{degrees.xMaximum()},{degrees.yMinimum()},{degrees.yMaximum()} [EPSG:4326]")
    xmin, _, _, ymax = jobs[0].extent
    # A box in degrees is a little larger than the one it came from.
    assert extent.xMinimum() - 10 < xmin <= extent.xMinimum() and extent.yMaximum() <= ymax < extent.yMaximum() + 10


def test_only_selected_features_are_examples(segment, jobs, references, context):
    references.select(1)
    QgsProject.instance().addMapLayer(references, False)
    context.setProject(QgsProject.instance())
    segment(REFERENCES=QgsProcessingFeatureSourceDefinition(references.id(), selectedFeaturesOnly=True))
    assert len(features_of(jobs[0].references.vector)) == 1


def test_filtered_features_are_left_out(segment, jobs, references_path):
    layer = QgsVectorLayer(references_path, "filtered", "ogr")
    assert layer.setSubsetString("key = 1")
    segment(REFERENCES=layer)
    assert len(features_of(jobs[0].references.vector)) == 1


def test_the_job_says_what_repeats_it(segment, jobs, raster, references_path, context, tmp_path):
    layer = QgsVectorLayer(references_path, "filtered", "ogr")
    assert layer.setSubsetString("key = 1")
    layer.selectAll()
    QgsProject.instance().addMapLayer(layer, False)
    context.setProject(QgsProject.instance())
    examples = QgsProcessingFeatureSourceDefinition(layer.id(), selectedFeaturesOnly=True)
    segment(REFERENCES=examples, OUTPUT=str(tmp_path / "found.gpkg"), THRESHOLD=0.4)
    origin = jobs[0].origin
    assert origin.startswith('processing.run("refsam:segmentbyreference", {')
    assert f"'{references_path}|subset=key = 1', selectedFeaturesOnly=True" in origin
    for said in (f"'INPUT':'{raster.source()}'", "'THRESHOLD':0.4", f"'OUTPUT':'{tmp_path / 'found.gpkg'}'"):
        assert said in origin


@pytest.mark.parametrize("password", ["password=se#cret ", "password='se cr\\'e\\\\t' ", ""])
def test_no_password_is_told(algorithm, raster, context, password):
    target = f"postgres:dbname='city' host=h user='me' {password}sslmode=disable table=\"s\".\"t\" (geom)"
    command = origin.command_of(Values(algorithm, {"INPUT": raster, "OUTPUT": target}, context))
    assert (
        "cr" not in command.replace(raster.source(), "") and "user=" in command and "sslmode=disable table" in command
    )


def test_the_copy_of_the_examples_carries_their_layers_name(segment, jobs, references):
    references.setName('größe / "b"')
    segment()
    assert jobs[0].references.vector.endswith("größe _ _b_.gpkg")


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("Polygon?crs=EPSG:32633", "examples 'layer' has no features with a geometry"),
        ("NoGeometry?field=a:string", "no features|no geometry"),
    ],
)
def test_useless_examples_are_explained(segment, jobs, uri, sentence):
    layer = QgsVectorLayer(uri, "layer", "memory")
    if "NoGeometry" in uri:
        layer.dataProvider().addFeature(QgsFeature(layer.fields()))
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(REFERENCES=layer)
    assert jobs == []


@pytest.mark.parametrize("name", ["REFERENCES", "NEGATIVES"])
@pytest.mark.parametrize("ending", ["gpkg", "shp", "geojson"])
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [(Path.unlink, "does not exist; put it back"), (lambda path: path.write_bytes(b"x"), "cannot be read; restore it")],
)
@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_layer_whose_file_is_lost_is_not_taken_for_an_empty_one(
    segment, jobs, references, tmp_path, name, ending, harm, sentence, is_loaded
):
    """QGIS keeps a loaded layer valid, and gives no features of it."""
    path = tmp_path / f"marks.{ending}"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = {"gpkg": "GPKG", "shp": "ESRI Shapefile", "geojson": "GeoJSON"}[ending]
    QgsVectorFileWriter.writeAsVectorFormatV3(references, str(path), QgsCoordinateTransformContext(), options)
    layer = QgsVectorLayer(str(path), "my marks", "ogr")
    harm(path)
    assert layer.isValid()
    who = f"Layer 'my marks' of '{path}'" if is_loaded else f"'{path}'"
    whole = re.escape(f"{who} {sentence}, or choose another for {name}.")
    with pytest.raises(QgsProcessingException, match=f"^{whole}$"):
        segment(**{name: layer if is_loaded else str(path)})
    assert jobs == []


def test_there_may_be_no_counter_example(segment, jobs):
    """As from a filter in a model."""
    segment(NEGATIVES=QgsVectorLayer("Polygon?crs=EPSG:32633", "none left", "memory"))
    assert features_of(jobs[0].references.negatives) == []


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"BANDS": [1, 2]}, "2 bands are chosen"),
        ({"BANDS": [1, 2, 4]}, "Band 4 is chosen but the raster has 3"),
        ({"MODEL": "vit_b"}, "needs its SAM checkpoint"),
        ({"REFERENCES": None}, "There are no examples; choose"),
    ],
)
def test_values_that_cannot_work_are_refused(segment, jobs, parameters, sentence):
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(**parameters)
    assert jobs == []


def test_examples_beside_a_reference_set_are_refused(segment, jobs, refset_path):
    with pytest.raises(QgsProcessingException, match="A reference set is chosen, and REFERENCES besides"):
        segment(REFERENCE_SET=refset_path)


def test_a_run_without_a_check_explains_as_well(algorithm, jobs, raster, context, feedback):
    parameters = {"INPUT": raster, "OUTPUT": "TEMPORARY_OUTPUT", "MASK": "TEMPORARY_OUTPUT"}
    _, ok = algorithm.run(parameters, context, feedback)
    assert not ok and "There are no examples" in feedback.errors[0]


@pytest.mark.parametrize(("output", "source"), [("MASK", "INPUT"), ("OUTPUT", "REFERENCES")])
def test_an_output_that_is_an_input_is_refused(segment, jobs, raster, references_path, output, source):
    path = {"INPUT": raster.source(), "REFERENCES": references_path}[source]
    with pytest.raises(QgsProcessingException, match=f"is both {source} and {output}"):
        segment(**{"REFERENCES": references_path, output: path})
    assert jobs == []


@pytest.mark.parametrize("wrap", [lambda sink: sink, QgsProcessingOutputLayerDefinition])
def test_an_output_by_expression_that_is_an_input_is_refused(segment, jobs, references_path, wrap):
    sink = wrap(QgsProperty.fromExpression(f"'{references_path[:-5]}' || '.gpkg'"))
    with pytest.raises(QgsProcessingException, match="is both REFERENCES and OUTPUT"):
        segment(REFERENCES=references_path, OUTPUT=sink)
    assert jobs == [] and QgsVectorLayer(references_path, "marks", "ogr").featureCount() == 2


def test_temporary_polygons_of_a_raster_without_crs_have_none(segment, jobs, picture_path, context):
    """A layer in memory without one gets WGS 84 from QGIS."""
    found = context.getMapLayer(segment(INPUT=picture_path)["OUTPUT"])
    assert found.featureCount() == 1 and not found.crs().isValid()


@pytest.fixture
def tables(references, tmp_path):
    """A GeoPackage with two tables of examples, ``first`` and ``References``."""
    path = tmp_path / "my refs.gpkg"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.layerOptions = ["FID=key"]
    for options.layerName in ("first", "References"):
        error, *_ = QgsVectorFileWriter.writeAsVectorFormatV3(
            references, str(path), QgsCoordinateTransformContext(), options
        )
        assert error == QgsVectorFileWriter.WriterError.NoError
        options.actionOnExistingFile = QgsVectorFileWriter.ActionOnExistingFile.CreateOrOverwriteLayer
    return path


@pytest.mark.parametrize("name", ["REFERENCES", "NEGATIVES"])
@pytest.mark.parametrize(
    ("source", "table"),
    [
        ("|layername=References", "references"),
        ("|layerid=1", "References"),
        ("|layername=References|subset=key = 1", "References"),
        ("", "first"),
    ],
)
def test_a_table_that_is_an_input_is_refused(segment, jobs, tables, name, source, table):
    sentence = f"Table '{table.lower()}' of '.*my refs.gpkg' is both {name} and OUTPUT; write the output to another"
    with pytest.raises(QgsProcessingException, match=sentence):
        segment(**{name: f"{tables}{source}", "OUTPUT": f"ogr:dbname='{tables}' table=\"{table}\" (geom)"})
    assert jobs == []


@pytest.mark.parametrize("prefix", ["", "ogr:"])
def test_the_whole_file_of_an_input_table_is_not_replaced(segment, jobs, tables, prefix):
    with pytest.raises(QgsProcessingException, match=r"my refs.gpkg' is both REFERENCES and OUTPUT"):
        segment(REFERENCES=f"{tables}|layername=References", OUTPUT=f"{prefix}{tables}")
    assert jobs == []


def test_a_name_without_an_ending_is_that_of_the_geopackage_that_qgis_makes_of_it(segment, jobs, tables):
    with pytest.raises(QgsProcessingException, match=r"my refs.gpkg' is both REFERENCES and OUTPUT"):
        segment(REFERENCES=str(tables), OUTPUT=str(tables.with_suffix("")))
    assert jobs == []
    segment(REFERENCES=str(tables), OUTPUT=str(tables.with_name("found")))
    assert QgsVectorLayer(str(tables.with_name("found.gpkg")), "found", "ogr").featureCount() == 1


def test_a_new_table_beside_the_examples_is_written(segment, jobs, tables):
    target = QgsProcessingOutputLayerDefinition(f"ogr:dbname='{tables}' table=\"found\" (geom)")
    segment(REFERENCES=str(tables), OUTPUT=target)
    counts = [QgsVectorLayer(f"{tables}|layername={name}", name, "ogr").featureCount() for name in ("found", "first")]
    assert counts == [1, 2]


def test_the_table_of_a_database_is_an_input_too(segment, jobs, references, tmp_path):
    path = tmp_path / "city.sqlite"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName, options.datasourceOptions = "SQLite", "refs", ["SPATIALITE=YES"]
    options.layerOptions = ["FID=key"]
    QgsVectorFileWriter.writeAsVectorFormatV3(references, str(path), QgsCoordinateTransformContext(), options)
    layer = QgsVectorLayer(f"dbname='{path}' table=\"refs\" (geometry)", "refs", "spatialite")
    assert layer.isValid()
    with pytest.raises(QgsProcessingException, match=r"Table 'refs' of .* is both REFERENCES and OUTPUT"):
        segment(REFERENCES=layer, OUTPUT=f"spatialite:dbname='{path}' table=\"refs\" (geometry)")
    assert jobs == []


def test_tables_of_a_server_are_told_apart_by_server_schema_and_name():
    def place(provider, host="h", schema="s", table="t"):
        return files._table_place(provider, f'dbname=\'city\' host={host} password=x table="{schema}"."{table}" (geom)')

    assert place("postgis") == place("postgres")
    assert str(place("postgres")) == "Table 's.t' of 'postgres h city'"
    others = [place("postgres", **{name: "other"}) for name in ("host", "schema", "table")]
    assert not any(place("postgres").overlaps(other) for other in others)


def test_a_missing_folder_for_a_table_is_refused_before_the_run(segment, jobs, tmp_path):
    with pytest.raises(QgsProcessingException, match=r"Folder '.*nowhere' of OUTPUT does not exist; create it first"):
        segment(OUTPUT=f"ogr:dbname='{tmp_path}/nowhere/a.gpkg' table=\"found\" (geom)")
    assert jobs == []


def test_a_missing_folder_for_the_polygons_is_refused_before_the_run(segment, jobs, tmp_path):
    with pytest.raises(QgsProcessingException, match=r"Folder '.*nowhere' of OUTPUT does not exist; create it first"):
        segment(OUTPUT=str(tmp_path / "nowhere" / "found.gpkg"))
    assert jobs == []


def test_a_closed_folder_for_the_polygons_is_refused_before_the_run(segment, jobs, tmp_path, monkeypatch):
    target = tmp_path / "found.gpkg"
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != target.parent)
    with pytest.raises(QgsProcessingException, match="may not be written; choose another place for OUTPUT"):
        segment(OUTPUT=str(target))
    assert jobs == []


@pytest.mark.parametrize("target", ["memory:", 'mssql:dbname=\'city\' table="dbo"."found" (geom)'])
def test_what_is_no_file_needs_no_folder(algorithm, jobs, raster, references, context, target):
    parameters = {"INPUT": raster, "REFERENCES": references, "OUTPUT": target, "MASK": "TEMPORARY_OUTPUT"}
    assert algorithm.checkParameterValues(parameters, context) == (True, "")


@pytest.mark.parametrize("ending", ["dxf", "gpx"])
def test_formats_that_lose_the_attributes_are_refused_before_the_run(segment, jobs, tmp_path, ending):
    with pytest.raises(QgsProcessingException, match=f"{ending}' is of no format that holds the attributes"):
        segment(OUTPUT=str(tmp_path / f"found.{ending}"))
    assert jobs == []


def test_a_late_cancel_leaves_earlier_polygons_whole(segment, jobs, engine, feedback, tmp_path):
    target = tmp_path / "found.gpkg"
    segment(OUTPUT=str(target))
    before, answer = target.read_bytes(), engine.answer

    def answer_and_cancel(job):
        found = answer(job)
        feedback.cancel()
        return found

    engine.answer = answer_and_cancel
    with pytest.raises(QgsProcessingException, match="was cancelled before its polygons or rows were copied"):
        segment(OUTPUT=str(target))
    assert target.read_bytes() == before


def test_a_raster_that_is_no_file_is_refused(segment, jobs, context):
    web = QgsRasterLayer("type=xyz&url=file:///nowhere/{z}/{x}/{y}.png&zmax=1&zmin=0", "tiles", "wms")
    QgsProject.instance().addMapLayer(web, False)
    context.setProject(QgsProject.instance())
    with pytest.raises(QgsProcessingException, match="not a file"):
        segment(INPUT=web.id())


@pytest.mark.parametrize(
    "error",
    [RefSAMError("memory", "Memory ran out; use a smaller tile size."), JobCancelled("Cancelled; 7 tiles are kept.")],
)
def test_the_engines_sentence_is_the_error(segment, engine, tmp_path, error):
    def answer(job):
        raise error

    engine.answer = answer
    target = tmp_path / "out.gpkg"
    with pytest.raises(QgsProcessingException, match=f"^{error}$"):
        segment(OUTPUT=str(target))
    assert not target.exists()


def _fill_defaults(child, source):
    """Do what the model designer's dialog does with every parameter that was left alone."""
    for parameter in child.algorithm().parameterDefinitions():
        if parameter.name() not in child.parameterSources() and not parameter.isDestination():
            child.addParameterSources(parameter.name(), [source.fromStaticValue(parameter.defaultValue())])


def test_its_outputs_chain_in_a_model(provider, native_algorithms, jobs, raster, references, context, feedback):
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
    [output] = [p.name() for p in model.parameterDefinitions() if p.isDestination()]  # QGIS 3.22 adds the step's id
    results, ok = model.create().run(
        {"raster": raster, "examples": references, output: "TEMPORARY_OUTPUT"}, context, feedback
    )
    assert ok, feedback.errors
    layer = context.getMapLayer(results[output])
    assert [f["class"] for f in layer.getFeatures()] == ["blue square"]
