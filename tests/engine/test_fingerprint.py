from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import LineString, Point, box

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.fingerprint import fingerprint, is_stamped, raster_identity, references_identity
from refsam_qgis.engine.job import ReferenceSource

MARKS = [box(0, 0, 10, 10), LineString([(0, 0), (5, 7)]), Point(3, 4)]


@pytest.fixture
def raster(write_raster):
    return write_raster(np.zeros((3, 20, 30), np.uint8), "raster 影.tif")


def marks_of(write_vector, geometries=MARKS, name="marks.gpkg", crs="EPSG:32640", kinds=("a", "b", None)):
    return ReferenceSource(write_vector(geometries, name, crs, kind=list(kinds), note=["x"] * 3), class_field="kind")


def test_the_order_of_fields_does_not_matter():
    assert fingerprint({"a": 1, "b": [2.5, None]}) == fingerprint({"b": [2.5, None], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_equal_marks_are_equal_wherever_they_are_written(write_vector, tmp_path):
    source = marks_of(write_vector)
    copy = tmp_path / "other.geojson"
    frame = gpd.read_file(source.vector)
    frame["note"] = "something else"
    frame.to_file(copy)
    moved = ReferenceSource(str(copy), class_field="kind")
    again = tmp_path / "again.gpkg"
    frame.to_file(again, layer="renamed")
    assert references_identity(source) == references_identity(ReferenceSource(str(again), class_field="kind"))
    frame.rename(columns={"kind": "klasse"}).to_file(tmp_path / "field.gpkg")
    field = ReferenceSource(str(tmp_path / "field.gpkg"), class_field="klasse")
    assert references_identity(source) == references_identity(field)
    assert references_identity(moved)["marks"]  # of another format: readable, and as good as others


@pytest.mark.parametrize("change", ["geometry", "class", "crs", "order", "number", "field", "annotation", "negatives"])
def test_marks_that_differ(write_vector, change):
    source = marks_of(write_vector)
    others = {
        "geometry": lambda: marks_of(write_vector, [box(0, 0, 10, 11), *MARKS[1:]], "o.gpkg"),
        "class": lambda: marks_of(write_vector, name="o.gpkg", kinds=("a", "c", None)),
        "crs": lambda: marks_of(write_vector, name="o.gpkg", crs="EPSG:32639"),
        "order": lambda: marks_of(write_vector, [MARKS[1], MARKS[0], MARKS[2]], "o.gpkg"),
        "number": lambda: ReferenceSource(write_vector(MARKS[:1], "o.gpkg", kind=["a"]), class_field="kind"),
        "field": lambda: ReferenceSource(source.vector),
        "annotation": lambda: ReferenceSource(source.vector, class_field="kind", annotation="partial"),
        "negatives": lambda: ReferenceSource(source.vector, class_field="kind", negatives=source.vector),
    }
    assert references_identity(source) != references_identity(others[change]())


def test_the_raster_of_the_marks_counts(write_vector, raster):
    source = ReferenceSource(marks_of(write_vector).vector, raster)
    before = references_identity(source)
    assert references_identity(source) == before
    os.utime(raster)
    assert references_identity(source) != before


def test_a_reference_set_counts_by_its_bytes(tmp_path):
    one, copy, other = (tmp_path / f"{name}.refset" for name in ("one", "copy", "other"))
    one.write_bytes(bytes(3_000_000))
    shutil.copy(one, copy)
    other.write_bytes(bytes(2_999_999) + b"\1")
    identities = [references_identity(ReferenceSource(refset=str(path))) for path in (one, copy, other)]
    assert identities[0] == identities[1] != identities[2]


def test_files_that_are_not_there_are_named(tmp_path, raster):
    with pytest.raises(RefSAMError, match=r"gone\.gpkg' does not exist"):
        references_identity(ReferenceSource(str(tmp_path / "gone.gpkg")))
    with pytest.raises(RefSAMError, match=r"gone\.refset' cannot be read"):
        references_identity(ReferenceSource(refset=str(tmp_path / "gone.refset")))
    with pytest.raises(RefSAMError, match=r"gone\.tif' does not exist"):
        raster_identity(str(tmp_path / "gone.tif"))
    with pytest.raises(RefSAMError, match=r"'.*' cannot be read"):
        references_identity(ReferenceSource(raster))


def change_content(path):
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.ones((3, 20, 30), np.uint8))


def change_sidecar_georeference(path):
    with rasterio.open(path, "r+") as dataset:
        dataset.nodata = 7


@pytest.mark.parametrize("change", [os.utime, change_content, change_sidecar_georeference])
def test_a_changed_raster_is_another(raster, change):
    before = raster_identity(raster)
    change(raster)
    assert raster_identity(raster) != before


def test_statistics_and_overviews_of_other_programs_do_not_count(raster):
    before = raster_identity(raster)
    Path(raster + ".aux.xml").write_text("<PAMDataset><Metadata><MDI key='A'>1</MDI></Metadata></PAMDataset>")
    shutil.copy(raster, raster + ".ovr")
    assert raster_identity(raster) == before


@pytest.mark.parametrize(
    "told",
    [
        "<SRS>EPSG:32639</SRS>",
        "<GeoTransform>7, 1, 0, 8, 0, -1</GeoTransform>",
        '<PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>',
        '<PAMRasterBand band="1"><Description>near infrared</Description></PAMRasterBand>',
    ],
)
def test_what_a_side_file_says_of_the_raster_counts(raster, tmp_path, told):
    """Programs write it there where they may not change the raster, whose own file stays as it is."""
    picture = tmp_path / "picture.png"
    with (
        rasterio.open(raster) as dataset,
        rasterio.open(picture, "w", driver="PNG", width=30, height=20, count=3, dtype="uint8") as written,
    ):
        written.write(dataset.read())
    Path(f"{picture}.aux.xml").unlink(missing_ok=True)
    before = raster_identity(str(picture))
    Path(f"{picture}.aux.xml").write_text(f"<PAMDataset>{told}</PAMDataset>")
    assert raster_identity(str(picture)) != before


def test_a_raster_of_another_size_written_in_the_same_instant_is_another(raster):
    before, stat = raster_identity(raster), os.stat(raster)
    with open(raster, "ab") as stream:
        stream.write(bytes(10))
    os.utime(raster, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert raster_identity(raster) != before


SHAPE = (3, 20, 30)


def test_the_parts_of_a_mosaic_count(raster, write_virtual):
    mosaic = write_virtual(raster, "mosaic.vrt", SHAPE)
    before = raster_identity(mosaic)
    os.utime(raster)
    assert raster_identity(mosaic) != before


def test_the_parts_of_a_mosaic_of_mosaics_count(raster, write_virtual):
    write_virtual(f"../{Path(raster).name}", "inner/one.vrt", SHAPE)
    write_virtual("inner/one.vrt", "two.VRT", SHAPE)
    mosaic = write_virtual("two.VRT", "mosaic.vrt", SHAPE)
    before = raster_identity(mosaic)
    assert len(before["files"]) == 3
    os.utime(raster)
    assert raster_identity(mosaic) != before


def test_mosaics_that_name_one_another_come_to_an_end(write_virtual):
    write_virtual("../inner/../two.vrt", "inner/one.vrt", SHAPE)
    assert len(raster_identity(write_virtual("inner/one.vrt", "two.vrt", SHAPE))["files"]) == 1


def test_the_text_of_a_virtual_raster_counts_wherever_it_is_written(raster, write_virtual, tmp_path):
    """The host writes one for each run; what journals, encodings and folders keep is to be found again."""
    first = Path(write_virtual(raster, "one/raster.tif", SHAPE))
    (tmp_path / "two").mkdir()
    second = Path(shutil.copy(first, tmp_path / "two"))
    before = raster_identity(str(first))
    assert raster_identity(str(second)) == before
    assert [stamp[0] for stamp in before["files"]] == [os.path.realpath(raster)]
    second.write_text(second.read_text(encoding="utf-8").replace("EPSG:32640", "EPSG:32639"), encoding="utf-8")
    assert raster_identity(str(second)) != before
    second.write_text(first.read_text(encoding="utf-8").replace("<SourceBand>1", "<SourceBand>3"), encoding="utf-8")
    assert raster_identity(str(second)) != before


def packed(raster, kind):
    """Put a raster into an archive; return the archive and GDAL's path of the raster in it."""
    archive = Path(raster).with_name(f"archive.{kind}")
    if kind == "gz":
        archive.write_bytes(gzip.compress(Path(raster).read_bytes()))
        return archive, f"/vsigzip/{archive}"
    if kind == "tar":
        with tarfile.open(archive, "w") as tar:
            tar.add(raster, "inner/a.tif")
        return archive, f"/vsitar/{archive}/inner/a.tif"
    with zipfile.ZipFile(archive, "w") as packing:
        packing.write(raster, "inner/a.tif")
    if kind == "zip":
        return archive, f"/vsizip/{archive}/inner/a.tif"
    outer = archive.with_name("outer.zip")
    with zipfile.ZipFile(outer, "w") as packing:
        packing.write(archive, "archive.zip")
    return outer, f"/vsizip/{{/vsizip/{{{outer}}}/archive.zip}}/inner/a.tif"


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "zip of zips"])
@pytest.mark.parametrize("virtual", [False, True])
def test_what_lies_in_an_archive_changes_with_it(raster, write_virtual, kind, virtual):
    archive, path = packed(raster, kind)
    if virtual:
        path = write_virtual(path, "of an archive.vrt", SHAPE)
        Path(path).write_text(Path(path).read_text(encoding="utf-8").replace('relativeToVRT="1"', ""), encoding="utf-8")
    before = raster_identity(path)
    assert is_stamped(before) and raster_identity(path) == before
    os.utime(archive, (1, 1))
    assert raster_identity(path) != before


def test_nobody_can_tell_whether_what_is_no_file_changed(raster):
    part = f"/vsisubfile/0_{os.path.getsize(raster)},{raster}"
    assert is_stamped(raster_identity(raster)) and not is_stamped(raster_identity(part))
    assert not is_stamped(raster_identity('<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand/></VRTDataset>'))


def test_one_part_that_nobody_can_tell_of_is_enough():
    assert is_stamped({"files": [["a.tif", 1, 1], ["b.tif", 2, 2]]})
    assert not is_stamped({"files": [["a.tif", 1, 1], ["/vsicurl/https://example.org/b.tif", None, None]]})
