import json

import numpy as np
import pytest

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.evaluation import protocol, run_protocol
from refsam_qgis.engine.evaluation.episodes import draw_episodes
from refsam_qgis.engine.evaluation.search import read_shots, search_all
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.image_folder import scan_folder
from refsam_qgis.engine.job import ModelOptions, ProtocolJob
from refsam_qgis.engine.models.segmenter import FOREGROUND

from .conftest import ColourSegmenter


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    monkeypatch.setattr(protocol, "describe_model", lambda options: {"method": options.method})


def test_the_record_holds_what_a_perfect_and_a_poor_method_score(folder, tmp_path):
    class Blind(ColourSegmenter):
        def segment(self, encoding, reference):
            return super().segment(encoding, reference) * 0 + 1

    def load(options):
        return ColourSegmenter() if options.method == "virefsam" else Blind()

    report = tmp_path / "record.json"
    job = ProtocolJob(str(folder), str(report), ("virefsam", "training_free", "random_forest"), episodes=12, seed=2)
    record = run_protocol(job, SilentReporter(), load)
    assert json.loads(report.read_text(encoding="utf-8")) == record
    assert record["methods"]["virefsam"]["miou"] == record["methods"]["virefsam"]["fb_iou"] == 1
    assert record["methods"]["random_forest"]["miou"] > 0.8
    assert sum(record["episodes_per_class"].values()) == 12
    assert record["models"]["training_free"] == {"method": "training_free"} and len(record["models"]) == 2
    episodes = draw_episodes(scan_folder(folder), 1, 12, seed=2)
    for class_id, name in ((1, "pool"), (2, "roof")):
        truth = [np.asarray(_label(folder, e)).mean() for e in episodes if e.class_id == class_id]
        assert record["methods"]["training_free"]["class_iou"][name] == pytest.approx(np.mean(truth), abs=1e-4)


def _label(folder, episode):
    scanned = scan_folder(folder)
    return scanned.read_label(scanned.samples[episode.query], episode.class_id) == FOREGROUND


def test_each_image_is_encoded_once(folder):
    scanned, segmenter = scan_folder(folder), ColourSegmenter()
    episodes = draw_episodes(scanned, 1, 20, seed=0)
    found = list(search_all(segmenter, scanned, episodes, "mask"))
    assert segmenter.encoded == 4
    assert sorted(map(hash, episodes)) == sorted(hash(episode) for episode, _ in found)


def test_scribbles_stand_in_for_masks(folder):
    scanned = scan_folder(folder)
    episode = draw_episodes(scanned, 2, 1, seed=0)[0]
    full, strokes = (read_shots(scanned, episode, support).masks == FOREGROUND for support in ("mask", "scribble"))
    assert 0 < strokes.sum() < full.sum() and not (strokes & ~full).any()


def test_progress_rises_to_one_over_all_methods(folder):
    class Listener(SilentReporter):
        def __init__(self):
            self.fractions = []

        def progress(self, fraction, stage, remaining_seconds=None):
            self.fractions.append(fraction)
            assert remaining_seconds >= 0

    listener = Listener()
    run_protocol(ProtocolJob(str(folder), episodes=5), listener, lambda options: ColourSegmenter())
    assert listener.fractions == pytest.approx(np.arange(1, 11) / 10)


def test_cancelling_leaves_no_report(folder, tmp_path):
    class Cancelled(SilentReporter):
        def is_cancelled(self):
            return True

    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(JobCancelled):
        job = ProtocolJob(str(folder), str(out / "record.json"), episodes=5)
        run_protocol(job, Cancelled(), lambda options: ColourSegmenter())
    assert not list(out.iterdir())


@pytest.mark.parametrize("methods", [("sorcery",), ()])
def test_unknown_methods_are_refused(folder, methods):
    with pytest.raises(RefSAMError, match="use one or more of virefsam, training_free, random_forest"):
        run_protocol(ProtocolJob(str(folder), methods=methods), SilentReporter(), lambda options: ColourSegmenter())


def test_each_method_is_loaded_by_its_own_name(folder):
    asked = []

    def load(options):
        asked.append(options)
        return ColourSegmenter()

    run_protocol(ProtocolJob(str(folder), model=ModelOptions(device="cpu"), episodes=1), SilentReporter(), load)
    assert asked == [ModelOptions(method="virefsam", device="cpu"), ModelOptions(method="training_free", device="cpu")]
