"""The `train` job: adapters for any SAM, from the user's rasters, labelled images and generated scenes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import nn

from ..earlier_report import card_path
from ..events import Reporter, check_cancelled
from ..fingerprint import fingerprint, raster_identity
from ..image_folder import labelled_files
from ..job import ModelOptions, TrainJob
from ..models.checkpoints import adapters_metadata, choose_device, load_adapters, load_embedding, load_sam, save_weights
from ..models.sam import INPUT_SIZE
from ..models.virefsam import ViRefSAM
from ..models.weight_files import COMPACT_ADAPTERS, adapters_path, checkpoint_path, digest
from ..rasters.outputs import OutputFiles, disk_errors
from ..rasters.parts import files_of
from ..report import Clock, write_report
from ..runner import Loader
from .calibrate import calibrate, calibration_episodes
from .curve import draw_curve
from .episodes import CLOSEST, LEAST_SHARE, EpisodeConfig, Episodes
from .raster_places import RasterPlace, read_raster_places, without_repeats
from .sources import TEST_CLASSES, FolderPlace, read_places
from .split import split_places
from .state import TrainingState
from .trainer import CPU_WINDOW, FITTED_SHARE, WINDOW, TrainerConfig, train_adapters
from .validation import EpisodeList, class_ious

REAL_SHARE = 0.75
"""Share of the episodes from the user's own scenes when generated ones are mixed in."""
LOOKS, LEAST_STEPS_BETWEEN = 20, 10
"""Validations in a run, and the fewest steps from one to the next."""
EPISODES_PER_CLASS, FEWEST_EPISODES, MOST_EPISODES = 8, 16, 48
"""Episodes of a validation."""
WARMUP = 0.1
"""Part of a short run that is warm-up."""
CALIBRATION = 24
"""Episodes that the probabilities are calibrated on at last."""
CALIBRATION_WINDOW = INPUT_SIZE
"""Side of their views: that of a run's tiles, since in smaller views a class is more frequent and a fit less sure."""
SIGHTS, LEAST_SIGHTS = 20, 5
"""Views drawn to see whether a class can fill them, and those that it has to fill."""
STREAM = 4
"""Draws of the validation episodes are apart from those of training and development."""
SUFFIXES = {"adapters": (".safetensors",), "card": (".json",), "curve": (".png",)}

Scene = RasterPlace | FolderPlace


def run_train(job: TrainJob, reporter: Reporter, load: Loader | None = None, workers: int = 1) -> dict[str, Any]:
    """Train adapters and write them with their card.

    Training starts from the adapters named, else from the bundled ones when the bundled compact model is adapted, else
    from nothing. Whole scenes are kept for validation: few-shot episodes in them, whose references come from other
    scenes, are looked at from time to time, and the weights of the best look are written. Training ends early when
    looks bring no gain. Without scenes to spare the last weights are written. The adapters serve the methods 'fitted'
    and 'virefsam'; validation is by 'fitted', which is what 'auto' uses.

    The state of an unfinished run lies beside the output as ``STEM.state``, so that a cancelled run goes on where it
    stopped.

    Args:
        job: What to learn from.
        reporter: Hears the progress with loss and validation, and says when to stop.
        load: Not needed; every job's function takes it.
        workers: Processes that draw the episodes.

    Returns:
        ``adapters``, ``card`` and ``curve`` (paths), ``steps`` taken, ``best_step``, ``best_miou`` and ``start_miou``
        (``None`` without validation), ``stopped_early``, ``classes`` (validation IoU by name), ``scenes`` (names of
        ``training`` and ``validation``), ``loss`` (mean of the last tenth), ``seconds`` (of all calls) and ``device``.

    Raises:
        RefSAMError: When the job cannot be done.
        JobCancelled: If the user asked for it; the state is kept.
    """
    clock = Clock()
    output = Path(job.output)
    paths = {"adapters": job.output, "card": card_path(job.output), "curve": job.curve}
    outputs = OutputFiles(paths, SUFFIXES, _files_read(job))
    with outputs:
        pass  # tells of a folder that cannot be written to before the training, not after it
    device = choose_device(job.model.device)
    window = WINDOW if device.type != "cpu" else CPU_WINDOW
    reporter.progress(0.0, "Reading the scenes")
    data = _read_data(job, reporter)
    calibration = _calibration_episodes(job, data, window)
    _require_calibration(calibration, reporter)
    reporter.progress(0.0, "Loading the model")
    torch.manual_seed(job.seed)
    model = _starting_model(job.model).to(device)
    state = TrainingState(output.with_suffix(".state"))
    if not job.resume:
        state.discard()
    draws = EpisodeConfig(steps=job.steps, batch=job.batch, window=window, real_share=data.real_share, seed=job.seed)
    warmup = min(TrainerConfig.warmup, max(1, round(WARMUP * job.steps)))
    trainer = TrainerConfig(warmup=warmup, fitted_share=FITTED_SHARE)
    run = _Run(job, model, state, _validation_episodes(job, data, window), reporter)
    try:
        with _interruptible_backward(model, reporter):
            train_adapters(
                model, Episodes(draws, data.training), draws, trainer, state, run.on_step, workers,
                look=run.look, identity=fingerprint([data.identity, _weights(job.model), job.validation]),
            )  # fmt: skip
    except _NoGain:
        reporter.log(f"Validation has not become better since step {run.best_step}; training ends at {state.step}.")
    result = run.result(paths, data, device)
    reporter.progress(1.0, "Calibrating the probabilities")
    model.load_state_dict(run.best_weights(), strict=False)
    calibrate(model, calibration, lambda: check_cancelled(reporter))
    if not model.blend.asks_decoder:
        reporter.log("Method 'fitted' will not ask SAM's decoder: it answers held-out episodes as well without.")
    with outputs:
        _write_weights(outputs, model, run)
        further = {"data": _describe(job, data, window), "validation": run.looks}
        write_report(str(outputs["card"]), job, job.model, device, clock, result, further)
        outputs.commit()
    state.path.unlink(missing_ok=True)
    reporter.progress(1.0, "Done", 0.0)
    return result


def _calibration_episodes(job: TrainJob, data: _Data, least: int) -> EpisodeList:
    """Episodes in scenes that training did not see, where there are some: what was taught is answered better.

    Where small objects are sought, tiles are smaller than `CALIBRATION_WINDOW`, and so are the views then: halved down
    to those of the training, `least` pixels, until every class can be drawn.
    """
    places = data.validation or data.training
    every = [*data.training, *data.validation]
    side = CALIBRATION_WINDOW
    while side > least and not all(_fills(place, name, side) for place in every for name in place.class_names()):
        side = max(side // 2, least)
    return calibration_episodes(places, CALIBRATION, side, data.real_share, job.seed, support=every)


def _fills(place: Scene, name: str, side: int) -> bool:
    """Whether a class covers enough of the closest views of `side` input pixels to be a reference."""
    rng = np.random.default_rng(0)
    views = (place.draw(rng, side // CLOSEST, name) for _ in range(SIGHTS))
    filled = [bool((view.classes == place.class_id(name)).mean() >= LEAST_SHARE) for view in views]
    return sum(filled) >= LEAST_SIGHTS


def _require_calibration(episodes: EpisodeList, reporter: Reporter) -> None:
    """Draw what the training ends with: a class that its larger views hardly show would fail it after all its steps.

    Raises:
        RefSAMError: With code ``input``, naming the class.
    """
    for index in range(len(episodes)):
        check_cancelled(reporter)
        episodes[index]


@dataclass(frozen=True)
class _Data:
    """What is learned from.

    Attributes:
        training: Real scenes that train.
        validation: Real scenes that validate.
        real_share: Share of the episodes drawn from real scenes.
        identity: What tells it from other data.
    """

    training: list[Scene]
    validation: list[Scene]
    real_share: float
    identity: list[Any]


class _NoGain(Exception):
    """Ends a training whose validation becomes no better."""


class _Run:
    """Follows one training: its curves, the best weights and when to end; all of it is kept in the state."""

    def __init__(
        self, job: TrainJob, model: ViRefSAM, state: TrainingState, episodes: Episodes | None, reporter: Reporter
    ) -> None:
        self._job = job
        self._model = model
        self._state = state
        self._episodes = episodes
        self._reporter = reporter
        self._every = max(LEAST_STEPS_BETWEEN, -(-job.steps // LOOKS))
        self._ticked = time.monotonic()
        # Seconds that each step, and each look, of this call took.
        self._step_seconds: list[float] = []
        self._look_seconds: list[float] = []

    @property
    def losses(self) -> list[float]:
        """Loss of every step."""
        losses: list[float] = self._state.record.setdefault("losses", [])
        return losses

    @property
    def looks(self) -> list[dict[str, Any]]:
        """``step``, ``miou`` and ``classes`` of every validation."""
        looks: list[dict[str, Any]] = self._state.record.setdefault("looks", [])
        return looks

    @property
    def best_step(self) -> int | None:
        """Step of the best validation; ``None`` before any."""
        best: int | None = max(self.looks, key=lambda look: look["miou"])["step"] if self.looks else None
        return best

    def on_step(self, step: int, loss: float) -> None:
        """Note a step and tell of it."""
        self.losses.append(loss)
        self._step_seconds.append(self._tick())
        check_cancelled(self._reporter)
        self._report(step, f"Training, loss {loss:.3f}")

    def look(self, step: int) -> None:
        """Validate when it is time.

        Raises:
            _NoGain: When the patience is at its end.
        """
        due = step % self._every == 0 or step == self._job.steps
        if self._episodes is not None and due and all(look["step"] != step for look in self.looks):
            self._validate(self._episodes, step)
        best = self.best_step
        if best is None or not self._job.patience:
            return
        if sum(look["step"] > best for look in self.looks) >= self._job.patience:
            raise _NoGain

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The weights to write."""
        weights: dict[str, torch.Tensor] | None = self._state.record.get("best_weights")
        return self._model.trainable_state() if weights is None else weights

    def result(self, paths: dict[str, str | None], data: _Data, device: torch.device) -> dict[str, Any]:
        """What the job returns."""
        looks = self.looks
        best = next((look for look in looks if look["step"] == self.best_step), None)
        if best is not None and best["step"] == 0:
            self._reporter.log("No validation was better than the first, before training; those weights are written.")
        recent = self.losses[-max(1, len(self.losses) // 10) :]
        return {
            **{name: path for name, path in paths.items() if path is not None},
            "steps": self._state.step,
            "best_step": self.best_step,
            "best_miou": None if best is None else round(best["miou"], 4),
            "start_miou": round(looks[0]["miou"], 4) if looks else None,
            "stopped_early": self._state.step < self._job.steps,
            "classes": {} if best is None else {name: round(value, 4) for name, value in best["classes"].items()},
            "scenes": {
                "training": [place.name for place in data.training],
                "validation": [place.name for place in data.validation],
            },
            "loss": sum(recent) / len(recent) if recent else None,
            "seconds": round(self._state.record.get("seconds", 0.0), 1),
            "device": str(device),
        }

    def _validate(self, episodes: Episodes, step: int) -> None:
        def check() -> None:
            check_cancelled(self._reporter)
            self._report(step, f"Validating after step {step}")

        classes = {name: full for name, (full, _) in class_ious(self._model, episodes, check, fitted=True).items()}
        look = {"step": step, "miou": float(np.mean(list(classes.values()))), "classes": classes}
        self.looks.append(look)
        if self.best_step == step:
            self._state.record["best_weights"] = {
                name: value.detach().cpu().clone() for name, value in self._model.trainable_state().items()
            }
        self._look_seconds.append(self._tick())
        self._reporter.log(f"Validation after step {step}: mIoU {look['miou']:.3f}.")

    def _report(self, step: int, what: str) -> None:
        if self.looks:
            what += f", validation mIoU {self.looks[-1]['miou']:.3f}"
        self._reporter.progress(step / self._job.steps, what, self._remaining(step))

    def _remaining(self, step: int) -> float | None:
        if not self._step_seconds:
            return None
        steps = self._job.steps - step
        looks = -(-steps // self._every) if self._episodes is not None else 0
        return steps * mean(self._step_seconds) + looks * (mean(self._look_seconds) if self._look_seconds else 0.0)

    def _tick(self) -> float:
        """Seconds since the last tick, added to those of all calls."""
        now = time.monotonic()
        elapsed, self._ticked = now - self._ticked, now
        self._state.record["seconds"] = self._state.record.get("seconds", 0.0) + elapsed
        return elapsed


def _files_read(job: TrainJob) -> list[str]:
    folder = [] if job.folder is None else labelled_files(Path(job.folder))
    labels = [] if job.labels is None else [job.labels]
    return [*files_of(job.rasters), *labels, *map(str, folder), *job.model.files()]


def _read_data(job: TrainJob, reporter: Reporter) -> _Data:
    scenes: list[Scene] = []
    identity: list[Any] = [job.folder, job.generated]
    if job.rasters:
        rasters = without_repeats(job.rasters, reporter)
        places, polygons = read_raster_places(
            rasters, str(job.labels), job.class_field, job.bands, job.stretch, reporter
        )
        scenes += places
        identity += [polygons.digest, [raster_identity(path) for path in rasters], job.bands, job.stretch]
    if job.folder is not None:
        folder = Path(job.folder)
        scenes += [place for place in read_places(folder).values() if place.class_names()]
        identity += [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in labelled_files(folder)]
    training, validation = split_places(scenes, job.validation, job.seed)
    if scenes and job.validation and not validation:
        reporter.log(
            "No scene can be spared for validation: each is the only one that shows some class. Training takes all its "
            "steps and the last weights are written."
        )
    elif scenes:
        names = ", ".join(place.name for place in validation) or "none"
        reporter.log(f"Scenes that train: {len(training)}; that validate: {names}.")
    share = (REAL_SHARE if job.generated else 1.0) if scenes else 0.0
    return _Data(training, validation, share, identity)


def _validation_episodes(job: TrainJob, data: _Data, window: int) -> Episodes | None:
    """Episodes in the validation scenes, or of generated classes held out when there are no real scenes."""
    if not job.validation or (data.training and not data.validation):
        return None
    names = {name for place in data.validation for name in place.class_names()} or TEST_CLASSES
    count = min(max(EPISODES_PER_CLASS * len(names), FEWEST_EPISODES), MOST_EPISODES)
    config = EpisodeConfig(
        steps=count, batch=1, window=window, shots=(1,), real_share=1.0 if data.validation else 0.0,
        other_place_share=0.0, without_focus_share=0.0, partial_share=0.0, scribble_share=0.0, seed=job.seed,
    )  # fmt: skip
    return Episodes(config, data.validation, sorted(TEST_CLASSES), STREAM, data.training)


def _starting_model(options: ModelOptions) -> ViRefSAM:
    sam: nn.Module = load_sam(options)
    start = adapters_path(options)
    model = ViRefSAM(sam) if start is None else load_adapters(sam, start)
    if model.embedding is None and (embedding := load_embedding(COMPACT_ADAPTERS)) is not None:
        model.take_embedding(embedding)
    return model


def _weights(options: ModelOptions) -> list[str | None]:
    """Digests of the weights that training starts from."""
    start = adapters_path(options)
    return [options.model, digest(checkpoint_path(options)), None if start is None else digest(start)]


@contextmanager
def _interruptible_backward(model: ViRefSAM, reporter: Reporter) -> Iterator[None]:
    """Let a cancel be felt between the blocks of a backward pass, which takes seconds on a CPU."""

    def watch(module: Any, arguments: Any, residual: torch.Tensor) -> None:
        if residual.requires_grad:
            residual.register_hook(lambda gradient: check_cancelled(reporter))  # type: ignore[no-untyped-call]

    # A backward hook of the module would do, but torch warns of it, since SAM's tokens need no gradient.
    handles = [adapter.register_forward_hook(watch) for adapter in model.dta.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _write_weights(outputs: OutputFiles, model: ViRefSAM, run: _Run) -> None:
    adapters = str(outputs["adapters"])
    with disk_errors(adapters):
        save_weights(model.trainable_state(), Path(adapters), adapters_metadata(model.config))
    if (path := outputs["curve"]) is not None:
        with disk_errors(path):
            looks = [(look["step"], look["miou"]) for look in run.looks]
            draw_curve(run.losses, looks, run.best_step).save(path)


def _describe(job: TrainJob, data: _Data, window: int) -> dict[str, Any]:
    """What was learned from, for the card."""
    start = adapters_path(job.model)
    return {
        "started_from": None if start is None else {"adapters": start.name, "sha256": digest(start)},
        "classes": sorted({name for place in [*data.training, *data.validation] for name in place.class_names()}),
        "real_share": data.real_share,
        "window": window,
    }
