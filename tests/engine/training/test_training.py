"""Training on a few small windows: what it changes, what it repeats, what it takes up again."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.events import SilentReporter
from refsam_qgis.engine.job import ModelOptions, TrainJob
from refsam_qgis.engine.models.checkpoints import adapters_metadata, load_embedding, load_segmenter, save_weights
from refsam_qgis.engine.models.config import ViRefSAMConfig
from refsam_qgis.engine.models.precision import choose_precision
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.segmenter import BACKGROUND, FOREGROUND, IGNORE
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.runner import load_from_disk
from refsam_qgis.engine.training import episodes
from refsam_qgis.engine.training.episodes import EpisodeConfig, Episodes
from refsam_qgis.engine.training.pretrain import PretrainConfig, PromptViews, pretrain
from refsam_qgis.engine.training.scenes import CLASSES
from refsam_qgis.engine.training.sources import TEST_CLASSES, generated_classes
from refsam_qgis.engine.training.state import Schedule, TrainingState
from refsam_qgis.engine.training.train import run_train
from refsam_qgis.engine.training.trainer import TrainerConfig, train_adapters
from refsam_qgis.engine.training.views import LabelledImage

DRAWS = EpisodeConfig(steps=2, batch=2, window=256, shots=(1,), seed=3)


def digest(module):
    sha = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()


def fresh_model():
    torch.manual_seed(0)
    return ViRefSAM(build_sam("compact"))


def train(model, path, draws=DRAWS, on_step=lambda step, loss: None):
    train_adapters(model, Episodes(draws, ()), draws, TrainerConfig(warmup=1), TrainingState(path), on_step, workers=0)


def test_sam_is_frozen_while_adapters_learn(tmp_path):
    model = fresh_model()
    sam, vcp, dta = digest(model.sam), digest(model.vcp), digest(model.dta)
    train(model, tmp_path / "state.pt")
    assert digest(model.sam) == sam
    assert digest(model.vcp) != vcp
    assert digest(model.dta) != dta


def test_training_repeats_and_resumes_to_the_same_weights(tmp_path):
    whole, again, resumed = fresh_model(), fresh_model(), fresh_model()
    train(whole, tmp_path / "whole.pt")
    train(again, tmp_path / "again.pt")
    assert digest(whole) == digest(again)

    def stop_after_one(step, loss):
        raise JobCancelled

    with pytest.raises(JobCancelled):
        train(resumed, tmp_path / "stopped.pt", on_step=stop_after_one)
    later = fresh_model()
    train(later, tmp_path / "stopped.pt")
    assert digest(later) == digest(whole)


def test_state_of_other_settings_is_refused(tmp_path):
    train(fresh_model(), tmp_path / "state.pt", EpisodeConfig(steps=1, batch=1, window=256))
    with pytest.raises(RefSAMError, match="other settings"):
        train(fresh_model(), tmp_path / "state.pt", EpisodeConfig(steps=2, batch=1, window=256))


def begin(path):
    state, model = TrainingState(path), torch.nn.Linear(2, 1)
    state.begin(list(model.parameters()), model, 0.0, {"steps": 1})
    return state


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "parts missing", "no dictionary"])
def test_a_damaged_or_foreign_state_is_named_and_stays(tmp_path, damage):
    path = tmp_path / "a.state"
    begin(path).save()
    whole = path.read_bytes()
    if damage == "parts missing":
        torch.save({"settings": {"steps": 1}}, path)
    elif damage == "no dictionary":
        torch.save([1], path)
    else:
        path.write_bytes({"empty": b"", "cut off": whole[: len(whole) // 2], "text": b"my notes"}[damage])
    content = path.read_bytes()
    for meet in (begin, lambda path: TrainingState(path).discard()):
        with pytest.raises(
            RefSAMError, match=r"a\.state' is no state of a training, or a damaged one; delete it"
        ) as caught:
            meet(path)
        assert caught.value.code == "input" and path.read_bytes() == content


def test_a_state_is_discarded_and_saved_beside_files_of_other_programs(tmp_path):
    path, other = tmp_path / "a.state", tmp_path / "a.part"
    other.write_text("half of a download")
    begin(path).save()
    assert sorted(tmp_path.iterdir()) == [other, path] and other.read_text() == "half of a download"
    TrainingState(path).discard()
    TrainingState(path).discard()
    assert list(tmp_path.iterdir()) == [other]


def test_a_state_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, done = tmp_path / "a.state", []
    monkeypatch.setattr(
        os, "fsync", lambda number: done.append(("on the disk", path.exists(), os.fstat(number).st_size))
    )
    begin(path).save()
    assert done == [("on the disk", False, path.stat().st_size)]
    assert begin(path).step == 0


def test_a_full_disk_is_one_sentence_and_keeps_the_earlier_state(tmp_path):
    """A limit on the file size stands for the full disk."""
    path = tmp_path / "a.state"
    begin(path).save()
    before = path.read_bytes()
    script = f"""
import resource, sys
from pathlib import Path
import torch
from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.training.state import TrainingState
state, model = TrainingState(Path(r"{path}")), torch.nn.Linear(2, 1)
state.begin(list(model.parameters()), model, 0.0, {{"steps": 1}})
state.record["best_weights"] = torch.zeros(100_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    state.save()
except RefSAMError as error:
    sys.exit(0 if error.code == "disk" else 3)
sys.exit(4)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_pretraining_lowers_its_loss(tmp_path):
    torch.manual_seed(0)
    sam = build_sam("compact")
    config = PretrainConfig(steps=10, places=1, prompts=2, window=256, warmup=2, learning_rate=1e-3, seed=1)
    losses = []
    pretrain(sam, config, TrainingState(tmp_path / "s.pt"), (), lambda s, x: losses.append(x["mask"]), workers=0)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert not any(weight.requires_grad for weight in sam.parameters())


def test_batches_are_equal_for_equal_index():
    first, second = Episodes(DRAWS, ())[1], Episodes(DRAWS, ())[1]
    assert torch.equal(first["target"], second["target"])
    assert torch.equal(first["reference_masks"], second["reference_masks"])
    assert not torch.equal(first["target"], Episodes(DRAWS, ())[0]["target"])
    views = PromptViews(PretrainConfig(places=1, window=256), ())
    assert torch.equal(views[4]["images"], views[4]["images"])


def test_classes_kept_for_testing_are_never_asked_for():
    assert set(CLASSES) >= TEST_CLASSES
    assert not set(generated_classes()) & TEST_CLASSES
    drawn = Episodes(EpisodeConfig(steps=10, batch=3, window=128), ())
    assert not {name for i in range(10) for name in drawn[i]["classes"]} & TEST_CLASSES


def test_episode_masks_hold_the_class():
    batch = Episodes(DRAWS, ())[0]
    assert ((batch["reference_masks"] == FOREGROUND).flatten(2).sum(-1) > 0).all()
    assert batch["references"].shape == (2, 1, 3, 256, 256)


class HalfLabelled:
    """A place whose left half nobody labelled; of the right half, a share is of a class."""

    def __init__(self, share, name="roof", other=0):
        self._share, self._name, self._other = share, name, other

    def class_names(self):
        return (self._name,)

    def class_id(self, name):
        return 7

    def draw(self, rng, side, focus):
        classes = np.full((side, side), 99, np.uint8)
        classes[:, side // 2 :] = self._other
        classes[: round(self._share * side), side // 2 :] = 7
        image = np.repeat(classes[..., None], 3, axis=2)
        return LabelledImage(image, classes, (classes == 7).astype(np.uint16), 99, self._name)


REAL = EpisodeConfig(steps=1, batch=2, window=64, shots=(1,), real_share=1.0, partial_share=0, scribble_share=0)


def test_what_nobody_labelled_is_neither_class_nor_background():
    batch = Episodes(REAL, [HalfLabelled(0.5)])[0]
    masks, counted = batch["reference_masks"], batch["counted"]
    shares = [float((masks == value).float().mean()) for value in (FOREGROUND, BACKGROUND, IGNORE)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.02)
    assert float(counted.float().mean()) == pytest.approx(0.5, abs=0.02)
    assert not (batch["mask"] & ~counted).any() and float(batch["mask"].float().mean()) == pytest.approx(0.25, abs=0.02)


def test_a_class_of_which_too_little_shows_is_named(monkeypatch):
    monkeypatch.setattr(episodes, "MOST_DRAWS", 3)
    with pytest.raises(RefSAMError, match="'chimney' are too small or too hidden to learn from"):
        Episodes(REAL, [HalfLabelled(0.0, "chimney")])[0]


def test_references_show_the_class_and_with_support_another_place_and_classes_take_turns():
    roofs, pool, spare = [HalfLabelled(0.5), HalfLabelled(0.5)], HalfLabelled(0.5, "pool"), HalfLabelled(0.5, "pool")
    rng = np.random.default_rng(0)
    alone = Episodes(REAL, [*roofs, pool])
    for index in range(30):
        target, reference, wanted = alone.places(rng, index, 0)
        assert wanted in target.class_names() and wanted in reference.class_names()
    supported = Episodes(REAL, [*roofs, pool], support=[spare])
    found = [supported.places(rng, index, slot) for index in range(10) for slot in range(2)]
    assert [wanted for _, _, wanted in found] == ["pool", "roof"] * 10
    for target, reference, wanted in found:
        assert reference is spare if wanted == "pool" else reference in roofs and reference is not target


def test_draws_of_training_development_and_calibration_differ():
    assert not torch.equal(Episodes(DRAWS, ())[0]["target"], Episodes(DRAWS, (), stream=5)[0]["target"])


def test_annotations_have_their_shares(monkeypatch):
    said = []
    monkeypatch.setattr(episodes, "partial", lambda label, *rest: said.append("partial") or label)
    monkeypatch.setattr(episodes, "scribble", lambda label, *rest: said.append("scribble") or label)
    config = replace(REAL, steps=1, batch=300, window=16, partial_share=0.3, scribble_share=0.2)
    assert len(Episodes(config, [HalfLabelled(0.5)])[0]["classes"]) == 300
    assert said.count("partial") / 300 == pytest.approx(0.3, abs=0.08)
    assert said.count("scribble") / 300 == pytest.approx(0.2, abs=0.08)


def test_schedule():
    schedule = Schedule(peak=1.0, warmup=4, steps=12)
    assert [schedule.rate(step) for step in (0, 3)] == [0.25, 1.0]
    assert schedule.rate(8) == pytest.approx(0.5)
    assert schedule.rate(12) == pytest.approx(0.0)


def test_train_job_writes_adapters_that_load(tmp_path, sam_file):
    options = ModelOptions(checkpoint=str(sam_file), device="cpu")
    output = tmp_path / "adapters.safetensors"
    job = TrainJob(str(output), model=options, steps=1, batch=1, validation=0.0)
    result = run_train(job, SilentReporter(), load_from_disk)
    assert result["steps"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapters.json", "adapters.safetensors"]
    load_segmenter(ModelOptions(checkpoint=str(sam_file), adapters=str(output), device="cpu"))


def test_adapters_of_any_sam_get_the_bundled_embedding_as_it_is(tmp_path, sam_file, monkeypatch):
    """It looks at pixels, not at SAM; training leaves it alone."""
    bundled, sam = tmp_path / "bundled.safetensors", build_sam("compact")
    lender = ViRefSAM(sam, ViRefSAMConfig(embedding=12))
    save_weights(lender.trainable_state(), bundled, adapters_metadata(lender.config))
    monkeypatch.setattr("refsam_qgis.engine.training.train.COMPACT_ADAPTERS", bundled)
    start = tmp_path / "start.safetensors"
    without = ViRefSAM(sam)
    save_weights(without.trainable_state(), start, adapters_metadata(without.config))
    output = tmp_path / "adapters.safetensors"
    options = ModelOptions(checkpoint=str(sam_file), adapters=str(start), device="cpu")
    run_train(TrainJob(str(output), model=options, steps=1, batch=1, validation=0.0), SilentReporter(), load_from_disk)
    trained, lent = load_embedding(output), load_embedding(bundled)
    assert all(torch.equal(value, lent.state_dict()[name]) for name, value in trained.state_dict().items())
    assert load_embedding(start) is None
    options = ModelOptions(checkpoint=str(sam_file), adapters=str(output), device="cpu")
    assert load_segmenter(options).model.embedding.stem.weight.dtype == choose_precision(torch.device("cpu"))


def test_train_job_into_a_missing_folder(tmp_path, sam_file):
    job = TrainJob(str(tmp_path / "none" / "a.safetensors"), model=ModelOptions(checkpoint=str(sam_file)))
    with pytest.raises(RefSAMError, match="does not exist"):
        run_train(job, SilentReporter(), load_from_disk)


@pytest.fixture(scope="module")
def sam_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam") / "compact.pth"
    torch.save(build_sam("compact").state_dict(), path)
    return path
