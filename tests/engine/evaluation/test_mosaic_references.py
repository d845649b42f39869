import geopandas as gpd
import numpy as np
import pytest
import rasterio

from benchmarks.accuracy import dubai_mosaic
from benchmarks.accuracy.mosaic_references import choose_ninth, cut_references
from refsam_qgis.engine.job import THRESHOLD, ReferenceSource, SegmentJob

CLASSES = {"water": 1, "building": 4}


def test_references_come_from_the_ninth_with_the_most_even_classes(write_raster, tmp_path):
    ids = np.full((91, 60), 2, np.uint8)
    ids[:10, :10] = 1  # much water, no building
    ids[31:36, 20:30] = 1
    ids[50:54, 30:36] = 4
    ids[40:42, 22:24] = 4
    image = write_raster(np.stack([ids * 10] * 3))
    with rasterio.open(image) as pixels, rasterio.open(write_raster(ids[None], "ids.tif")) as truth:
        ninth = choose_ninth(truth, CLASSES)
        assert (ninth.row, ninth.column) == (1, 1)
        raster, vector, counts = cut_references(pixels, truth, ninth, CLASSES, 1, tmp_path)
        assert counts == {"water": 1, "building": 1}
        layer = gpd.read_file(vector)
        assert layer.set_index("class").area.to_dict() == {"water": 50 / 4, "building": 24 / 4}
        _, vector, counts = cut_references(pixels, truth, ninth, CLASSES, 0, tmp_path)
        assert counts == {"water": 1, "building": 2}
        assert gpd.read_file(vector).crs == pixels.crs
        with rasterio.open(raster) as cut:
            assert (cut.read(1) == ids[30:61, 20:40] * 10).all()
            assert cut.bounds == rasterio.windows.bounds(ninth.window, pixels.transform)


@pytest.mark.parametrize(("method", "threshold"), [("fitted", THRESHOLD), ("random_forest", 0.5)])
def test_each_method_marks_from_its_own_threshold(method, threshold, write_raster, tmp_path, monkeypatch):
    """As by the protocol: a baseline that was made to be cut at the majority is not cut where RefSAM's methods are."""
    ids = np.full((30, 30), 1, np.uint8)
    ids[:, 10:20], ids[:, 20:] = 4, 5
    truth = write_raster(ids[None], "ids.tif")
    jobs = []

    def run(job, method, qgis_process):
        jobs.append(job)
        rasterio.shutil.copy(truth, job.outputs.mask)
        keys = ("object_count", "tiles", "tile_size", "seconds", "seconds_per_tile", "device")
        classes = [{"name": name, "id": value} for name, value in dubai_mosaic.CLASSES.items()]
        return {"classes": classes, **dict.fromkeys(keys, 1)}, 0

    monkeypatch.setattr(dubai_mosaic, "run_alone", run)
    with rasterio.open(truth) as opened:
        ninth = choose_ninth(opened, dubai_mosaic.CLASSES)
    job = SegmentJob("image.tif", ReferenceSource("marks.gpkg"))
    measured = dubai_mosaic._measure_method(job, method, None, tmp_path, truth, ninth)
    assert jobs[0].threshold == measured["threshold"] == threshold and measured["mean_iou"] == 1
