import json

import numpy as np
from PIL import Image

from benchmarks.accuracy.generated import SOUGHT, write_scenes
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.training.sources import TEST_CLASSES, generated_classes


def test_only_unseen_classes_are_sought_and_equal_calls_give_equal_files(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        write_scenes(folder, places=2, images=2, side=96)
    names = sorted(path.name for path in first.iterdir())
    assert names == ["classes.json"] + [
        f"place0{place}_{number}{end}" for place in (0, 1) for number in (0, 1) for end in (".png", "_mask.png")
    ]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
    scanned = scan_folder(first)
    assert set(scanned.names.values()) == TEST_CLASSES and not TEST_CLASSES & set(generated_classes())
    assert json.loads((first / "classes.json").read_text())["0"] == "background"
    # The classes take turns, and every image shows some of its own.
    for i, sample in enumerate(scanned.samples):
        mask = np.asarray(Image.open(sample.mask))
        assert mask.shape == (96, 96) and mask.max() <= len(SOUGHT)
        assert (mask == 1 + (i // 2 + i % 2) % len(SOUGHT)).any()
