import csv
import gc
import hashlib
import json
import os
import shutil
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.evaluation import data_digest, protocol, run_protocol
from refsam_qgis.engine.evaluation.datasets.folder import BENCHMARK
from refsam_qgis.engine.evaluation.episodes import draw_episodes, draw_seeds
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.job import MAX_SEED, ModelOptions, ProtocolJob, from_dict
from refsam_qgis.engine.models.segmenter import FOREGROUND
from refsam_qgis.engine.models.weight_files import describe_model

from .conftest import ColourSegmenter


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    monkeypatch.setattr(protocol, "describe_model", lambda options: {"method": options.method})


class Everywhere(ColourSegmenter):
    def segment(self, encoding, reference):
        return super().segment(encoding, reference) * 0 + 1


def load(options):
    return ColourSegmenter() if options.method == "virefsam" else Everywhere()


def label(folder, episode):
    scanned = scan_folder(folder)
    return scanned.read_label(scanned.samples[episode.query], episode.class_id) == FOREGROUND


def test_the_record_holds_what_a_perfect_and_a_poor_method_score(folder, tmp_path):
    report = tmp_path / "record.json"
    methods = ("virefsam", "training_free", "colour_prototype")
    job = ProtocolJob(str(folder), methods=methods, episodes=12, runs=1, seed=2, report=str(report))
    record = run_protocol(job, SilentReporter(), load)
    assert json.loads(report.read_text(encoding="utf-8")) == json.loads(json.dumps(record))
    assert record["methods"]["virefsam"]["miou"] == record["methods"]["virefsam"]["fb_iou"] == 1
    assert record["methods"]["virefsam"]["miou_std"] is None
    assert record["methods"]["colour_prototype"]["miou"] > 0.8
    assert sum(record["episodes_per_class"].values()) == 12
    assert record["models"]["training_free"] == {"method": "training_free"} and len(record["models"]) == 2
    episodes = draw_episodes(scan_folder(folder), 1, 12, draw_seeds(2, 1)[0])
    for class_id, name in ((1, "pool"), (2, "roof")):
        truth = [label(folder, e).mean() for e in episodes if e.class_id == class_id]
        assert record["methods"]["training_free"]["class_iou"][name] == pytest.approx(np.mean(truth), abs=1e-4)


def test_figures_are_means_over_runs_of_means_over_folds(folder, monkeypatch):
    job = ProtocolJob(str(folder), methods=("training_free",), episodes=7, runs=3, seed=5)
    folds = replace(BENCHMARK, folds=((1,), (2,)))
    monkeypatch.setattr(protocol, "find_benchmark", lambda name: folds)
    record = run_protocol(job, SilentReporter(), load)
    found = record["methods"]["training_free"]
    assert [run["seed"] for run in found["runs"]] == draw_seeds(5, 3) and record["folds"] == [0, 1]
    scanned, by_run = scan_folder(folder), []
    for seed in draw_seeds(5, 3):
        # Everything is marked: foreground IoU is the share of foreground, background IoU 0.
        shares = [
            np.mean([label(folder, e).mean() for e in draw_episodes(scanned, 1, 7, seed, [class_id])])
            for class_id in (1, 2)
        ]
        by_run.append(np.mean(shares))
    assert len(set(by_run)) > 1
    assert found["miou"] == pytest.approx(np.mean(by_run), abs=1e-4)
    assert found["miou_std"] == pytest.approx(np.std(by_run, ddof=1), abs=1e-4)
    assert found["fb_iou"] == pytest.approx(np.mean(by_run) / 2, abs=1e-4)
    assert set(found["class_iou"]) == {"pool", "roof"}
    assert list(found["runs"][0]["folds"][1]["class_iou"]) == ["roof"]

    one = run_protocol(replace(job, folds=(1,)), SilentReporter(), load)
    assert set(one["episodes_per_class"]) == {"roof"} and one["folds"] == [1]
    with pytest.raises(RefSAMError, match="has no fold 2; its folds are 0 to 1"):
        run_protocol(replace(job, folds=(0, 2)), SilentReporter(), load)


def test_methods_are_cut_where_they_ship_to_cut(folder, monkeypatch):
    """What is everywhere a logit of 1 is found by a method that cuts below, and not by one that cuts above."""
    monkeypatch.setattr(protocol, "least_probability", lambda method: 0.6 if method == "training_free" else 0.9)
    job = ProtocolJob(str(folder), methods=("training_free", "virefsam"), episodes=4, runs=1)
    methods = run_protocol(job, SilentReporter(), lambda options: Everywhere())["methods"]
    assert methods["virefsam"]["miou"] == 0 < methods["training_free"]["miou"]


def test_the_record_says_what_decided_and_can_be_run_again(folder):
    methods = ("fitted", "colour_prototype")
    job = ProtocolJob(str(folder), methods=methods, model=ModelOptions(device="cpu"), episodes=4, runs=1, folds=(0,))
    record = json.loads(json.dumps(run_protocol(job, SilentReporter(), load), allow_nan=False))
    assert from_dict(record["job"]) == job
    assert [record["methods"][name]["threshold"] for name in methods] == [0.3, 0.5]
    assert record["methods"]["fitted"]["precision"] in ("float32", "bfloat16")
    assert record["methods"]["colour_prototype"]["precision"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_folder_whose_name_is_no_utf_8_is_measured_and_recorded(folder, tmp_path):
    strange = folder.rename(folder.with_name(os.fsdecode(b"donn\xe9es")))
    (strange / "image0.png").rename(strange / os.fsdecode(b"\xe9.png"))
    (strange / "image0_mask.png").rename(strange / os.fsdecode(b"\xe9_mask.png"))
    report, picture = tmp_path / "record.json", tmp_path / "p.png"
    job = ProtocolJob(str(strange), methods=("virefsam",), episodes=12, report=str(report), picture=str(picture))
    run_protocol(job, SilentReporter(), load)
    assert from_dict(json.loads(report.read_text(encoding="utf-8"))["job"]) == job and picture.exists()


def test_the_record_says_which_data_it_is_of(folder, tmp_path, monkeypatch):
    def data(place):
        return run_protocol(ProtocolJob(str(place), methods=("virefsam",), episodes=1, runs=1), SilentReporter(), load)[
            "data"
        ]

    def expected(contents):
        sha256 = hashlib.sha256()
        for path in sorted(folder.iterdir()):
            sha256.update(path.name.encode() + b"\0" + str(path.stat().st_size).encode() + b"\0")
            sha256.update(path.read_bytes() if contents else b"")
        return sha256.hexdigest()

    whole = {"files": 9, "bytes": sum(path.stat().st_size for path in folder.iterdir()), "images_without_mask": 0}
    assert data(folder) == {**whole, "sha256": expected(True), "sha256_of": "names and contents"}
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "notes.txt").write_text("no part of the data")
    assert data(tmp_path / "copy") == data(folder)
    monkeypatch.setattr(data_digest, "READ_BYTES", whole["bytes"] - 1)
    assert data(folder) == {**whole, "sha256": expected(False), "sha256_of": "names and sizes"}


def test_images_without_a_mask_are_told_and_counted(folder):
    class Listener(SilentReporter):
        text = ""

        def log(self, message):
            self.text += message + "\n"

    def measure():
        listener = Listener()
        job = ProtocolJob(str(folder), methods=("virefsam",), episodes=1, runs=1)
        return run_protocol(job, listener, load), listener.text

    assert "left out" not in measure()[1]
    shutil.copy(folder / "image2.png", folder / "later.PNG")
    record, told = measure()
    assert f"1 image has no mask and is left out: '{folder / 'later.PNG'}'; add" in told
    assert record["data"]["images_without_mask"] == 1 and record["samples"] == 4
    (folder / "image3_mask.png").rename(folder / "image3_labels.png")
    Image.open(folder / "image2.png").save(folder / "image2.jpg")  # taken in the place of image2.png
    record, told = measure()
    assert "4 images have no masks and are left out, the first of them" in told and "image2.png'" in told
    assert record["data"]["images_without_mask"] == 4 and record["samples"] == 3


def test_a_class_that_is_not_in_the_mean_is_named(folder):
    class Listener(SilentReporter):
        text = ""

        def log(self, message):
            self.text += message + "\n"

    def measure(**options):
        listener = Listener()
        job = ProtocolJob(str(folder), methods=("virefsam",), episodes=12, runs=2, **options)
        return run_protocol(job, listener, load)["classes_left_out"], listener.text

    left_out, told = measure()
    assert left_out == [] and "mean holds" not in told
    left_out, told = measure(shots=2)
    assert left_out == ["roof"] and "No mean holds roof: present with 64 pixels in fewer than 3 images" in told


def test_classes_of_one_name_are_refused_as_figures_are_told_by_name(folder):
    (folder / "classes.json").write_text(json.dumps({0: "background", 1: "pool", 2: "pool"}), encoding="utf-8")
    with pytest.raises(RefSAMError, match="calls several classes 'pool'; give each a name of its own"):
        run_protocol(ProtocolJob(str(folder)), SilentReporter(), load)


def test_masks_of_0_and_255_are_explained(folder):
    for path in folder.glob("*_mask.png"):
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, np.uint8(255), np.uint8(0))).save(path)
    with pytest.raises(
        RefSAMError, match=r"No mask .* shows 64 pixels of pool, roof; write the ids .* 255 is what nobody"
    ):
        run_protocol(ProtocolJob(str(folder), methods=("virefsam",)), SilentReporter(), load)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({0: "grass", 1: "pool", 2: "roof", 255: "Void"}, "Class 0, 'grass', is background and not sought"),
        ({0: "_background_", 1: "pool", 2: "roof", 255: "car"}, "Class 255, 'car', is what nobody labelled and not"),
        ({0: "Unlabelled", 1: "pool", 2: "roof"}, None),
        ({0: "background", 1: "pool", 2: "roof"}, None),
    ],
)
def test_classes_whose_ids_mean_something_else_are_told(folder, names, told):
    class Listener(SilentReporter):
        text = ""

        def log(self, message):
            self.text += message + "\n"

    (folder / "classes.json").write_text(json.dumps(names), encoding="utf-8")
    listener = Listener()
    run_protocol(ProtocolJob(str(folder), methods=("virefsam",), episodes=4, runs=1), listener, load)
    assert (told or "") in listener.text and ("not sought" in listener.text) == (told is not None)


def test_seeds_of_runs_come_from_the_master_seed():
    assert draw_seeds(3, 5)[:2] == draw_seeds(3, 2) and len(set(draw_seeds(3, 5))) == 5
    assert draw_seeds(3, 2) != draw_seeds(4, 2)


def test_the_largest_seed_serves_every_method(folder):
    methods = ("random_forest", "colour_prototype")
    job = ProtocolJob(str(folder), methods=methods, episodes=2, runs=1, seed=MAX_SEED, support="scribble")
    assert run_protocol(job, SilentReporter(), load)["seed"] == MAX_SEED
    with pytest.raises(RefSAMError, match="Seed"):
        replace(job, seed=MAX_SEED + 1)


def test_table_and_picture_are_written_and_the_table_is_told(folder, tmp_path):
    class Listener(SilentReporter):
        text = ""

        def log(self, message):
            self.text += message

    listener = Listener()
    job = ProtocolJob(
        str(folder), episodes=4, runs=2, picture=str(tmp_path / "p.png"), table=str(tmp_path / "t.csv"), support="box"
    )
    record = run_protocol(job, listener, load)
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert [row["method"] for row in rows] == ["fitted", "virefsam", "training_free"]
    assert float(rows[2]["mIoU %"]) == pytest.approx(100 * record["methods"]["training_free"]["miou"])
    lines = listener.text.splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[2].split()[:4] == ["virefsam", "1", "box", "100.00"]
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.height > 9 * 200


def test_published_data_sets_run_by_their_own_rules(tmp_path):
    for name in ("P1_0_256_0_256", "P2_0_256_0_256", "P3_0_256_0_256"):
        ids, image = np.zeros((256, 256), np.uint8), np.full((256, 256, 3), 90, np.uint8)
        for class_id, corner in ((1, 0), (6, 64), (11, 128)):
            ids[corner : corner + 64, :64] = class_id
            image[corner : corner + 64, :64] = (class_id * 16, 200, 0)
        for folder, pixels, suffix in (("images", image, ""), ("semantic_png", ids, "_instance_color_RGB")):
            (tmp_path / "val" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "val" / folder / f"{name}{suffix}.png")
    job = ProtocolJob(str(tmp_path), "isaid5i", methods=("virefsam",), episodes=3, runs=2, shots=2)
    record = run_protocol(job, SilentReporter(), load)
    assert record["folds"] == [0, 1, 2] and record["min_pixels"] == 2048 and record["crop"] == 256
    assert record["episodes_per_class"] == {"ship": 6, "ground_track_field": 6, "swimming_pool": 6}
    assert record["methods"]["virefsam"]["miou"] == 1
    with pytest.raises(RefSAMError, match=r"None of the classes .*ship.* is present in 3 images"):
        run_protocol(replace(job, min_pixels=4097), SilentReporter(), load)


def test_progress_rises_to_one_over_all_methods_and_runs(folder):
    class Listener(SilentReporter):
        def __init__(self):
            self.fractions = []

        def progress(self, fraction, stage, remaining_seconds=None):
            self.fractions.append(fraction)
            assert remaining_seconds >= 0

    listener = Listener()
    run_protocol(ProtocolJob(str(folder), episodes=5, runs=2), listener, load)
    assert listener.fractions == pytest.approx(np.arange(1, 31) / 30)


def test_each_image_is_encoded_once_in_all_runs(folder):
    segmenter = ColourSegmenter()
    job = ProtocolJob(str(folder), methods=("virefsam",), episodes=20, runs=3)
    run_protocol(job, SilentReporter(), lambda options: segmenter)
    assert segmenter.encoded == 4


def test_cancelling_leaves_no_output(folder, tmp_path):
    class Cancelled(SilentReporter):
        def is_cancelled(self):
            return True

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(JobCancelled):
        job = ProtocolJob(str(folder), episodes=5, report=str(out / "record.json"), picture=str(out / "p.png"))
        run_protocol(job, Cancelled(), load)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("output", "name"), [("report", "classes.json"), ("picture", "image1.png"), ("picture", "image2_mask.png")]
)
def test_no_output_replaces_a_file_of_the_data_set(folder, tmp_path, output, name):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "link").symlink_to(folder)
    job = ProtocolJob(str(folder), methods=("virefsam",), episodes=1, runs=1)
    for place in (folder, tmp_path / "link"):
        with pytest.raises(RefSAMError, match=f"{name}' is also an input"):
            run_protocol(replace(job, **{output: str(place / name)}), SilentReporter(), load)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_earlier_record_beside_the_data_is_replaced(folder):
    job = ProtocolJob(str(folder), methods=("virefsam",), episodes=1, runs=1, report=str(folder / "record.json"))
    for seed in (1, 2):
        assert run_protocol(replace(job, seed=seed), SilentReporter(), load)["seed"] == seed


def test_each_method_is_loaded_by_its_own_name(folder):
    asked = []

    def listen(options):
        asked.append(options)
        return ColourSegmenter()

    job = ProtocolJob(str(folder), model=ModelOptions(device="cpu"), episodes=1, runs=1)
    run_protocol(job, SilentReporter(), listen)
    methods = ("virefsam", "training_free", "fitted", "virefsam", "training_free")  # those that come later are tried
    assert asked == [ModelOptions(method=method, device="cpu") for method in methods]


def test_a_method_is_let_go_of_before_the_next_is_built(folder):
    """Two of the large networks, with their encodings, may not fit into memory."""
    built = []

    def listen(options):
        gc.collect()
        assert not any(reference() for reference in built)
        segmenter = ColourSegmenter()
        built.append(weakref.ref(segmenter))
        return segmenter

    run_protocol(ProtocolJob(str(folder), episodes=2, runs=2), SilentReporter(), listen)
    assert len(built) == 5


def test_the_record_describes_the_weights_that_were_loaded(folder, tmp_path, monkeypatch):
    """A file that is replaced or gone when the episodes are done neither ends up in the record nor costs it."""
    monkeypatch.setattr(protocol, "describe_model", describe_model)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")

    class Listener(SilentReporter):
        def progress(self, fraction, stage, remaining_seconds=None):
            weights.unlink(missing_ok=True)

    model = ModelOptions("vit_b", str(weights))
    job = ProtocolJob(str(folder), methods=("training_free",), model=model, episodes=2, runs=1)
    record = run_protocol(job, Listener(), load)
    assert record["models"]["training_free"]["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_a_damaged_image_is_told_before_the_first_episode(folder):
    class Listener(SilentReporter):
        def progress(self, fraction, stage, remaining_seconds=None):
            raise AssertionError("an episode ran")

    path = folder / "image3.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RefSAMError, match=r"image3\.png' cannot be read as an image; replace or remove it"):
        run_protocol(ProtocolJob(str(folder), methods=("virefsam",), episodes=9, runs=1), Listener(), load)


def test_what_a_later_method_lacks_is_told_before_the_first_episode(folder, tmp_path):
    class Listener(SilentReporter):
        def progress(self, fraction, stage, remaining_seconds=None):
            raise AssertionError("an episode ran")

    def without_adapters(options):
        if options.method == "virefsam":
            raise RefSAMError("checkpoint", "Method 'virefsam' needs adapters.")
        return load(options)

    report = tmp_path / "record.json"
    job = ProtocolJob(str(folder), methods=("fitted", "virefsam"), episodes=1, runs=1, report=str(report))
    with pytest.raises(RefSAMError, match="'virefsam' needs adapters"):
        run_protocol(job, Listener(), without_adapters)
    assert not report.exists()
