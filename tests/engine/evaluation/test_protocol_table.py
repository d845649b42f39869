import json
import shutil
import sys

import numpy as np
import pytest
import torch

from benchmarks.accuracy import data_sets, dubai_mosaic, false_alarms, protocol_figures, protocol_table, reliability
from benchmarks.accuracy.cells import Cells
from benchmarks.accuracy.data_sets import DataSets, Fold, draw_fold, scene
from benchmarks.accuracy.options import RECORDS
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.image_folder import scan_folder

from .conftest import ColourSegmenter

CLASSES = {0: "background", 1: "pool", 2: "roof"}


class Half(ColourSegmenter):
    """Marks the left half of everything."""

    def segment(self, encoding, reference):
        logits = torch.full(encoding.shape[:1] + encoding.shape[2:], -2.0)
        logits[..., : logits.shape[-1] // 2] = 2.0
        return logits


@pytest.fixture
def data(write_folder, tmp_path, monkeypatch):
    """A data folder with two sets of two scenes, of which one was trained on."""
    masks = {}
    for place in ("east", "west"):
        for i in range(3):
            mask = np.zeros((40, 40), np.uint8)
            mask[5:25, 5:25] = 1
            if i == 2:
                mask[28:38, 28:38] = 2
            masks[f"{place}_{i}"] = mask
    folder = write_folder(masks)
    root = tmp_path / "data"
    for name in ("train/dubai", "eval/pools"):
        shutil.copytree(folder, root / name)
    folders = {"dubai": "train/dubai", "pools": "eval/pools"}
    for module in (data_sets, protocol_table, protocol_figures):
        monkeypatch.setattr(module, "FOLDERS", folders)
    folds = {"dubai": (Fold("east", "pool"), Fold("west", "roof"))}
    for module in (data_sets, protocol_table, protocol_figures, false_alarms):
        monkeypatch.setattr(module, "FOLDS", folds)
    monkeypatch.setattr(protocol_figures, "REAL", ("dubai", "pools"))
    return root


@pytest.fixture
def built(monkeypatch):
    """Methods without weights, and the options of each that was built."""
    made = []

    def build(method, model, seed, load):
        made.append((method, model))
        return Half() if method == "random_forest" else ColourSegmenter()

    for module in (protocol_table, false_alarms):
        monkeypatch.setattr(module, "build_segmenter", build)
        monkeypatch.setattr(module, "describe_model", lambda options: {"checkpoint_sha256": options.checkpoint})
    return made


def _call(monkeypatch, module, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    module.main()


def test_a_fold_seeks_its_class_in_its_scene_by_any_other_image(data):
    folder = scan_folder(data / "train/dubai")
    episodes = draw_fold(folder, Fold("east", "pool"), 2, 7, seed=0)
    assert len(episodes) == 7 and {episode.class_id for episode in episodes} == {1}
    assert {scene(folder.samples[episode.query]) for episode in episodes} == {"east"}
    assert sorted(episode.query for episode in episodes[:6]) == [0, 0, 1, 1, 2, 2]
    assert all(episode.query not in episode.supports for episode in episodes)
    assert {scene(folder.samples[i]) for episode in episodes for i in episode.supports} == {"east", "west"}
    assert draw_fold(folder, Fold("east", "pool"), 2, 3, seed=0) == episodes[:3]
    with pytest.raises(RefSAMError, match="scene 'north'"):
        draw_fold(folder, Fold("north", "pool"), 1, 1, seed=0)


def test_each_fold_has_a_scene_and_a_class_of_its_own():
    assert (
        len({fold.scene for fold in data_sets.FOLDS["dubai"]}) == len({f.name for f in data_sets.FOLDS["dubai"]}) == 3
    )


def test_the_table_fills_cell_by_cell(data, built, tmp_path, monkeypatch, capsys):
    record = tmp_path / "record.json"
    common = ("--data", data, "--record", record, "--episodes", 4, "--shots", 1, "--supports", "mask")
    _call(monkeypatch, protocol_table, *common, "--methods", "virefsam")
    _call(monkeypatch, protocol_table, *common, "--methods", "virefsam", "random_forest")
    assert [method for method, _ in built] == ["virefsam"] * 3 + ["random_forest"] * 3
    cells = json.loads(record.read_text(encoding="utf-8"))
    assert len(cells) == 6
    by_method = {method: [c for c in cells if c["key"]["method"] == method] for method in ("virefsam", "random_forest")}
    assert all(cell["result"]["miou"] == 1 for cell in by_method["virefsam"])
    assert {cell["result"]["runs"][0]["seed"] for cell in cells} == {cells[0]["result"]["runs"][0]["seed"]}
    # Half the image is marked: 15 of 20 columns of the pool, none of the roof.
    folds = {cell["key"]["fold"]: cell for cell in by_method["random_forest"]}
    assert set(folds) == {None, "east_pool", "west_roof"}
    table = capsys.readouterr().out
    iou = 15 * 20 / (20 * 40 + 5 * 20)
    assert f"| dubai | 1 | mask | random_forest | {100 * iou / 2:.1f} |" in table
    assert "| dubai (trained on it) | 1 | mask | virefsam | 100.0 | 100.0 |" in table
    # Probabilities are sigmoid(±2) on halves; 300 of 800 pixels marked are pool, 100 of 800 beside it.
    p = 1 / (1 + np.exp(-2))
    pool = (abs(p - 300 / 800) + abs((1 - p) - 100 / 800)) / 2
    roof = (p + abs((1 - p) - 100 / 800)) / 2
    assert folds["east_pool"]["result"]["ece"] == pytest.approx(pool, abs=1e-4)
    assert folds["west_roof"]["result"]["ece"] == pytest.approx(roof, abs=1e-4)


def test_other_settings_are_measured_again_and_folds_have_their_own_weights(data, built, tmp_path, monkeypatch, capsys):
    record, weights = tmp_path / "record.json", tmp_path / "folds"
    common = ("--data", data, "--record", record, "--shots", 1, "--supports", "mask", "--datasets", "dubai")
    virefsam = (*common, "--methods", "virefsam", "static_prompts", "--fold-weights", weights)
    with pytest.raises(SystemExit, match="train without that scene"):
        _call(monkeypatch, protocol_table, *virefsam, "--episodes", 2)
    for fold in ("east_pool", "west_roof"):
        (weights / fold).mkdir(parents=True)
        for part in ("sam", "adapters"):
            (weights / fold / f"compact_{part}.safetensors").touch()
    _call(monkeypatch, protocol_table, *virefsam, "--episodes", 2)
    assert [model.checkpoint.split("/")[-2] for _, model in built] == ["east_pool", "west_roof"] * 2
    assert "trained on it)" not in capsys.readouterr().out
    _call(monkeypatch, protocol_table, *virefsam, "--episodes", 3)
    assert len(built) == 8 and {cell["settings"]["episodes"] for cell in Cells(record)} == {3}
    _call(monkeypatch, protocol_table, *virefsam, "--episodes", 3)
    assert len(built) == 8
    _call(monkeypatch, protocol_table, *virefsam, "--episodes", 3, "--redo")
    assert len(built) == 12


@pytest.mark.parametrize("module", [protocol_table, false_alarms])
def test_another_threshold_is_measured_again(module, data, built, tmp_path, monkeypatch, capsys):
    """A probability of 0.88 is marked from 0.5 and not from 0.9."""
    record = tmp_path / "record.json"
    monkeypatch.setattr(false_alarms, "SEARCHES", (false_alarms.Search("pools", "pools"),))
    common = ("--data", data, "--record", record, "--methods", "random_forest")
    if module is protocol_table:
        common += ("--episodes", 2, "--shots", 1, "--supports", "mask", "--datasets", "pools")
    marked = []
    for threshold in (0.5, 0.5, 0.9):
        monkeypatch.setattr(module, "least_probability", lambda method, threshold=threshold: threshold)
        _call(monkeypatch, module, *common)
        (cell,) = Cells(record)
        assert cell["settings"]["threshold"] == threshold
        marked.append(cell["result"]["miou" if module is protocol_table else "mean_share"])
    assert len(built) == 2 and marked[0] == marked[1] > marked[2] == 0


@pytest.mark.parametrize("name", ["protocol_table", "protocol_table_training_1", "false_alarms"])
def test_committed_cells_hold_the_threshold_at_which_they_were_measured(name):
    cells = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    assert cells
    for cell in cells:
        threshold = cell["settings"]["threshold"]
        assert 0 < threshold < 1 and cell["result"].get("threshold", threshold) == threshold


def test_two_processes_may_fill_one_record(tmp_path):
    first, second = Cells(tmp_path / "record.json"), Cells(tmp_path / "record.json")
    first.put({"method": "a"}, {"seed": 0}, {"miou": 0.1})
    second.put({"method": "b"}, {"seed": 0}, {"miou": 0.2})
    first.put({"method": "a"}, {"seed": 1}, {"miou": 0.3})
    again = Cells(tmp_path / "record.json")
    assert [cell["result"]["miou"] for cell in again] == [0.3, 0.2]
    assert again.has({"method": "a"}, {"seed": 1}) and not again.has({"method": "a"}, {"seed": 0})
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_half_a_data_set_has_no_row(data, built, tmp_path, monkeypatch, capsys):
    record = tmp_path / "record.json"
    common = ("--data", data, "--record", record, "--episodes", 2, "--shots", 1, "--methods", "virefsam")
    _call(monkeypatch, protocol_table, *common)
    cells = list(Cells(record))
    assert len(protocol_figures.rows(cells)) == 4
    assert len(protocol_figures.rows(cells[1:])) == 3


def test_the_summary_compares_with_the_forest(data, built, tmp_path, monkeypatch, capsys):
    record = tmp_path / "record.json"
    common = ("--data", data, "--record", record, "--episodes", 3, "--shots", 1, "--supports", "mask")
    _call(monkeypatch, protocol_table, *common, "--methods", "virefsam", "random_forest")
    rows = {(row.dataset, row.method): row.miou for row in protocol_figures.rows(Cells(record))}
    ratio = 1 / np.mean([rows["dubai", "random_forest"], rows["pools", "random_forest"]])
    assert f"| 1 | mask | virefsam | 100.0° | 100.0 | 100.0 | {ratio:.2f} |" in capsys.readouterr().out


def test_the_reliability_picture_is_drawn_from_the_record(data, built, tmp_path, monkeypatch, capsys):
    record, picture = tmp_path / "record.json", tmp_path / "picture.png"
    common = ("--record", record, "--methods", "virefsam", "random_forest")
    with pytest.raises(SystemExit, match="protocol_table first"):
        _call(monkeypatch, reliability, *common, "--picture", picture)
    _call(monkeypatch, protocol_table, "--data", data, *common, "--episodes", 2, "--shots", 1)
    capsys.readouterr()
    _call(monkeypatch, reliability, *common, "--picture", picture)
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000
    assert capsys.readouterr().out.count("\n") == 2 + 4


def test_false_alarms_are_counted_where_the_class_is_not(data, built, tmp_path, monkeypatch, capsys):
    record = tmp_path / "record.json"
    searches = (false_alarms.Search("pools", "pools"), false_alarms.Search("pools", "dubai"))
    monkeypatch.setattr(false_alarms, "SEARCHES", searches)
    for _ in range(2):
        arguments = ("--data", data, "--record", record, "--targets", 5, "--methods", "virefsam", "random_forest")
        _call(monkeypatch, false_alarms, *arguments)
    assert len(built) == 4
    out = capsys.readouterr().out
    assert "| pools → pools | virefsam | 0.0 | 100.0 | 5 |" in out
    assert "| pools → dubai (trained on it) | virefsam | 0.0 | 100.0 | 5 |" in out
    assert "| pools → dubai | random_forest | 50.0 | 0.0 | 5 |" in out
    assert all(cell["result"]["classes"] == {"pool": 0, "roof": 5} for cell in Cells(record))


def test_data_are_told_apart_by_their_bytes(data, tmp_path):
    first = DataSets(data, tmp_path).digest("pools")
    changed = tmp_path / "copy"
    shutil.copytree(data, changed)
    assert DataSets(changed, tmp_path).digest("pools") == first
    path = changed / "eval/pools/east_0_mask.png"
    path.write_bytes(path.read_bytes() + b"\0")
    data_sets.digest_folder.cache_clear()
    assert DataSets(changed, tmp_path).digest("pools") != first


@pytest.mark.parametrize(
    ("module", "flag", "value", "told"),
    [
        (protocol_table, "--episodes", "0", "0 is too few; give 1 or more"),
        (protocol_table, "--runs", "0", "0 is too few"),
        (protocol_table, "--seed", "-1", "-1 is no seed; give 0 to 4294967295"),
        (protocol_table, "--record", "/nowhere/record.json", "the folder '/nowhere' does not exist; make it first"),
        (false_alarms, "--targets", "0", "0 is too few"),
        (dubai_mosaic, "--record", "/nowhere/record.json", "the folder '/nowhere' does not exist"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is(module, flag, value, told, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        _call(monkeypatch, module, "--data", tmp_path, flag, value)
    assert ended.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize("module", [protocol_table, false_alarms, dubai_mosaic])
def test_a_data_folder_that_is_not_there_is_told_in_a_sentence(module, tmp_path, monkeypatch):
    only = ("--datasets", "epfl_roads") if module is protocol_table else ()
    record = tmp_path / "record.json"
    monkeypatch.setattr(false_alarms, "SEARCHES", false_alarms.SEARCHES[2:])
    with pytest.raises(SystemExit, match=r"^'.*nowhere.*' (is not there|cannot be read); "):
        _call(monkeypatch, module, "--data", tmp_path / "nowhere", "--record", record, *only)
