import json

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.evaluation.datasets.coco import FOLDS, scan_coco
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE


def rectangle(left, top, right, bottom):
    return [left, top, right, top, right, bottom, left, bottom]


@pytest.fixture
def coco(tmp_path):
    """Two images as COCO ships them: its ids have gaps, and its file has more fields than are needed."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2014").mkdir()
    categories = [{"id": i, "name": f"thing{i}", "supercategory": "all"} for i in range(1, 91) if i % 9 != 3]
    images = []
    for number in (42, 73):
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / "val2014" / name)
        images.append({"id": number, "file_name": name, "width": 30, "height": 20, "license": 3})
    crowd = {"size": [20, 30], "counts": [0, 100, 500]}  # the first five columns
    things = [
        (42, 1, [rectangle(10, 5, 20, 15), rectangle(25, 0, 30, 5)], 0),
        (42, 1, crowd, 1),
        (42, 90, [rectangle(0, 0, 4, 4)], 0),
        (73, 2, {"size": [20, 30], "counts": "T3]1W>"}, 0),
    ]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "segmentation": shape, "iscrowd": is_crowd, "area": 1.0}
        for i, (image, category, shape, is_crowd) in enumerate(things)
    ]
    write(tmp_path, {"info": {}, "images": images, "annotations": annotations, "categories": categories})
    return tmp_path


def write(folder, document):
    (folder / "annotations" / "instances_val2014.json").write_text(json.dumps(document), encoding="utf-8")


def one_category(folder):
    document = json.loads((folder / "annotations" / "instances_val2014.json").read_text(encoding="utf-8"))
    things = [thing for thing in document["annotations"] if thing["category_id"] == 1]
    write(folder, document | {"annotations": things, "categories": document["categories"][:1]})


def resize(folder):
    path = folder / "val2014" / "COCO_val2014_000000000073.jpg"
    with Image.open(path) as image:
        image.resize((15, 10)).save(path)


def test_things_are_drawn_by_class_and_crowds_are_not_counted(coco):
    dataset = scan_coco(coco, 1, SilentReporter())
    assert len(dataset.names) == 80 and dataset.names[1] == "thing1" and dataset.names[80] == "thing90"
    first, second = dataset.samples
    assert first.classes == (1, 80) and second.classes == (2,)
    expected = np.full((20, 30), BACKGROUND)
    expected[:, :5] = IGNORE
    expected[5:15, 10:20] = expected[:5, 25:] = FOREGROUND
    assert (dataset.read_label(first, 1) == expected).all()
    assert np.argwhere(dataset.read_label(second, 2) == FOREGROUND).tolist()[0] == [0, 5]
    assert not (dataset.read_label(first, 7) == FOREGROUND).any()
    assert dataset.read_image(second).shape == (20, 30, 3) and dataset.read_image(second)[0, 0, 0] in range(70, 77)


def test_a_thing_is_present_from_its_pixels_on(coco):
    assert scan_coco(coco, 16, SilentReporter()).samples[0].classes == (1, 80)
    assert scan_coco(coco, 17, SilentReporter()).samples[0].classes == (1,)


def test_every_fourth_class_is_in_a_fold():
    assert FOLDS[0][:3] == (1, 5, 9) and FOLDS[3][-1] == 80
    assert sorted(sum(FOLDS, ())) == list(range(1, 81))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "annotations" / "instances_val2014.json").unlink(), "annotations_trainval2014.zip"),
        (lambda folder: (folder / "val2014" / "COCO_val2014_000000000073.jpg").unlink(), "val2014.zip"),
        (lambda folder: (folder / "annotations" / "instances_val2014.json").write_text("{"), "not JSON"),
        (lambda folder: write(folder, {"images": [], "annotations": []}), "as COCO writes it"),
        (lambda folder: write(folder, {"images": [], "annotations": [], "categories": []}), "shows nothing in any"),
        (lambda folder: one_category(folder), "1 categories, not 80"),
        (lambda folder: resize(folder), r"73\.jpg' is 15x10, but COCO says 30x20"),
    ],
)
def test_what_is_missing_is_named(coco, spoil, words):
    spoil(coco)
    with pytest.raises(RefSAMError, match=words) as raised:
        scan_coco(coco, 1, SilentReporter())
    assert raised.value.code == "input"


def test_images_that_the_annotations_do_not_name_are_left_out(coco):
    assert scan_coco(coco, 1, SilentReporter()).unlabelled == ()
    path = coco / "val2014" / "COCO_val2014_000000000099.jpg"
    Image.new("RGB", (30, 20)).save(path)
    dataset = scan_coco(coco, 1, SilentReporter())
    assert dataset.unlabelled == (path,) and len(dataset.samples) == 2
