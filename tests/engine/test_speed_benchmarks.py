"""The benchmarks of speed count right; how long anything takes is no business of a test."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from benchmarks.speed.measured_run import STAGES, StandIn, measure, sparse_raster, square_marks
from benchmarks.speed.overlap import seam_distance, seam_error
from refsam_qgis.engine.job import RasterOptions, ReferenceSource, SegmentJob, SegmentOutputs
from refsam_qgis.engine.rasters.grid import TileGrid
from refsam_qgis.engine.rasters.source import RasterSource


def job_on(tmp_path, width, height, classes=1, shots=1, overlap=12.5):
    raster = sparse_raster(tmp_path / "sparse.tif", width, height)
    marks = square_marks(tmp_path / "marks.gpkg", raster, classes, shots, 128)
    return SegmentJob(
        str(raster), ReferenceSource(str(marks), class_field="class"),
        SegmentOutputs(str(tmp_path / "p.gpkg"), str(tmp_path / "m.tif")),
        raster=RasterOptions(tile_size=128, overlap=overlap),
    )  # fmt: skip


def test_a_stand_in_run_sees_every_tile_once_and_finds_its_object(tmp_path):
    reading = RasterSource.read
    measured = measure(job_on(tmp_path, 900, 500), stand_in=StandIn())
    grid = TileGrid(900, 500, 128, 16)
    assert measured.tiles == grid.rows * grid.columns == measured.result["object_count"]
    assert measured.megapixels == 0.45 and RasterSource.read is reading
    assert set(measured.stages) == {stage for stage, _, _ in STAGES} | {"encode", "decode"}
    assert all(seconds > 0 for seconds in measured.stages.values())


@pytest.mark.parametrize(("overlap", "tiles"), [(0, 4 * 2), (25, 5 * 3), (50, 7 * 3)])
def test_overlap_costs_tiles(tmp_path, overlap, tiles):
    assert measure(job_on(tmp_path, 512, 256, overlap=overlap), stand_in=StandIn()).tiles == tiles


def test_marks_are_as_many_as_asked_and_each_has_a_chip_of_its_own(tmp_path):
    raster = sparse_raster(tmp_path / "sparse.tif", 700, 600)
    marks = gpd.read_file(square_marks(tmp_path / "marks.gpkg", raster, 3, 5, 128))
    assert marks.groupby("class").size().tolist() == [5, 5, 5]
    with rasterio.open(raster) as opened:
        columns, rows = ~opened.transform @ (marks.centroid.x.to_numpy(), marks.centroid.y.to_numpy())
    places = set(zip((columns // 128).tolist(), (rows // 128).tolist(), strict=True))
    assert len(places) == 15
    with pytest.raises(SystemExit, match="no room for 30"):
        square_marks(tmp_path / "marks.gpkg", raster, 3, 10, 128)


def test_a_sparse_raster_takes_no_room(tmp_path):
    path = sparse_raster(tmp_path / "sparse.tif", 40_000, 40_000)
    assert path.stat().st_size < 4_000_000


def test_seams_lie_in_the_middle_of_the_overlaps():
    distance = seam_distance(TileGrid(300, 100, 128, 28))
    assert distance.shape == (100, 300)
    nearest = np.flatnonzero(distance[50] < 1)
    assert nearest.tolist() == [113, 114, 213, 214]  # tiles share 100..128 and 200..228
    assert distance[:, 0].min() == 113.5  # one row of tiles has no seam
    assert np.isinf(seam_distance(TileGrid(100, 100, 128, 28))).all()


def test_errors_along_seams_and_elsewhere_are_told_apart():
    reference = np.full((2, 10, 10), 0.4, np.float32)
    found, near = reference.copy(), np.zeros((10, 10), bool)
    near[:, :2] = True
    found[0, :5, :2] = 0.2  # half of what is near, in one of two classes
    found[:, 0, 5] = 0.6  # one of eighty elsewhere, and on the same side of the threshold
    errors = seam_error(found, reference, near, 0.3)
    assert errors["difference_near"] == pytest.approx(0.05) and errors["changed_near"] == 0.5
    assert errors["difference_elsewhere"] == pytest.approx(0.2 / 80) and errors["changed_elsewhere"] == 0
