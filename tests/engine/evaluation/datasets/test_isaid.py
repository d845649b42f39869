import os

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.datasets.isaid import CROP, FOLDS, scan_isaid
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE

SHIP, PLANE, HARBOR = (0, 0, 63), (0, 127, 255), (0, 100, 155)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def full_images(tmp_path):
    """One validation image of DOTA beside iSAID's masks, as the devkit wants them."""
    colours = np.zeros((300, 500, 3), np.uint8)
    colours[10:60, 20:70] = SHIP
    colours[200:260, 400:460] = PLANE
    colours[100:110, 20:30] = HARBOR
    image = np.full((300, 500, 3), 90, np.uint8)
    image[10:60, 20:70] = 200
    images = tmp_path / "val" / "images"
    save(images / "P0003.png", image)
    save(images / "P0003_instance_color_RGB.png", colours)
    save(images / "P0003_instance_id_RGB.png", colours)
    return tmp_path


@pytest.fixture
def patches(tmp_path):
    """Two patches of SDM: class ids in a folder of their own, and lists that are not needed."""
    for name, class_id in (("P0003_0_256_0_256", 1), ("P0003_0_256_206_462", 14)):
        ids = np.zeros((256, 256), np.uint8)
        ids[:64, :64] = class_id
        ids[-1] = 255
        save(tmp_path / "val" / "images" / f"{name}.png", np.full((256, 256, 3), class_id, np.uint8))
        save(tmp_path / "val" / "semantic_png" / f"{name}_instance_color_RGB.png", ids)
    (tmp_path / "val" / "val_list").mkdir()
    return tmp_path


def test_full_images_are_cut_and_colours_become_classes(full_images):
    dataset = scan_isaid(full_images, 2048, SilentReporter())
    assert dataset.names[1] == "ship" and dataset.names[15] == "harbor" and len(dataset.names) == 15
    assert [sample.classes for sample in dataset.samples] == [(1,), (), (), (14,)]
    assert all(max(s.box[2] - s.box[0], s.box[3] - s.box[1]) <= CROP for s in dataset.samples)
    assert len({sample.source for sample in dataset.samples}) == 4
    ship = dataset.read_label(dataset.samples[0], 1)
    assert ship.shape == (150, 250)
    assert (np.argwhere(ship == FOREGROUND).min(0) == [10, 20]).all() and (ship == FOREGROUND).sum() == 2500
    assert (dataset.read_image(dataset.samples[0])[ship == FOREGROUND] == 200).all()
    assert (dataset.read_label(dataset.samples[3], 14) == FOREGROUND).sum() == 3600
    assert [s.classes for s in scan_isaid(full_images, 100, SilentReporter()).samples] == [(1, 15), (), (), (14,)]


def test_masks_may_lie_in_the_folder_they_are_unpacked_to(full_images):
    masks = full_images / "val" / "Semantic_masks" / "images"
    masks.mkdir(parents=True)
    (full_images / "val" / "images" / "P0003_instance_color_RGB.png").rename(masks / "P0003_instance_color_RGB.png")
    assert len(scan_isaid(full_images, 2048, SilentReporter()).samples) == 4


def test_patches_are_used_as_they_are(patches):
    dataset = scan_isaid(patches, 2048, SilentReporter())
    assert [sample.classes for sample in dataset.samples] == [(1,), (14,)]
    label = dataset.read_label(dataset.samples[1], 14)
    assert (label[:64, :64] == FOREGROUND).all() and (label[-1] == IGNORE).all()
    assert (label == BACKGROUND).sum() == 256 * 255 - 64 * 64
    assert (dataset.read_image(dataset.samples[1]) == 14).all()


def test_ids_in_three_equal_bands_are_ids(patches):
    path = patches / "val" / "semantic_png" / "P0003_0_256_0_256_instance_color_RGB.png"
    before = scan_isaid(patches, 2048, SilentReporter())
    labels = before.read_label(before.samples[0], 1)
    with Image.open(path) as mask:
        mask.convert("RGB").save(path)
    after = scan_isaid(patches, 2048, SilentReporter())
    assert (after.read_label(after.samples[0], 1) == labels).all()


def semantic_mask(folder):
    (path,) = (folder / "val").rglob("*_instance_color_RGB.png")
    return path


def test_colours_in_a_palette_are_colours(full_images):
    path = semantic_mask(full_images)
    expected = [sample.classes for sample in scan_isaid(full_images, 100, SilentReporter()).samples]
    with Image.open(path) as mask:
        mask.quantize(256).save(path)
    with Image.open(path) as mask:
        assert mask.mode == "P" and set(np.unique(mask)) == {0, 1, 2, 3}
    dataset = scan_isaid(full_images, 100, SilentReporter())
    assert [sample.classes for sample in dataset.samples] == expected == [(1, 15), (), (), (14,)]
    assert (dataset.read_label(dataset.samples[3], 14) == FOREGROUND).sum() == 3600


@pytest.mark.parametrize("colours", [range(256), range(0, 768, 3), [0, 255]])
def test_indices_of_any_other_palette_are_ids(patches, colours):
    path = patches / "val" / "semantic_png" / "P0003_0_256_0_256_instance_color_RGB.png"
    with Image.open(path) as mask:
        palette = Image.fromarray(np.minimum(mask, 1)).convert("P")
    palette.putpalette([value % 256 for value in colours for _ in range(3)])
    palette.save(path)
    assert scan_isaid(patches, 2048, SilentReporter()).samples[0].classes == (1,)


@pytest.mark.parametrize(("value", "classes"), [(1, (1,)), (257, None), (65535, None)])
def test_ids_of_16_bits_are_read_as_they_are(patches, value, classes):
    path = patches / "val" / "semantic_png" / "P0003_0_256_0_256_instance_color_RGB.png"
    Image.fromarray(np.full((256, 256), value, np.uint16)).save(path)
    if classes is not None:
        assert scan_isaid(patches, 2048, SilentReporter()).samples[0].classes == classes
    else:
        with pytest.raises(RefSAMError, match=f"holds the value {value}, which is no class"):
            scan_isaid(patches, 2048, SilentReporter())


def test_transparency_beside_ids_does_not_matter(patches):
    path = patches / "val" / "semantic_png" / "P0003_0_256_0_256_instance_color_RGB.png"
    with Image.open(path) as mask:
        mask.convert("LA").save(path)
    assert scan_isaid(patches, 2048, SilentReporter()).samples[0].classes == (1,)


def test_folders_may_be_links_and_files_may_be_called_in_capitals(full_images, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk") / "images"
    (full_images / "val" / "images").rename(elsewhere)
    os.symlink(elsewhere, full_images / "val" / "images")
    os.symlink(full_images / "val", elsewhere / "circle")
    (elsewhere / "P0003.png").rename(elsewhere / "P0003.PNG")
    (elsewhere / "P0003_instance_color_RGB.png").rename(elsewhere / "P0003_INSTANCE_COLOR_RGB.PNG")
    samples = scan_isaid(full_images, 2048, SilentReporter()).samples
    assert [sample.classes for sample in samples] == [(1,), (), (), (14,)]


def test_what_systems_leave_beside_files_is_passed_over(full_images):
    for name in ("._P0003.png", "._P0003_instance_color_RGB.png", ".DS_Store", "Thumbs.db"):
        (full_images / "val" / "images" / name).write_bytes(b"\0\5\x16\7")
    assert len(scan_isaid(full_images, 2048, SilentReporter()).samples) == 4


@pytest.mark.parametrize("name", ["P0003.png", "P0003_instance_color_RGB.png"])
def test_two_files_of_one_name_are_refused(full_images, name):
    path = full_images / "val" / "images" / name
    copy = full_images / "val" / "masks" / name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    with pytest.raises(RefSAMError, match=f"{name}' and '.*{name}' have the same name; leave only one"):
        scan_isaid(full_images, 2048, SilentReporter())


def test_the_folds_follow_the_order_of_the_classes(patches):
    names = scan_isaid(patches, 2048, SilentReporter()).names
    assert [names[i] for i in FOLDS[1]] == [
        "ground_track_field", "bridge", "large_vehicle", "small_vehicle", "helicopter",
    ]  # fmt: skip
    assert sorted(sum(FOLDS, ())) == list(range(1, 16))


def test_what_is_missing_is_named(full_images, tmp_path):
    def message(folder):
        with pytest.raises(RefSAMError) as raised:
            scan_isaid(folder, 2048, SilentReporter())
        assert raised.value.code == "input"
        return str(raised.value)

    assert "holds no NAME_instance_color_RGB.png" in message(tmp_path / "elsewhere")
    mask = full_images / "val" / "images" / "P0003_instance_color_RGB.png"
    with Image.open(mask) as opened:
        opened.putpixel((3, 2), (1, 2, 3))
        opened.save(mask)
    assert "P0003_instance_color_RGB.png' holds the value [1, 2, 3]" in message(full_images)
    (full_images / "val" / "images" / "P0003.png").unlink()
    assert "has no image 'P0003.png'" in message(full_images)


def test_images_without_masks_are_named(patches):
    before = scan_isaid(patches, 2048, SilentReporter())
    assert before.unlabelled == ()
    path = patches / "val" / "images" / "P0099_0_256_0_256.png"
    Image.new("RGB", (256, 256)).save(path)
    dataset = scan_isaid(patches, 2048, SilentReporter())
    assert dataset.unlabelled == (path,) and dataset.samples == before.samples
