import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.image_folder import scan_folder
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
    (folder / "classes.json").write_text("[1]")
    assert "JSON object" in message(folder)
