import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.datasets.loveda import FOLDS, scan_loveda
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


@pytest.fixture
def loveda(tmp_path):
    """One urban and one rural image of 1024² as LoveDA's Val.zip holds them."""
    for area, number, class_id in (("Urban", 3514, 2), ("Rural", 2522, 7)):
        ids = np.ones((1024, 1024), np.uint8)
        ids[:100, :100] = class_id
        ids[1000:] = 0
        for kind, pixels in (("images_png", np.full((1024, 1024, 3), number % 256, np.uint8)), ("masks_png", ids)):
            folder = tmp_path / "Val" / area / kind
            folder.mkdir(parents=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_an_image_has_four_crops_and_no_data_is_not_counted(loveda):
    dataset = scan_loveda(loveda, 2048, SilentReporter())
    assert [sample.classes for sample in dataset.samples] == [(2,), (), (), (), (7,), (), (), ()]
    assert {(s.box[2] - s.box[0], s.box[3] - s.box[1]) for s in dataset.samples} == {(512, 512)}
    assert len({sample.source for sample in dataset.samples}) == 8
    label = dataset.read_label(dataset.samples[0], 2)
    assert (label[:100, :100] == FOREGROUND).all() and (label == BACKGROUND).sum() == 512 * 512 - 10_000
    bottom = dataset.read_label(dataset.samples[6], 7)
    assert (bottom[:488] == BACKGROUND).all() and (bottom[488:] == IGNORE).all()
    assert (dataset.read_image(dataset.samples[4]) == 2522 % 256).all()


def test_the_folds_hold_two_of_six_classes_each(loveda):
    names = scan_loveda(loveda, 2048, SilentReporter()).names
    assert [[names[i] for i in fold] for fold in FOLDS] == [
        ["building", "road"],
        ["water", "barren"],
        ["forest", "agriculture"],
    ]


def test_images_without_masks_are_named(loveda):
    assert scan_loveda(loveda, 2048, SilentReporter()).unlabelled == ()
    path = loveda / "Val" / "Rural" / "images_png" / "2523.png"
    Image.new("RGB", (1024, 1024)).save(path)
    dataset = scan_loveda(loveda, 2048, SilentReporter())
    assert dataset.unlabelled == (path,) and len(dataset.samples) == 8


def test_what_systems_leave_beside_files_is_passed_over(loveda):
    for kind in ("images_png", "masks_png"):
        for name in ("._3514.png", "Thumbs.db"):
            (loveda / "Val" / "Urban" / kind / name).write_bytes(b"\0\5\x16\7")
    assert len(scan_loveda(loveda, 2048, SilentReporter()).samples) == 8


@pytest.mark.parametrize(
    ("missing", "words"), [("images_png", "has no image .*2522.png"), ("masks_png", "holds no masks.*Val.zip")]
)
def test_what_is_missing_is_named(loveda, missing, words):
    (loveda / "Val" / "Rural" / missing / "2522.png").unlink()
    with pytest.raises(RefSAMError, match=words):
        scan_loveda(loveda, 2048, SilentReporter())


def test_a_mask_of_other_values_is_refused(loveda):
    Image.fromarray(np.full((1024, 1024), 8, np.uint8)).save(loveda / "Val" / "Urban" / "masks_png" / "3514.png")
    with pytest.raises(RefSAMError, match=r"3514\.png' is not a single band of LoveDA's values 0 to 7"):
        scan_loveda(loveda, 2048, SilentReporter())
