"""Vector layers on their way to the engine, and what its sentences call them."""

import pytest
from qgis.core import QgsField, QgsProcessingException

from refsam_qgis.algorithms.engine_vectors import name_in_copy
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.host.qgis_compat import STRING_FIELD

from .conftest import write_found

NAME = 'my "roofs" / 2024'
FOUND = {"object_id": 1, "class": "roof", "class_id": 1, "score": 0.75, "area_m2": 0.5}


@pytest.fixture
def layer(references):
    """Outlines with their class in an attribute of the user's own name."""
    references.setName(NAME)
    assert references.dataProvider().addAttributes([QgsField("klasse", STRING_FIELD)])
    references.updateFields()
    return references


def value_in(job, place):
    for part in place.split("."):
        job = job[int(part)] if part.isdecimal() else getattr(job, part)
    return job


@pytest.mark.parametrize(
    ("name", "layers", "field", "read", "field_read"),
    [
        ("segmentbyreference", "REFERENCES NEGATIVES", "CLASS_FIELD", "references.vector", "references.class_field"),
        ("segmentbyreference", "REFERENCES NEGATIVES", "CLASS_FIELD", "references.negatives", "references.class_field"),
        ("segmentfolder", "REFERENCES", "CLASS_FIELD", "references.vector", "references.class_field"),
        ("buildreferenceset", "REFERENCES", "CLASS_FIELD", "sources.0.vector", "sources.0.class_field"),
        ("segmentwithprompts", "BOXES", "OBJECT_FIELD", "boxes", "object_field"),
        ("trainadapters", "LABELS", "CLASS_FIELD", "labels", "class_field"),
        ("evaluate", "RESULT TRUTH", "RESULT_FIELD", "result", "result_field"),
        ("evaluate", "RESULT TRUTH", "TRUTH_FIELD", "truth", "truth_field"),
    ],
)
def test_sentences_name_the_users_layer_and_attribute(
    provider, engine, raster, layer, context, feedback, tmp_path, name, layers, field, read, field_read
):
    def answer(job):
        raise RefSAMError("input", f"Field '{value_in(job, field_read)}' of '{value_in(job, read)}' is empty; fill it.")

    engine.answer = answer
    algorithm = provider.algorithm(name).create()
    names = {p.name() for p in algorithm.parameterDefinitions()}
    rasters = {"INPUT": raster, "REFERENCE_RASTER": raster, "INPUTS": [raster], "RASTERS": [raster]}
    outputs = {p.name(): str(tmp_path / p.name()) for p in algorithm.parameterDefinitions() if p.isDestination()}
    outputs |= {key: "TEMPORARY_OUTPUT" for key in outputs if key in ("OUTPUT", "MASK", "PROBABILITY")}
    given = {key: value for key, value in rasters.items() if key in names}
    algorithm.run({**outputs, **given, **dict.fromkeys(layers.split(), layer), field: "klasse"}, context, feedback)
    assert feedback.errors == [f"Field 'klasse' of '{NAME}' is empty; fill it."]


def test_the_log_and_a_folders_rows_name_the_users_layer(
    provider, run, engine, raster, layer, feedback, context, monkeypatch
):
    def run_job(document, reporter):
        path = document["references"]["vector"]
        reporter.log(f"3 marks of '{path}' are left out.")
        write_found(document["merged"], [{**FOUND, "source": "x"}])
        counts = {"done": 0, "skipped": 0, "failed": 1, "object_count": 0, "device": None}
        return {**counts, "failures": [{"source": "x", "reason": f"'{path}' lies elsewhere."}], "not_merged": []}

    monkeypatch.setattr(engine, "run", run_job)
    results = run(
        provider.algorithm("segmentfolder").create(),
        {
            "INPUTS": [raster], "REFERENCES": layer, "REFERENCE_RASTER": raster,
            "OUTPUT_FOLDER": "TEMPORARY_OUTPUT", "OUTPUT": "TEMPORARY_OUTPUT", "FAILURES": "TEMPORARY_OUTPUT",
        },
    )  # fmt: skip
    assert f"3 marks of '{NAME}' are left out." in feedback.infos
    assert [row["reason"] for row in context.getMapLayer(results["FAILURES"]).getFeatures()] == [
        f"'{NAME}' lies elsewhere."
    ]


def test_a_missing_attribute_is_named_with_its_layer(provider, run, engine, raster, layer, tmp_path):
    parameters = {"RASTERS": [raster], "LABELS": layer, "ADAPTERS_OUT": str(tmp_path / "a.safetensors")}
    with pytest.raises(QgsProcessingException, match=r"class polygons '.*roofs.* 2024' has no attribute 'nothing'"):
        run(provider.algorithm("trainadapters").create(), {**parameters, "CLASS_FIELD": "nothing"})


@pytest.mark.parametrize("field", ["fid", "GEOM", "geometry"])
def test_an_attribute_of_a_name_that_is_taken_gets_another(field):
    assert name_in_copy(field) == f"{field}_" and name_in_copy(f"{field}_") == f"{field}_"


def test_a_real_run_reads_an_attribute_called_geometry(provider, run, references, engine_python):
    """Which geopandas takes for the shapes."""
    assert references.dataProvider().renameAttributes({0: "geometry"})
    references.updateFields()
    both = {"RESULT": references, "TRUTH": references, "RESULT_FIELD": "geometry", "TRUTH_FIELD": "geometry"}
    results = run(provider.algorithm("evaluate").create(), {**both, "OUTPUT": "TEMPORARY_OUTPUT"})
    assert results["MIOU"] == 1
