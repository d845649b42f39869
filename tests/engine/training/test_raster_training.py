"""The `train` job on the user's own raster, with views small enough for a test."""

import json
import tempfile
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import shapely
import torch
from PIL import Image
from safetensors.torch import load_file

from refsam_qgis.engine.errors import JobCancelled, RefSAMError
from refsam_qgis.engine.job import ModelOptions, TrainJob
from refsam_qgis.engine.models.checkpoints import adapters_metadata, load_segmenter, save_weights
from refsam_qgis.engine.models.fitted import FittedSegmenter
from refsam_qgis.engine.models.sam import build_sam
from refsam_qgis.engine.models.virefsam import ViRefSAM
from refsam_qgis.engine.training import train
from refsam_qgis.engine.training.calibrate import calibration_episodes
from refsam_qgis.engine.training.train import run_train
from tests.engine.stand_ins import BLUE, HALF_METRE, RED, Recorder, painted

USUAL_WINDOW = train.CALIBRATION_WINDOW
BOXES = [(left, top, left + 24, top + 24) for top in range(40, 400, 60) for left in range(40, 400, 60)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A random SAM and adapters for it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    sam = build_sam("compact")
    torch.save(sam.state_dict(), folder / "sam.pth")
    model = ViRefSAM(sam)
    save_weights(model.trainable_state(), folder / "start.safetensors", adapters_metadata(model.config))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sizes = {"CPU_WINDOW": 64, "EPISODES_PER_CLASS": 1, "FEWEST_EPISODES": 2}
    sizes |= {"LEAST_STEPS_BETWEEN": 1, "CALIBRATION": 2, "CALIBRATION_WINDOW": 64}
    for name, value in sizes.items():
        monkeypatch.setattr(train, name, value)


@pytest.fixture
def make_job(write_raster, write_vector, tmp_path, weights):
    patches = [
        (slice(top, bottom), slice(left, right), RED if i % 2 else BLUE)
        for i, (left, top, right, bottom) in enumerate(BOXES)
    ]
    raster = write_raster(painted(480, 480, patches), "town.tif")
    shapes = [shapely.box(*(HALF_METRE * box[:2]), *(HALF_METRE * box[2:])) for box in BOXES]
    labels = write_vector(shapes, "labels.gpkg", kind=["roof" if i % 2 else "pool" for i in range(len(BOXES))])

    def make(name="adapters", **fields):
        (tmp_path / name).mkdir(exist_ok=True)
        fields = {"rasters": (raster,), "labels": labels, "class_field": "kind", "generated": False, **fields}
        start = weights / "start.safetensors"
        model = ModelOptions(checkpoint=str(weights / "sam.pth"), adapters=str(start), device="cpu")
        return TrainJob(str(tmp_path / name / "a.safetensors"), model=model, batch=1, **fields)

    return make


def run(job, recorder=None):
    return run_train(job, recorder or Recorder(), workers=0)


def files(job):
    folder = Path(job.output).parent
    return sorted(path.name for path in folder.iterdir())


def same_weights(path, state):
    written = load_file(path)
    # The blend is calibrated after training, whatever step was the best.
    return written.keys() == state.keys() and all(
        torch.equal(written[name], value.to(torch.float16))
        for name, value in state.items()
        if not name.startswith("blend.")
    )


def test_adapters_card_and_curve(make_job, tmp_path, weights):
    job = make_job(steps=2, curve=str(tmp_path / "curve.png"))
    recorder = Recorder()
    result = run(job, recorder)
    assert files(job) == ["a.json", "a.safetensors"]
    assert load_segmenter(ModelOptions(checkpoint=job.model.checkpoint, adapters=job.output, device="cpu"))
    with open(result["card"], encoding="utf-8") as stream:
        card = json.load(stream)
    assert card["data"]["classes"] == ["pool", "roof"]
    assert card["data"]["started_from"]["adapters"] == "start.safetensors"
    assert card["model"]["checkpoint"] == "sam.pth" and len(card["model"]["checkpoint_sha256"]) == 64
    assert card["job"]["seed"] == 0 and card["versions"]["torch"] == version("torch")
    assert [look["step"] for look in card["validation"]] == [0, 1, 2]
    scenes = card["result"]["scenes"]
    assert len(scenes["training"]) == 3 and len(scenes["validation"]) == 1
    assert not set(scenes["training"]) & set(scenes["validation"])
    assert set(result["classes"]) == {"pool", "roof"}
    assert Image.open(job.curve).size == (960, 540)
    stages = [stage for _, stage, _ in recorder.events]
    assert any(stage.startswith("Training, loss") and "mIoU" in stage for stage in stages)
    fractions = [fraction for fraction, _, _ in recorder.events]
    assert fractions == sorted(fractions) and fractions[-1] == 1


@pytest.mark.parametrize(("share", "kept_out"), [(0.25, True), (0.0, False)])
def test_probabilities_are_calibrated_on_scenes_kept_out_as_large_as_a_tile(make_job, monkeypatch, share, kept_out):
    asked = []

    def note(places, *sizes, **others):
        asked.append((places, others["support"]))
        return calibration_episodes(places, *sizes, **others)

    monkeypatch.setattr(train, "calibration_episodes", note)
    monkeypatch.setattr(train, "calibrate", lambda model, episodes, check: asked.append(episodes[0]["target"].shape))
    monkeypatch.setattr(train, "CALIBRATION_WINDOW", USUAL_WINDOW)
    result = run(make_job(steps=1, validation=share))
    (places, support), shape = asked
    names = {scene.name for scene in places}
    assert names == set(result["scenes"]["validation" if kept_out else "training"])
    assert {scene.name for scene in support} == {*result["scenes"]["training"], *result["scenes"]["validation"]}
    assert shape == (1, 3, 1024, 1024)


def scripted(monkeypatch, scores):
    """Let validation say these scores; keeps the weights at each look."""
    seen = []

    def say(model, episodes, check, fitted):
        assert fitted  # validated by the method that 'auto' uses
        check()
        seen.append({name: value.clone() for name, value in model.trainable_state().items()})
        return {"roof": (scores[len(seen) - 1], 0.0)}

    monkeypatch.setattr(train, "class_ious", say)
    return seen


def test_the_best_weights_are_written_and_patience_ends_training(make_job, monkeypatch):
    seen = scripted(monkeypatch, [0.1, 0.3, 0.5, 0.2, 0.5, 0.4, 0.9])
    job = make_job(steps=12, patience=3)
    recorder = Recorder()
    result = run(job, recorder)
    assert (result["best_step"], result["best_miou"], result["start_miou"]) == (2, 0.5, 0.1)
    assert (result["steps"], result["stopped_early"]) == (5, True)
    assert same_weights(job.output, seen[2]) and not same_weights(job.output, seen[5])
    assert any("since step 2" in message for message in recorder.messages)


def test_training_that_helps_nothing_leaves_the_start(make_job, monkeypatch, weights):
    scripted(monkeypatch, [0.5, 0.1, 0.2])
    job = make_job(steps=2, patience=0)
    recorder = Recorder()
    assert run(job, recorder)["best_step"] == 0
    written, start = load_file(job.output), load_file(weights / "start.safetensors")
    assert all(torch.equal(written[name], start[name]) for name in start if not name.startswith("blend."))
    assert any("before training" in message for message in recorder.messages)


def test_without_validation_the_last_weights_are_written(make_job, weights):
    job = make_job(steps=1, validation=0.0)
    recorder = Recorder()
    result = run(job, recorder)
    assert "Scenes that train: 4; that validate: none." in recorder.messages
    assert result["best_step"] is None and result["scenes"]["validation"] == []
    assert not same_weights(job.output, load_file(weights / "start.safetensors"))


def test_adapters_for_a_sam_that_has_none(make_job):
    job = make_job(steps=1, validation=0.0)
    job = replace(job, model=replace(job.model, adapters=None))
    assert run(job)["steps"] == 1
    adapters = replace(job.model, adapters=job.output)
    assert isinstance(load_segmenter(adapters), FittedSegmenter)
    trained = load_file(job.output)
    assert trained.keys() > {"blend.gain", "blend.offset"}


class CancelAt(Recorder):
    """Cancels at an event whose stage starts so."""

    def __init__(self, stage):
        super().__init__()
        self._stage = stage

    def is_cancelled(self):
        return any(stage.startswith(self._stage) for _, stage, _ in self.events)


@pytest.mark.parametrize("stage", ["Validating after step 1", "Training, loss"])
def test_a_cancelled_run_goes_on_to_the_same_weights(make_job, stage):
    whole, cut = make_job("whole", steps=2), make_job("cut", steps=2)
    expected = run(whole)
    with pytest.raises(JobCancelled):
        run(cut, CancelAt(stage))
    assert files(cut) == ["a.state"]
    resumed = run(cut)
    assert files(cut) == ["a.json", "a.safetensors"]
    assert same_weights(cut.output, load_file(whole.output))
    for key in ("loss", "classes", "best_step", "best_miou", "start_miou", "scenes"):
        assert resumed[key] == expected[key]


def test_cancelling_in_a_backward_pass(make_job, monkeypatch):
    job = make_job(steps=2, validation=0.0)
    recorder = Recorder()
    backward = torch.Tensor.backward
    reached = []

    def cancel(self):
        monkeypatch.setattr(recorder, "is_cancelled", lambda: True)
        backward(self)
        reached.append("the end")

    monkeypatch.setattr(torch.Tensor, "backward", cancel)
    with pytest.raises(JobCancelled):
        run(job, recorder)
    assert reached == []
    assert torch.load(Path(job.output).with_suffix(".state"), weights_only=True)["step"] == 0


def test_a_state_of_other_data_is_refused_or_thrown_away(make_job, write_vector):
    job = make_job(steps=2)
    with pytest.raises(JobCancelled):
        run(job, CancelAt("Training, loss"))
    other = write_vector([shapely.box(*(HALF_METRE * BOXES[0][:2]), *(HALF_METRE * BOXES[-1][2:]))], "other.gpkg")
    changed = {"labels": other, "class_field": None, "steps": 2}
    with pytest.raises(RefSAMError, match="other settings or data"):
        run(make_job(**changed))
    assert run(make_job(**changed, resume=False))["steps"] == 2


def test_a_state_without_a_step_gives_way_to_other_settings(make_job, monkeypatch):
    """Memory that runs out in the first step asks for other ones."""
    job = make_job(steps=2, validation=0.0)
    with monkeypatch.context() as context:
        context.setattr(torch.Tensor, "backward", lambda self: (_ for _ in ()).throw(MemoryError()))
        with pytest.raises(MemoryError):
            run(job)
    assert files(job) == ["a.state"]
    assert run(make_job(steps=1, validation=0.0))["steps"] == 1
    assert files(job) == ["a.json", "a.safetensors"]


@pytest.mark.parametrize(("sides", "window"), [((40, 40), 1024), ((10, 4), 512), ((6, 3), 256)])
def test_calibration_looks_closer_where_objects_are_small(
    make_job, write_raster, write_vector, monkeypatch, sides, window
):
    """Of a view 256 pixels wide 131 have to be of the class, of one 128 wide 33; there is an object every 240."""
    corners = [(x, y) for x in range(30, 960, 240) for y in range(30, 960, 240)]
    boxes = [(x, y, x + sides[0], y + sides[1]) for x, y in corners]
    patches = [(slice(y, bottom), slice(x, right), RED) for x, y, right, bottom in boxes]
    labels = write_vector([shapely.box(*(HALF_METRE * box[:2]), *(HALF_METRE * box[2:])) for box in boxes], "cars.gpkg")
    asked = []
    monkeypatch.setattr(train, "calibration_episodes", lambda _, count, side, *rest, **others: asked.append(side) or [])
    monkeypatch.setattr(train, "calibrate", lambda *arguments: None)
    monkeypatch.setattr(train, "CALIBRATION_WINDOW", USUAL_WINDOW)
    raster = write_raster(painted(960, 960, patches), "cars.tif")
    run(make_job(steps=1, rasters=(raster,), labels=labels, class_field=None))
    assert asked == [window]


def test_what_calibration_cannot_draw_is_said_before_training(make_job, monkeypatch):
    """Its views are larger: small objects that train are too small for it."""

    class Rare:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 2:
                raise RefSAMError("input", "Objects of class 'car' are too small.")

    monkeypatch.setattr(train, "calibration_episodes", lambda *arguments, **others: Rare())
    job = make_job(steps=1, validation=0.0)
    recorder = Recorder()
    with pytest.raises(RefSAMError, match="'car'"):
        run(job, recorder)
    assert files(job) == [] and not any(stage.startswith("Training") for _, stage, _ in recorder.events)


def test_what_a_loader_of_its_own_process_meets_is_said_in_its_sentence(make_job, monkeypatch):
    monkeypatch.setattr("refsam_qgis.engine.training.episodes.LEAST_SHARE", 1.1)
    monkeypatch.setattr("refsam_qgis.engine.training.episodes.MOST_DRAWS", 3)
    monkeypatch.setattr(train, "_require_calibration", lambda *arguments: None)
    with pytest.raises(RefSAMError, match=r"^Objects of class '\w+' are too small") as raised:
        run_train(make_job(steps=1, validation=0.0), Recorder(), workers=1)
    assert raised.value.code == "input"


def test_a_closed_folder_of_the_curve_is_said_before_training(make_job, monkeypatch, tmp_path):
    def refuse(**arguments):
        if arguments["dir"] == closed:
            raise PermissionError(13, "Permission denied")
        return make_folder(**arguments)

    closed = tmp_path / "closed"
    closed.mkdir()
    make_folder = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    job = make_job(steps=1, validation=0.0, curve=str(closed / "curve.png"))
    recorder = Recorder()
    with pytest.raises(RefSAMError, match="closed' cannot be written"):
        run(job, recorder)
    assert files(job) == [] and not any(stage.startswith("Training") for _, stage, _ in recorder.events)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed):
    with pytest.raises(RefSAMError, match=f"Seed {seed} is out of range; use 0 to 4294967295"):
        TrainJob("a.safetensors", seed=seed)


def test_training_warns_of_nothing(make_job):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run(make_job(steps=1, validation=0.0))


def test_starting_anew_deletes_no_file_of_another_program(make_job):
    job = make_job(steps=1, validation=0.0, resume=False)
    Path(job.output).with_suffix(".state").write_text("my notes")
    with pytest.raises(RefSAMError, match=r"a\.state' is no state of a training"):
        run(job)
    assert Path(job.output).with_suffix(".state").read_text() == "my notes"


def test_a_raster_named_twice_is_learned_from_once(make_job, tmp_path):
    """It would validate what it has trained."""
    once = make_job(steps=1)
    link = tmp_path / "linked.tif"
    link.symlink_to(once.rasters[0])
    recorder = Recorder()
    twice = make_job("repeated", steps=1, rasters=(*once.rasters, str(link), *once.rasters, *once.rasters))
    assert run(twice, recorder)["scenes"] == run(once)["scenes"]
    assert "Rasters that are given more than once are used once (3 left out)." in recorder.messages


def test_too_few_scenes_to_validate_is_said(make_job, write_raster, write_vector):
    raster = write_raster(painted(120, 120, [(slice(50, 70), slice(50, 70), RED)]), "small.tif")
    labels = write_vector([shapely.box(*(HALF_METRE * (50, 50)), *(HALF_METRE * (70, 70)))], "one.gpkg")
    recorder = Recorder()
    result = run(make_job(rasters=(raster,), labels=labels, class_field=None, steps=1), recorder)
    assert result["best_step"] is None and result["scenes"]["training"] == ["small"]
    assert any("No scene can be spared" in message for message in recorder.messages)


def test_outputs_never_replace_inputs(make_job):
    job = make_job(steps=1)
    with pytest.raises(RefSAMError, match="also an input"):
        run(TrainJob(job.model.adapters, model=job.model, rasters=job.rasters, labels=job.labels))
    with pytest.raises(RefSAMError, match="must end in"):
        run(TrainJob(job.output + ".bin", model=job.model))


@pytest.mark.parametrize(
    "content", ['{"type": "FeatureCollection"}', '{"refsam": "1", "job": {"kind": "segment"}}', "["]
)
def test_the_card_replaces_no_file_but_a_card(make_job, content):
    """Nobody is asked about it; it may be the very labels."""
    job = make_job(steps=1, validation=0.0)
    card = Path(job.output).with_suffix(".json")
    card.write_text(content)
    with pytest.raises(RefSAMError, match=r"a\.json' is no card of adapters"):
        run(job)
    assert files(job) == ["a.json"] and card.read_text() == content
    card.unlink()
    run(job)
    assert run(job)["card"] == str(card)  # a card gives way to the next


@pytest.fixture
def labelled(tmp_path, weights):
    """A folder of two labelled scenes, and a job that learns from them and writes among them."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    (folder / "classes.json").write_text('{"0": "background", "1": "roof"}')
    for name in "ab":
        Image.fromarray(painted(96, 96, [(slice(30, 60), slice(30, 60), RED)]).transpose(1, 2, 0)).save(
            folder / f"{name}.png"
        )
        mask = Image.new("L", (96, 96))
        mask.paste(1, (30, 30, 60, 60))
        mask.save(folder / f"{name}_mask.png")
    model = ModelOptions(checkpoint=str(weights / "sam.pth"), device="cpu")
    return TrainJob(str(folder / "new.safetensors"), folder=str(folder), generated=False, model=model, steps=2, batch=1)


def test_no_output_replaces_a_file_of_the_labelled_folder(labelled):
    folder = Path(labelled.folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RefSAMError, match=r"classes\.json' is no card"):
        run(replace(labelled, output=str(folder / "classes.safetensors")))
    with pytest.raises(RefSAMError, match=r"b\.png' is also an input"):
        run(replace(labelled, curve=str(folder / "b.png")))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_cancelled_run_goes_on_among_the_labelled_images(labelled):
    """What it wrote there itself is no other data."""
    with pytest.raises(JobCancelled):
        run(labelled, CancelAt("Training, loss"))
    assert run(labelled)["steps"] == 2
    assert run(labelled)["steps"] == 2
