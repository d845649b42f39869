from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from rasterio.crs import CRS
from rasterio.windows import Window

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.rasters.objects import ObjectTable
from refsam_qgis.engine.rasters.writers import (
    LAYER,
    MASK_NODATA,
    NO_WAY,
    mask_writer,
    merge_polygons,
    probability_writer,
    write_polygons,
    write_prompted,
)
from tests.engine.stand_ins import HALF_METRE

UTM = CRS.from_epsg(32640)
CLASSES = ["Gebäude", "road"]


def objects(count=3, offset=0.0):
    x = 500000.0 + offset + 10 * np.arange(count)
    return ObjectTable(
        shapely.box(x, 2.79e6, x + 8, 2.79e6 + 6),
        np.arange(count, dtype=np.int64) * 7 + 2**33,
        np.arange(count, dtype=np.int32) % 2 + 1,
        np.linspace(0.5, 1, count),
        np.full(count, 48.25),
    )


def schema(path):
    info = pyogrio.read_info(path, layer=LAYER)
    return info["geometry_type"], list(zip(info["fields"].tolist(), info["dtypes"].tolist(), strict=True))


def test_fields_and_values(tmp_path):
    path = str(tmp_path / "a.gpkg")
    table = objects()
    write_polygons(path, table, CLASSES, UTM)
    assert schema(path) == (
        "Polygon",
        [
            ("object_id", "int64"),
            ("class", "object"),
            ("class_id", "int32"),
            ("score", "float64"),
            ("area_m2", "float64"),
        ],
    )
    read = gpd.read_file(path)
    assert read.crs.to_epsg() == 32640
    assert read["object_id"].tolist() == table.object_ids.tolist()
    assert read["class"].tolist() == ["Gebäude", "road", "Gebäude"]
    assert read["score"].tolist() == table.scores.tolist() and read["area_m2"].tolist() == table.areas.tolist()
    assert shapely.equals(read.geometry.to_numpy(), table.polygons).all()


@pytest.mark.parametrize("count", [0, 3])
def test_layers_survive_a_shapefile(tmp_path, count):
    path, copy = str(tmp_path / "a.gpkg"), str(tmp_path / "b.shp")
    write_polygons(path, objects(count), CLASSES, UTM)
    frame = gpd.read_file(path)
    pyogrio.write_dataframe(frame, copy, driver="ESRI Shapefile", geometry_type="Polygon")
    again = gpd.read_file(copy)
    assert again.columns.tolist() == frame.columns.tolist()
    info = pyogrio.read_info(copy)
    kinds = {name: dtype[0] for name, dtype in zip(info["fields"].tolist(), info["dtypes"].tolist(), strict=True)}
    assert kinds == {"object_id": "i", "class": "o", "class_id": "i", "score": "f", "area_m2": "f"}
    assert again.crs.to_epsg() == 32640 and len(again) == count
    for name in ("object_id", "class", "class_id"):
        assert again[name].tolist() == frame[name].tolist()
    assert np.allclose(again["score"], frame["score"], rtol=1e-12)
    assert np.allclose(again["area_m2"], frame["area_m2"], rtol=1e-12)


@pytest.mark.parametrize("crs", [UTM, None])
def test_prompted_objects_are_multipolygons(tmp_path, crs):
    path = str(tmp_path / "a.gpkg")
    table = objects()
    shapes = table.polygons.copy()
    shapes[1] = shapely.MultiPolygon([shapes[1], shapely.transform(shapes[1], lambda xy: xy + 100)])
    write_prompted(path, shapes, table.object_ids, table.scores, table.scores / 2, table.areas, crs)
    kind, fields = schema(path)
    assert kind == "MultiPolygon" and [name for name, _ in fields] == ["object_id", "score", "stability", "area_m2"]
    read = gpd.read_file(path)
    assert shapely.get_num_geometries(read.geometry.to_numpy()).tolist() == [1, 2, 1]
    assert read["stability"].tolist() == (table.scores / 2).tolist()


def test_polygons_on_a_map_with_a_rotated_pole(tmp_path):
    """As climate models draw them."""
    crs = CRS.from_string("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +datum=WGS84 +no_defs")
    path, merged = str(tmp_path / "a.gpkg"), str(tmp_path / "merged.gpkg")
    write_polygons(path, objects(), CLASSES, crs)
    assert merge_polygons(merged, [("one", path), ("two", path)], crs, print) == 6
    expected = pyproj.Transformer.from_pipeline(
        "+proj=pipeline +step +inv +proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +datum=WGS84 "
        "+step +proj=unitconvert +xy_in=rad +xy_out=deg"
    )
    for written in (path, merged):
        read = gpd.read_file(written)
        to_degrees = pyproj.Transformer.from_crs(read.crs, "EPSG:4326", always_xy=True)
        assert np.allclose(to_degrees.transform(1, 2), expected.transform(*np.radians([1, 2])))


def test_merged_layers_have_their_source_and_one_crs(tmp_path):
    table = objects()
    in_degrees = ObjectTable(
        gpd.GeoSeries(table.polygons, crs=32640).to_crs(4326).to_numpy(), *list(vars(table).values())[1:]
    )
    write_polygons(str(tmp_path / "a.gpkg"), table, CLASSES, UTM)
    write_polygons(str(tmp_path / "b.gpkg"), in_degrees, CLASSES, CRS.from_epsg(4326))
    write_polygons(str(tmp_path / "c.gpkg"), objects(0), CLASSES, UTM)
    layers = [(name, str(tmp_path / f"{name}.gpkg")) for name in "abc"]
    merged = str(tmp_path / "merged.gpkg")
    assert merge_polygons(merged, iter(layers), UTM, print) == 6
    assert schema(merged)[1][:2] == [("source", "object"), ("object_id", "int64")]
    read = gpd.read_file(merged)
    assert read["source"].tolist() == ["a"] * 3 + ["b"] * 3
    assert read.crs.to_epsg() == 32640
    assert read["object_id"].tolist() == table.object_ids.tolist() * 2
    assert shapely.equals_exact(read.geometry[3:].to_numpy(), table.polygons, 1e-3).all()
    for crs in (UTM, None):
        assert merge_polygons(str(tmp_path / f"{crs is None}.gpkg"), [], crs, print) == 0
        assert schema(str(tmp_path / f"{crs is None}.gpkg"))[1] == schema(merged)[1]


def test_attributes_that_a_person_left_empty_stay_so_in_a_merged_layer(tmp_path):
    path, merged = (str(tmp_path / name) for name in ("a.gpkg", "merged.gpkg"))
    write_polygons(path, objects(), CLASSES, UTM)
    frame = gpd.read_file(path)
    drawn = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 9, 9)], crs=frame.crs)
    pd.concat([frame, drawn]).to_file(path, layer=LAYER)
    assert merge_polygons(merged, [("a", path)], UTM, print) == 4
    read = gpd.read_file(merged).drop(columns=["source", "geometry"])
    assert read.isna().all(axis=1).tolist() == [False] * 3 + [True]
    assert read["object_id"][:3].tolist() == objects().object_ids.tolist()


def test_layers_without_a_crs_merge(tmp_path):
    write_polygons(str(tmp_path / "a.gpkg"), objects(), CLASSES, None)
    merged = str(tmp_path / "merged.gpkg")
    for crs in (None, UTM):
        assert merge_polygons(merged, [("a", str(tmp_path / "a.gpkg"))], crs, print) == 3
        assert shapely.equals(gpd.read_file(merged).geometry.to_numpy(), objects().polygons).all()


SITE = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]')
MARS = CRS.from_string("+proj=eqc +a=3396190 +b=3376200 +units=m")


@pytest.mark.parametrize(
    ("crs", "merged"), [(UTM, ["earth"]), (SITE, ["site"]), (MARS, ["mars"])], ids=["earth", "site", "mars"]
)
def test_a_layer_that_cannot_be_transformed_is_left_out_and_told(tmp_path, crs, merged):
    layers = {name: str(tmp_path / f"{name}.gpkg") for name in ("earth", "site", "mars")}
    for path, own in zip(layers.values(), (UTM, SITE, MARS), strict=True):
        write_polygons(path, objects(), CLASSES, own)
    told = {}
    path = str(tmp_path / "merged.gpkg")
    assert merge_polygons(path, layers.items(), crs, told.__setitem__) == 3
    assert sorted(set(gpd.read_file(path)["source"])) == merged
    assert told == dict.fromkeys(set(layers) - set(merged), NO_WAY)


def test_polygons_beyond_the_merged_layers_crs_are_left_out_and_told(tmp_path):
    """A gnomonic map holds no more than half of the globe."""
    half = CRS.from_string("+proj=gnom +lat_0=45 +lon_0=15")
    table = objects()
    table.polygons[0] = shapely.box(-165, 40, -164.9, 40.1)
    table.polygons[1:] = [shapely.box(10, 40, 10.1, 40.1), shapely.box(11, 40, 11.1, 40.1)]
    write_polygons(str(tmp_path / "a.gpkg"), table, CLASSES, CRS.from_epsg(4326))
    told = {}
    path = str(tmp_path / "merged.gpkg")
    assert merge_polygons(path, [("far.tif", str(tmp_path / "a.gpkg"))], half, told.__setitem__) == 2
    read = gpd.read_file(path)
    assert read["object_id"].tolist() == table.object_ids[1:].tolist()
    assert np.isfinite(read.total_bounds).all()
    assert list(told) == ["far.tif"] and told["far.tif"].startswith("1 of its polygons lie where the CRS")


def test_a_closed_folder_is_one_sentence(tmp_path):
    with pytest.raises(RefSAMError, match="cannot be written") as caught:
        write_polygons(str(tmp_path / "no" / "a.gpkg"), objects(), CLASSES, UTM)
    assert caught.value.code == "disk"


def pieces_of(values, step, across):
    """Cut ``(bands, h, w)`` into pieces, row by row."""
    _, height, width = values.shape
    for row in range(0, height, step):
        for column in range(0, width, across):
            yield row, column, values[:, row : row + step, column : column + across]


@pytest.mark.parametrize(("step", "across"), [(256, 2000), (224, 1000), (100, 90), (1000, 300)])
def test_pieces_of_any_shape_come_together(tmp_path, step, across):
    values = np.random.default_rng(0).random((2, 700, 1100)).astype(np.float32)
    path = str(tmp_path / "p.tif")
    with probability_writer(path, Window(0, 0, 1100, 700), None, HALF_METRE, ["a", "b"]) as writer:
        for piece in pieces_of(values, step, across):
            writer.write(*piece)
    with rasterio.open(path) as dataset:
        assert np.array_equal(dataset.read(), values)


def test_what_no_piece_holds_is_nodata(tmp_path):
    path = str(tmp_path / "m.tif")
    with mask_writer(path, Window(0, 0, 1100, 900), None, HALF_METRE, CLASSES) as writer:
        for row, column in ((30, 200), (30, 400), (600, 900)):
            writer.write(row, column, np.ones((1, 100, 150), np.uint8))
    with rasterio.open(path) as dataset:
        mask = dataset.read(1)
    assert (mask[30:130, 200:350] == 1).all() and (mask[600:700, 900:1050] == 1).all()
    assert (mask == 1).sum() == 45_000 and (mask[mask != 1] == MASK_NODATA).all()


def test_each_block_is_written_once_and_few_wait(tmp_path, monkeypatch):
    """Whatever the pieces are: no block is compressed twice, and those that wait are of one row of blocks."""
    with probability_writer(str(tmp_path / "p.tif"), Window(0, 0, 1100, 900), None, HALF_METRE, ["a"]) as writer:
        written, waiting = [], []
        release = writer._write_block

        def count(i, j):
            written.append((i, j))
            release(i, j)

        monkeypatch.setattr(writer, "_write_block", count)
        for piece in pieces_of(np.zeros((1, 900, 1100), np.float32), 56, 280):
            writer.write(*piece)
            waiting.append(len(writer._waiting))
    assert sorted(written) == [(i, j) for i in range(4) for j in range(5)]
    assert max(waiting) <= 2 * 5
