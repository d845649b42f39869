import geopandas as gpd
import numpy as np
import rasterio

from benchmarks.accuracy.mosaic_references import choose_ninth, cut_references

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
