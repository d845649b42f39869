"""Job documents: what goes in comes out, and what is wrong is named."""

import json

import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import (
    EvaluateJob,
    EverythingJob,
    FolderJob,
    ModelOptions,
    ObjectOutputs,
    PolygonOptions,
    PromptsJob,
    ProtocolJob,
    RasterOptions,
    ReferenceSource,
    RefsetJob,
    SegmentJob,
    StatusJob,
    TrainJob,
    from_dict,
    to_dict,
)

REFERENCES = ReferenceSource("r.gpkg", class_field="Größe")
JOBS = [
    SegmentJob("a.tif", REFERENCES, raster=RasterOptions(bands=(3, 2, 1)), extent=(0.0, 1.0, 2.0, 3.0)),
    FolderJob(ReferenceSource(refset="s.refset"), "out", inputs=("a.tif", "b.tif")),
    RefsetJob((ReferenceSource("r.gpkg", "a.tif"), ReferenceSource("s.gpkg", "b.tif")), "out.refset"),
    PromptsJob("a.tif", points="p.gpkg", outputs=ObjectOutputs("o.gpkg")),
    EverythingJob("a.tif", points_per_side=8, polygons=PolygonOptions(fill_holes=2.0)),
    StatusJob(ModelOptions("vit_b", "sam.pth")),
    TrainJob("out.safetensors", steps=3, origin="a command"),
    EvaluateJob("a.gpkg", "b.tif", truth_classes=("roof",)),
    ProtocolJob("folder", "isaid5i", (0, 2), methods=("random_forest",), support="point", min_pixels=99),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_job_survives_json(job):
    again = from_dict(json.loads(json.dumps(to_dict(job))))
    assert again == job and to_dict(again) == to_dict(job)


def test_what_a_job_was_made_from_makes_no_other_job():
    assert SegmentJob("a.tif", REFERENCES, origin="a command") == SegmentJob("a.tif", REFERENCES)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"raster": {"overlap": 51}}, "Overlap"),
        ({"threshold": -0.1}, "Threshold"),
        ({"threshold": float("nan")}, "Threshold"),
        ({"raster": {"tile_size": 10}}, "Tile size"),
        ({"raster": {"tile_size": "10"}}, "tile_size"),
        ({"raster": {"tile_size": True}}, "tile_size"),
        ({"model": {"model": "vit_x"}}, "vit_x"),
        ({"model": {"method": "magic"}}, "magic"),
        ({"model": "vit_b"}, "model"),
        ({"raster": {"stretch": "more"}}, "Stretch"),
        ({"references": {"vector": "r", "annotation": "some"}}, "some"),
        ({"references": {}}, "no examples"),
        ({"references": {"vector": "r", "refset": "s"}}, "reference set"),
        ({"polygons": {"simplify": -1}}, "simplify|Simplify"),
        ({"polygons": {"min_area": -1}}, "Min area -1.0 is out of range; use 0 or more"),
        ({"extent": [0, 1, 2]}, "extent"),
        (
            {"extent": [float("nan"), 0, 10, 10]},
            "Extent nan 0 10 10 is no rectangle; use finite numbers in the order",
        ),
        ({"extent": [0, 0, float("inf"), 10]}, "Extent 0 0 inf 10 is"),
        ({"extent": [10, 0, 0.5, 10]}, "Extent 10 0 0.5 10 is"),
        ({"extent": [0, 10, 10, 0]}, "Extent 0 10 10 0 is"),
        ({"raster": {"bands": "123"}}, "bands"),
        ({"colour": 1}, "colour"),
        ({"kind": None}, "kind"),
    ],
)
def test_a_wrong_value_is_named(change, named):
    document = {**to_dict(JOBS[0]), **change}
    with pytest.raises(RefSAMError, match=named) as caught:
        from_dict(document)
    assert caught.value.code == "input"


@pytest.mark.parametrize(
    "job", [EverythingJob("a.tif"), EvaluateJob("a.gpkg", "b.tif")], ids=["everything", "evaluate"]
)
def test_every_extent_is_a_rectangle(job):
    with pytest.raises(RefSAMError, match="Extent 1 0 0 1 is no rectangle"):
        from_dict({**to_dict(job), "extent": [1, 0, 0, 1]})
    assert from_dict({**to_dict(job), "extent": [1, 2, 1, 2]}).extent == (1, 2, 1, 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"protocol": "isaid"}, "Protocol 'isaid' is unknown; use one of folder, isaid5i"),
        ({"methods": []}, "no method to measure; give one or more of virefsam"),
        ({"methods": ["sorcery"]}, "Method 'sorcery' is unknown; use one of virefsam"),
        ({"methods": ["virefsam", "virefsam"]}, "named twice"),
        ({"support": "circle"}, "Support 'circle' is unknown; use one of mask, scribble, point, box"),
        ({"shots": 0}, "Shots 0"),
        ({"episodes": 0}, "Episodes 0"),
        ({"runs": 0}, "Runs 0"),
        ({"min_pixels": 0}, "Min pixels 0"),
        ({"seed": -1}, "Seed -1 is out of range; use 0 to 4294967295"),
        ({"seed": 2**32}, "Seed 4294967296 is out of range"),
        ({"folds": []}, "Folds"),
        ({"folds": [1, 1]}, "each once"),
        ({"folds": [-1]}, "from 0"),
    ],
)
def test_a_wrong_value_of_a_protocol_is_named(change, named):
    with pytest.raises(RefSAMError, match=named) as caught:
        from_dict({"kind": "protocol", "folder": "f", **change})
    assert caught.value.code == "input"
