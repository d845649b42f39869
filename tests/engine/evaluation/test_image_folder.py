import struct
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image

from refsam_qgis.engine import image_folder
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.image_folder import open_image, scan_folder
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


def test_samples_know_the_classes_that_are_large_enough(folder):
    scanned = scan_folder(folder, min_pixels=200)
    assert [sample.classes for sample in scanned.samples] == [(1,), (1,), (1, 2), (1, 2)]
    assert [sample.classes for sample in scan_folder(folder, min_pixels=201).samples] == [(), (1,), (1,), (1,)]


def test_class_zero_is_background_unless_named_unlabelled(write_folder):
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    plain = scan_folder(write_folder({"a": mask}))
    assert plain.read_label(plain.samples[0], 1).tolist() == [[BACKGROUND, FOREGROUND], [BACKGROUND, IGNORE]]
    open_world = scan_folder(write_folder({"a": mask}, {0: "Unlabelled", 1: "pool", 2: "roof"}))
    assert open_world.read_label(open_world.samples[0], 1).tolist() == [[IGNORE, FOREGROUND], [BACKGROUND, IGNORE]]


def test_each_file_is_opened_once(folder, monkeypatch):
    opened = []

    def listen(path):
        opened.append(path.name)
        return open_image(path)

    monkeypatch.setattr(image_folder, "open_image", listen)
    scan_folder(folder)
    assert sorted(opened) == sorted(path.name for path in folder.glob("*.png"))


def test_large_images_are_cut_into_parts_that_cover_them_once(write_folder):
    mask = np.zeros((50, 90), np.uint8)
    mask[:, 80:] = 1
    scanned = scan_folder(write_folder({"a": mask}), crop=40)
    covered = np.zeros(mask.shape, int)
    for sample in scanned.samples:
        left, top, right, bottom = sample.box
        assert right - left <= 40 and bottom - top <= 40
        covered[top:bottom, left:right] += 1
        assert scanned.read_image(sample).shape == (bottom - top, right - left, 3)
        assert (1 in sample.classes) == bool((scanned.read_label(sample, 1) == FOREGROUND).any())
    assert (covered == 1).all()


def test_what_is_wrong_with_a_folder_is_said_in_a_sentence(folder, tmp_path):
    def message(path):
        with pytest.raises(RefSAMError) as raised:
            scan_folder(path)
        assert raised.value.code == "input"
        return str(raised.value)

    assert "classes.json" in message(tmp_path / "nowhere")
    Image.fromarray(np.full((40, 60), 7, np.uint8)).save(folder / "image0_mask.png")
    assert "value 7" in message(folder)
    Image.fromarray(np.zeros((41, 60), np.uint8)).save(folder / "image0_mask.png")
    assert "60x41" in message(folder)
    (folder / "image0_mask.png").write_bytes(b"no image")
    assert "cannot be read as an image" in message(folder)
    (folder / "image0_mask.png").unlink()
    (folder / "image1.png").unlink()
    assert "has no image" in message(folder)
    (folder / "classes.json").write_text('{"0": "background", "1": "pool", "300": "roof"}')
    assert "class id 300" in message(folder)
    (folder / "classes.json").write_text('{"0": "background", "255": "pool"}')
    assert "no class beside background (0) and what nobody labelled (255); give each class another id" in message(
        folder
    )
    (folder / "classes.json").write_text("[1]")
    assert "JSON object" in message(folder)


@pytest.mark.parametrize(
    ("bands", "dtype"), [(1, "uint16"), (1, "int16"), (1, "int32"), (1, "float32"), (3, "uint16"), (4, "uint16")]
)
@pytest.mark.parametrize("compress", ["none", "lzw"])
def test_images_of_more_than_8_bits_are_refused_as_they_would_be_clipped(folder, bands, dtype, compress):
    (folder / "image0.png").unlink()
    pixels = np.full((bands, 40, 60), 1000, dtype)
    with rasterio.open(
        folder / "image0.tif", "w", width=60, height=40, count=bands, dtype=dtype, compress=compress,
        photometric="rgb" if bands > 1 else "minisblack",
    ) as written:  # fmt: skip
        written.write(pixels)
    with pytest.raises(RefSAMError, match=r"image0\.tif' has more than 8 bits a band; .* as 8-bit"):
        scan_folder(folder)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1"])
def test_images_of_8_bits_or_less_are_taken(folder, mode):
    Image.open(folder / "image0.png").convert(mode).save(folder / "image0.png")
    scanned = scan_folder(folder)
    assert scanned.read_image(scanned.samples[0]).shape == (40, 60, 3)


def test_names_may_be_in_capitals_and_hidden_files_are_passed_over(folder):
    (folder / "image0.png").rename(folder / "image0.PNG")
    (folder / "image1_mask.png").rename(folder / "image1_mask.PNG")
    for name in ("._image2.png", "._image2_mask.png"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    samples = scan_folder(folder).samples
    assert [sample.image.name for sample in samples] == ["image0.PNG", "image1.png", "image2.png", "image3.png"]


def test_names_of_classes_may_begin_with_a_byte_order_mark(folder):
    path = folder / "classes.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert scan_folder(folder).names == {1: "pool", 2: "roof"}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("damage", ["header", "pixels"])
def test_a_damaged_png_is_said_in_a_sentence(folder, damage):
    path = folder / "image0_mask.png"
    content = path.read_bytes()
    start = content.index(b"IDAT") - 4
    if damage == "header":
        content = content[:8] + chunk(b"IHDR", content[16:24]) + content[start:]
    else:
        content = content[:start] + chunk(b"IDAT", content[start + 8 : start + 20]) + chunk(b"\1\2\3\4", b"pixels")
    path.write_bytes(content)
    with pytest.raises(RefSAMError, match=r"image0_mask\.png' cannot be read as an image"):
        scan_folder(folder)


def test_a_large_image_is_opened_without_a_warning(folder, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)
    scan_folder(folder)
    assert not [warning for warning in recwarn if warning.category is Image.DecompressionBombWarning]


def test_an_image_too_large_to_open_is_said_in_a_sentence(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 // 2 - 1)
    with pytest.raises(RefSAMError, match="more pixels than can be opened at once") as raised:
        scan_folder(folder)
    assert raised.value.code == "input"
