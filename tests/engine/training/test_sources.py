import json

import numpy as np
from PIL import Image

from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.sources import read_places


def write_scene(folder, name):
    ids = np.zeros((128, 128), np.uint8)
    ids[:64, :64], ids[64:, 64:] = 1, 2
    Image.fromarray(np.repeat(ids[..., None] * 90, 3, axis=2)).save(folder / f"{name}.png")
    Image.fromarray(ids).save(folder / f"{name}_mask.png")


def test_a_class_can_be_left_out(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"0": "background", "1": "roof", "2": "pool"}))
    for name in ("north_1", "south_1"):
        write_scene(tmp_path, name)
    whole = read_places(tmp_path)
    roofs = {name: place.only({"roof"}) for name, place in whole.items()}
    assert all(place.class_names() == ("roof", "pool") for place in whole.values())
    assert all(place.class_names() == ("roof",) for place in roofs.values())
    assert whole["north"].only({"tree"}).class_names() == ()

    config = EpisodeConfig(steps=12, batch=1, window=128, real_share=1.0, without_focus_share=0.0, seed=1)
    drawn = [Episodes(config, list(roofs.values()))[i] for i in range(12)]
    assert {name for batch in drawn for name in batch["classes"]} == {"roof"}
    # Pixels of the class that is left out are still there, as background.
    assert any(((batch["target"][:, 0] > 150) & ~batch["mask"] & batch["counted"]).any() for batch in drawn)
