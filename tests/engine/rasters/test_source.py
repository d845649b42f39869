from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from rasterio.windows import Window

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.fingerprint import raster_identity
from refsam_qgis.engine.rasters import source
from refsam_qgis.engine.rasters.georeference import PICTURE
from refsam_qgis.engine.rasters.source import RasterSource
from tests.engine.stand_ins import HALF_METRE, Recorder

WHOLE = Window(0, 0, 40, 30)


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (3, 30, 40), dtype=np.uint8)


def test_windows_that_stick_out_are_filled_invalid(write_raster, rgb):
    with RasterSource(write_raster(rgb)) as raster:
        image, valid = raster.read(Window(-5, -3, 50, 40))
        beside, nothing = raster.read(Window(100, 100, 8, 8))
    assert valid.sum() == 30 * 40 and valid[3:33, 5:45].all()
    assert np.array_equal(image[:, 3:33, 5:45], rgb)
    assert not image[:, ~valid].any() and not nothing.any() and not beside.any()


@pytest.mark.parametrize("name", ["with space.tif", "снимок/日本 é.tif"])
def test_any_path(write_raster, rgb, name):
    with RasterSource(write_raster(rgb, name=name)) as raster:
        assert np.array_equal(raster.read(WHOLE)[0], rgb)


def test_nodata_alpha_mask_band_and_nan_are_invalid(write_raster, rgb):
    hole = np.zeros((30, 40), bool)
    hole[5:9, 6:12] = True
    holed = rgb.clip(1)
    holed[:, hole] = 0
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    floats = rgb.astype(np.float32)
    floats[1, hole] = np.nan
    rgba = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    paths = [
        write_raster(holed, "nodata.tif", nodata=0),
        write_raster(np.concatenate([rgb, alpha[None]]), "alpha.tif", colorinterp=rgba),
        write_raster(rgb, "mask.tif", mask=alpha),
        write_raster(floats, "nan.tif"),
    ]
    for path in paths:
        with RasterSource(path) as raster:
            image, valid = raster.read(WHOLE)
        assert np.array_equal(valid, ~hole), path
        assert not image[:, hole].any(), path


def test_a_pixel_with_one_band_at_nodata_is_valid(write_raster, rgb):
    rgb = rgb.clip(1)
    rgb[0, 3, 3] = 0
    with RasterSource(write_raster(rgb, nodata=0)) as raster:
        assert raster.read(WHOLE)[1].all()


@pytest.mark.parametrize("nodata", [-9999, float(np.finfo(np.float32).min)])
def test_bands_that_are_not_taken_do_not_make_floats_valid(write_raster, rgb, nodata):
    """A height model beside colours that have holes of their own."""
    values = np.concatenate([rgb, np.full((1, 30, 40), 7)]).astype(np.float32)
    values[:3, :10] = nodata
    values[1, 10, :5] = nodata
    with RasterSource(write_raster(values, nodata=nodata)) as raster:
        _, valid = raster.read(WHOLE)
        assert not valid[:10].any() and not valid[10, :5].any() and valid.sum() == 20 * 40 - 5
        assert np.min(raster.limits) >= 0


def test_bands_that_are_not_taken_do_not_make_integers_valid(write_raster, rgb):
    values = np.concatenate([rgb.clip(1), rgb[:1].clip(1)]).astype(np.uint16)
    values[:3, :10] = 0
    with RasterSource(write_raster(values, nodata=0, photometric="minisblack")) as raster:
        _, valid = raster.read(WHOLE)
    assert not valid[:10].any() and valid[10:].all()


@pytest.mark.parametrize("stretch", ["auto", "percentile"])
def test_an_alpha_band_that_is_taken_is_data(write_raster, rgb, stretch):
    """GDAL calls the fourth band alpha by itself; near infrared is 0 on water."""
    infrared = rgb[:1].clip(1)
    infrared[0, 5:9, 6:12] = 0
    hole = np.zeros((30, 40), bool)
    hole[20:25, 3:9] = True
    four = np.concatenate([rgb.clip(1), infrared])
    holed = np.where(hole, 0, four).astype(np.uint8)
    plain = write_raster(four, "plain.tif")
    with rasterio.open(plain) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    with_nodata = write_raster(holed, "nodata.tif", nodata=0)
    with_mask = write_raster(four, "mask.tif", mask=np.where(hole, 0, 255).astype(np.uint8))
    for bands in ((4, 3, 2), (4,)):
        with RasterSource(plain, bands, stretch) as raster:
            image, valid = raster.read(WHOLE)
        assert valid.all() and (stretch == "percentile" or np.array_equal(image[0], infrared[0]))
        with RasterSource(with_mask, bands, stretch) as raster:
            assert np.array_equal(raster.read(WHOLE)[1], ~hole)
        with RasterSource(with_nodata, bands, stretch) as raster:
            expected = holed[[band - 1 for band in bands]].any(axis=0)
            assert np.array_equal(raster.read(WHOLE)[1], expected)
    with RasterSource(plain, (1, 2, 3), stretch) as raster:
        assert np.array_equal(raster.read(WHOLE)[1], infrared[0] > 0)


def describe(path, *descriptions):
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = descriptions
    return path


@pytest.mark.parametrize(
    ("description", "is_opacity"),
    [("Alpha", True), ("alpha band", True), ("Band 4", True), (None, True), ("nir", False), ("近红外", False)],
)
def test_an_alpha_band_that_is_described_as_data_masks_nothing(write_raster, rgb, description, is_opacity):
    four = np.concatenate([rgb, rgb[:1].clip(1)])
    four[3, 5:9, 6:12] = 0
    path = describe(write_raster(four), "blue", "green", "red", description)
    for bands in (None, (3, 2, 1)):
        with RasterSource(path, bands) as raster:
            image, valid = raster.read(WHOLE)
            assert raster.bands == (3, 2, 1)
        assert np.array_equal(valid, four[3] > 0) if is_opacity else valid.all()
        assert np.array_equal(image, np.where(valid, rgb[::-1], 0))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_alpha_of_any_type_and_place_is_honoured(write_raster, rgb, dtype, count):
    hole = np.zeros((30, 40), bool)
    hole[5:9, 6:12] = True
    opaque = np.concatenate([rgb, rgb])[: count - 1].clip(1, 100)
    path = write_raster(
        np.concatenate([np.where(hole, 255, opaque), np.where(hole, 0, 1)[None]]).astype(dtype),
        colorinterp=[ColorInterp.undefined] * (count - 1) + [ColorInterp.alpha],
        photometric="minisblack",
    )
    with RasterSource(path, (1,)) as raster:
        image, valid = raster.read(WHOLE)
        assert raster.limits is None or np.max(raster.limits) <= 100
    assert np.array_equal(valid, ~hole) and not image[:, hole].any()


def test_alpha_is_honoured_beside_nodata_unless_it_may_be_a_guess(write_raster, rgb):
    """Near infrared of four 8-bit bands is called alpha, and is 0 on water."""
    hole = np.zeros((30, 40), bool)
    hole[5:9, 6:12] = True
    rgba = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    for dtype in ("uint8", "float32"):
        values = np.concatenate([rgb.clip(1), np.where(hole, 0, 255)[None]]).astype(dtype)
        values[:, 20:] = 0
        with RasterSource(write_raster(values, nodata=0, colorinterp=rgba)) as raster:
            _, valid = raster.read(WHOLE)
        assert not valid[20:].any() and (~valid[:20]).sum() == (0 if dtype == "uint8" else hole.sum())


def test_transparent_entries_of_a_palette_are_invalid(tmp_path):
    indices = (np.arange(1200).reshape(30, 40) % 7).astype(np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette([value for i in range(7) for value in (10 * i, 255 - i, 3 * i)])
    path = str(tmp_path / "palette.png")
    picture.save(path, transparency=bytes([0, 255, 0, 128, 255, 255, 255]))
    with RasterSource(path) as raster:
        image, valid = raster.read(WHOLE)
    assert np.array_equal(valid, ~np.isin(indices, (0, 2)))
    assert not image[:, ~valid].any() and np.array_equal(image[0], np.where(valid, 10 * indices, 0))


def test_palette_becomes_its_colours(write_raster):
    indices = (np.arange(1200).reshape(1, 30, 40) % 7).astype(np.uint8)
    table = {i: (10 * i, 255 - i, 3 * i, 255) for i in range(7)}
    with RasterSource(write_raster(indices, colormap=table)) as raster:
        image, _ = raster.read(WHOLE)
    colours = np.array([table[i][:3] for i in range(7)], np.uint8)
    assert np.array_equal(image, colours[indices[0]].transpose(2, 0, 1))


@pytest.mark.parametrize("bands", [1, 2])
def test_one_and_two_bands_are_grey(write_raster, rgb, bands):
    with RasterSource(write_raster(rgb[:bands])) as raster:
        image, _ = raster.read(WHOLE)
    assert np.array_equal(image, np.repeat(rgb[:1], 3, axis=0))


def test_bands_come_from_description_then_interpretation_then_order(write_raster, rgb):
    four = np.concatenate([rgb, 255 - rgb[:1]])
    bgr = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined)
    by_colour = write_raster(four, "colour.tif", colorinterp=bgr)
    by_name = describe(write_raster(four, "name.tif", photometric="minisblack"), "NIR", "Blue", "Red", "Green")
    by_both = describe(write_raster(four, "both.tif", photometric="minisblack"), "NIR", "Blue", "Red", None)
    with rasterio.open(by_both, "r+") as dataset:
        dataset.colorinterp = (*[ColorInterp.undefined] * 3, ColorInterp.green)
    contradictory = describe(write_raster(four, "contradictory.tif"), "blue", "green", "red", "nir")
    of_three = describe(write_raster(rgb, "three.tif"), "nir", "red", "green")
    by_order = write_raster(four, "order.tif", photometric="minisblack")
    expected = {by_colour: (3, 2, 1), by_name: (3, 4, 2), by_both: (3, 4, 2), by_order: (1, 2, 3)}
    for path, bands in {**expected, contradictory: (3, 2, 1), of_three: (1, 2, 3)}.items():
        recorder = Recorder()
        with RasterSource(path) as raster:
            assert raster.bands == bands
            raster.tell_bands(recorder)
        told = "descriptions and colour interpretation disagree" in "".join(recorder.messages)
        assert told == (path not in expected)
    # What is written in words goes first, and the case does not matter.
    for path, names, bands in (
        (by_colour, ("red", "green", "blue", ""), (1, 2, 3)),
        (by_name, ("NIR", " BLUE", "red", "green"), (3, 4, 2)),
    ):
        with RasterSource(describe(path, *names)) as raster:
            assert raster.bands == bands
    with RasterSource(by_order, (4, 1, 2)) as raster:
        assert np.array_equal(raster.read(WHOLE)[0], four[[3, 0, 1]])


def test_of_bands_with_one_name_the_first_is_taken(write_raster, rgb):
    path = write_raster(np.concatenate([rgb, rgb]), photometric="minisblack")
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("blue", "green", "red", "red", "green", "blue")
    with RasterSource(path) as raster:
        assert raster.bands == (3, 2, 1)


@pytest.mark.parametrize(
    ("count", "colours", "bands", "told"),
    [
        (4, "minisblack", None, True),
        (5, "minisblack", None, True),
        (4, "minisblack", (4, 1, 2), False),
        (4, "rgb", None, False),
        (3, "minisblack", None, False),
        (1, "minisblack", None, False),
    ],
)
def test_bands_are_told_where_they_are_a_choice_that_the_raster_does_not_make(
    write_raster, rgb, count, colours, bands, told
):
    recorder = Recorder()
    path = write_raster(np.concatenate([rgb, rgb])[:count], photometric=colours, alpha="unspecified")
    with RasterSource(path, bands) as raster:
        raster.tell_bands(recorder)
    assert recorder.messages == ["Bands 1, 2, 3 are taken as red, green and blue; choose others with Bands."] * told


def test_a_band_of_opacity_is_no_choice(write_raster, rgb):
    recorder = Recorder()
    with RasterSource(write_raster(np.concatenate([rgb, rgb[:1]]), photometric="minisblack", alpha="yes")) as raster:
        raster.tell_bands(recorder)
    assert recorder.messages == []


def test_uint16_is_stretched_between_percentiles_of_the_whole_raster(write_raster):
    values = np.random.default_rng(1).integers(100, 4000, (3, 30, 40)).astype(np.uint16)
    values[:, :3] = 65535
    low, high = np.percentile(values[:, 3:].reshape(3, -1), (2, 98), axis=1)
    expected = np.rint(((values - low[:, None, None]) / (high - low)[:, None, None]).clip(0, 1) * 255)
    with RasterSource(write_raster(values, nodata=65535)) as raster:
        whole, valid = raster.read(WHOLE)
        part, _ = raster.read(Window(20, 15, 10, 10))
    assert np.array_equal(whole[:, valid], expected[:, valid])
    assert np.array_equal(part, whole[:, 15:25, 20:30])


@pytest.mark.parametrize("border", [0, np.nan])
def test_a_black_border_and_outliers_do_not_matter_to_the_stretch(write_raster, border):
    values = np.random.default_rng(1).normal(3000, 100, (3, 200, 200)).astype(np.float32)
    plain = write_raster(values, "plain.tif")
    framed = np.full((3, 300, 300), border, np.float32)
    framed[:, 20:220, 50:250] = values
    framed[:, 30, 60:70] = 1e30
    framed[:, 31, 60:70] = -1e30
    with RasterSource(plain) as one, RasterSource(write_raster(framed, "framed.tif")) as other:
        assert np.allclose(one.limits, other.limits, atol=2)
        assert np.ptp(one.read(Window(0, 0, 200, 200))[0]) == 255


def test_a_constant_band_is_black_whatever_few_pixels_hold(write_raster):
    values = np.random.default_rng(0).integers(100, 900, (3, 100, 100), dtype=np.uint16)
    values[1] = 500
    values[1, :5, :5] = 0, 400, 500, 600, 5000
    with RasterSource(write_raster(values)) as raster:
        image, valid = raster.read(Window(0, 0, 100, 100))
    assert valid.all() and not image[1].any() and np.ptp(image[0]) == np.ptp(image[2]) == 255


def test_a_palette_of_16_bits_becomes_its_colours(write_raster):
    values = np.arange(1200, dtype=np.uint16).reshape(1, 30, 40) % 3
    path = write_raster(values, colormap={0: (10, 20, 30, 255), 1: (200, 0, 0, 255), 2: (90, 90, 90, 255)})
    with RasterSource(path) as raster:
        assert raster.limits is None
        assert raster.read(WHOLE)[0][:, 0, :3].T.tolist() == [[10, 20, 30], [200, 0, 0], [90, 90, 90]]


def test_a_mask_keeps_its_contrast_when_stretched(write_raster):
    values = (np.random.default_rng(1).random((1, 30, 40)) > 0.5).astype(np.uint16)
    with RasterSource(write_raster(values)) as raster:
        assert np.array_equal(raster.read(WHOLE)[0][0], values[0] * 255)


@pytest.mark.parametrize("first", [0, 1], ids=["8 bits first", "16 bits first"])
def test_bands_of_several_types_are_stretched_each(tmp_path, write_raster, rgb, first):
    """As gdalbuildvrt -separate stacks them."""
    bands = [rgb[0], rgb[1].astype(np.uint16) * 200, rgb[2]]
    bands = bands[first:] + bands[:first]
    parts = [write_raster(band[None], f"{number}.tif") for number, band in enumerate(bands)]
    with RasterSource(write_stack(tmp_path / "stack.vrt", parts)) as raster:
        image, valid = raster.read(WHOLE)
    for band, found in zip(bands, image, strict=True):
        low, high = np.percentile(band, (2, 98))
        assert np.abs(found - ((band - low) / (high - low)).clip(0, 1) * 255).max() <= 1
    assert valid.all()


def write_stack(path, parts):
    """Write a VRT of the first band of each file."""
    bands = []
    for number, part in enumerate(parts, 1):
        with rasterio.open(part) as dataset:
            kind = {"uint8": "Byte", "uint16": "UInt16"}[dataset.dtypes[0]]
        bands.append(
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename relativeToVRT="0">{part}'
            "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    path.write_text(f'<VRTDataset rasterXSize="40" rasterYSize="30">{"".join(bands)}</VRTDataset>')
    return str(path)


def test_stretch_none_clips_and_percentile_stretches_bytes(write_raster, rgb):
    path = write_raster(rgb.astype(np.int16) * 4 - 100)
    with RasterSource(path, stretch="none") as raster:
        assert np.array_equal(raster.read(WHOLE)[0], (rgb.astype(int) * 4 - 100).clip(0, 255))
    dull = write_raster(rgb // 4 + 50, "dull.tif")
    with RasterSource(dull, stretch="percentile") as raster:
        assert np.ptp(raster.read(WHOLE)[0]) == 255
    with RasterSource(dull) as raster:
        assert np.array_equal(raster.read(WHOLE)[0], rgb // 4 + 50)


@pytest.mark.parametrize(
    ("crs", "transform", "expected"),
    [
        ("EPSG:32640", from_origin(500000, 2790000, 0.5, 0.5), 0.5 / 0.9996),
        ("EPSG:32640", Affine(0.5, 0, 500000, 0, 0.5, 2790000), 0.5 / 0.9996),
        ("EPSG:32640", Affine.translation(500000, 2790000) * Affine.rotation(30) * Affine.scale(2, -2), 2 / 0.9996),
        ("EPSG:2263", from_origin(984250, 200000, 1, 1), 1200 / 3937),
        (None, from_origin(0, 0, 3, 3), 3.0),
    ],
    ids=["utm", "south-up", "rotated", "feet", "none"],
)
def test_ground_sample_distance(write_raster, rgb, crs, transform, expected):
    with RasterSource(write_raster(rgb, crs=crs, transform=transform)) as raster:
        assert raster.gsd == pytest.approx(expected, rel=2e-4)


def test_ground_sample_distance_of_degrees(write_raster, rgb):
    geod = pyproj.Geod(ellps="WGS84")
    with RasterSource(write_raster(rgb, crs="EPSG:4326", transform=from_origin(10, 60, 1e-5, 1e-5))) as raster:
        _, _, east = geod.inv(10, 60, 10.00001, 60)
        _, _, north = geod.inv(10, 60, 10, 60.00001)
        assert raster.gsd == pytest.approx((east * north) ** 0.5, rel=1e-4)


def test_an_image_without_georeference_lies_where_qgis_shows_it(tmp_path, write_raster, rgb):
    picture = tmp_path / "picture.png"
    Image.fromarray(rgb.transpose(1, 2, 0)).save(picture)
    plain = write_raster(rgb, "plain.tif", crs=None, transform=None)
    with_crs = write_raster(rgb, "with_crs.tif", transform=None)
    placed = write_raster(rgb, "placed.tif", crs=None, transform=HALF_METRE)
    upwards = write_raster(rgb, "upwards.tif", crs=None, transform=Affine.identity())
    on_map = write_raster(rgb, "on_map.tif", transform=Affine.identity())
    expected = dict.fromkeys((str(picture), plain, with_crs), PICTURE) | {placed: HALF_METRE}
    expected |= dict.fromkeys((upwards, on_map), Affine.identity())
    for path, transform in expected.items():
        with RasterSource(path) as raster:
            assert raster.transform == transform, path
        assert raster_identity(path)["transform"] == list(transform)[:6], path


def test_what_lies_on_the_map_by_points_or_rpcs_is_to_be_warped_first(write_raster, rgb):
    corners = [GroundControlPoint(row, column, 10 + column, 50 - row) for row in (0, 30) for column in (0, 40)]
    ones = [1.0] * 20
    rpcs = RPC(0, 1, 10, 1, ones, ones, 5, 1, 50, 1, ones, ones, 5, 1)
    paths = [
        write_raster(rgb, "points.tif", crs="EPSG:4326", transform=None, gcps=corners),
        write_raster(rgb, "rpcs.tif", crs=None, transform=None, rpcs=rpcs),
    ]
    for path in paths:
        with pytest.raises(RefSAMError, match="warp it first"):
            RasterSource(path)
    with RasterSource(write_raster(rgb, "both.tif", rpcs=rpcs)) as raster:
        assert raster.transform == HALF_METRE


def test_unusable_files_are_named(tmp_path, write_raster, rgb):
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not a raster")
    with pytest.raises(RefSAMError, match=r"missing\.tif' does not exist"):
        RasterSource(str(tmp_path / "missing.tif"))
    with pytest.raises(RefSAMError, match=r"notes\.txt' cannot be read as a raster"):
        RasterSource(str(foreign))
    with pytest.raises(RefSAMError, match="has no band 5; use bands 1 to 3"):
        RasterSource(write_raster(rgb), (1, 2, 5))
    with pytest.raises(RefSAMError, match="has no band 0; use bands 1 to 3"):
        RasterSource(write_raster(rgb), (0, 1, 2))
    with pytest.raises(RefSAMError, match=r"Band 2 of '.*' is complex"):
        RasterSource(write_raster(rgb.astype(np.complex64)), (2,))
    with pytest.raises(RefSAMError, match="2 bands were given"):
        RasterSource(write_raster(rgb), (1, 2))


def test_a_damaged_file_is_named(write_raster):
    noise = np.random.default_rng(2).integers(0, 256, (3, 300, 300), dtype=np.uint8)
    path = write_raster(noise, compress="deflate")
    with open(path, "r+b") as stream:
        stream.truncate(100_000)
    with pytest.raises(RefSAMError, match="cannot be read near row"), RasterSource(path) as raster:
        raster.read(Window(0, 0, 300, 300))


def test_a_part_of_a_mosaic_that_is_gone_is_named(tmp_path, write_raster, rgb):
    part = write_raster(rgb[:1], "part.tif")
    mosaic = write_stack(tmp_path / "mosaic.vrt", [part] * 3)
    Path(part).unlink()
    with (
        pytest.raises(RefSAMError, match=r"mosaic\.vrt' cannot be read .*part\.tif: No such file"),
        RasterSource(mosaic) as raster,
    ):
        raster.read(WHOLE)


def test_threads_read_by_handles_of_their_own(write_raster, monkeypatch):
    """Many windows at a time give what one after the other gives, with one handle for each thread."""
    values = np.random.default_rng(3).integers(0, 256, (3, 600, 500), dtype=np.uint8)
    path = write_raster(values, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    opened = []
    really = source.open_input
    monkeypatch.setattr(source, "open_input", lambda path: opened.append(path) or really(path))
    windows = [Window(37 * i % 450, 61 * i % 550, 90, 80) for i in range(60)]
    start = threading.Barrier(3)
    with RasterSource(path) as raster:
        with ThreadPoolExecutor(3, initializer=start.wait) as pool:
            found = list(pool.map(raster.read, windows))
        handles = list(raster._opened)
        alone = [raster.read(window) for window in windows]
    assert len(opened) == len(handles) == 4 and all(dataset.closed for dataset in handles)
    for (rgb, valid), (expected_rgb, expected_valid) in zip(found, alone, strict=True):
        assert np.array_equal(rgb, expected_rgb) and np.array_equal(valid, expected_valid)


def test_what_the_mask_leaves_out_is_not_read(write_raster, rgb, monkeypatch):
    alpha = np.zeros((1, 30, 40), np.uint8)
    alpha[:, :, 20:] = 255
    rgba = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    reads = []
    with RasterSource(write_raster(np.concatenate([rgb, alpha]), colorinterp=rgba)) as raster:
        dataset = CountingDataset(raster._dataset, reads)
        raster._handles.dataset = dataset
        assert not raster.read(Window(0, 0, 20, 30))[1].any() and reads == []
        assert raster.read(Window(10, 0, 20, 30))[1].any() and reads == [20 * 30]


class CountingDataset:
    def __init__(self, dataset, reads):
        self._dataset, self._reads = dataset, reads

    def __getattr__(self, name):
        return getattr(self._dataset, name)

    def read(self, *arguments, window, **options):
        self._reads.append(window.width * window.height)
        return self._dataset.read(*arguments, window=window, **options)
