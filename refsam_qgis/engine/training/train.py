"""The `train` job: adapters for any SAM checkpoint, from generated scenes and a folder of labelled images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..errors import RefSAMError
from ..events import Reporter, check_cancelled
from ..job import TrainJob
from ..models.checkpoints import adapters_metadata, choose_device, load_sam, save_weights
from ..models.virefsam import ViRefSAM
from ..runner import Loader
from .episodes import EpisodeConfig, Episodes
from .sources import read_places
from .state import TrainingState
from .trainer import TrainerConfig, train_adapters


def run_train(job: TrainJob, reporter: Reporter, load: Loader) -> dict[str, Any]:
    """Train adapters as the job says and write them.

    The state of an unfinished run lies beside the output, so that a cancelled run goes on where it stopped.

    Returns:
        ``adapters`` (path), ``steps``, ``seconds``, ``loss`` (mean of the last tenth) and ``device``.
    """
    output = Path(job.output)
    if not output.parent.is_dir():
        raise RefSAMError("input", f"The folder '{output.parent}' does not exist; create it or choose another output.")
    device = choose_device(job.model.device)
    torch.manual_seed(job.seed)
    model = ViRefSAM(load_sam(job.model)).to(device)
    places = tuple(read_places(Path(job.folder)).values()) if job.folder is not None else ()
    draws = EpisodeConfig(steps=job.steps, batch=job.batch, seed=job.seed)
    state_path = output.with_suffix(".state")
    if not job.resume:
        state_path.unlink(missing_ok=True)
    losses: list[float] = []
    started = time.monotonic()

    def on_step(step: int, loss: float) -> None:
        check_cancelled(reporter)
        losses.append(loss)
        each = (time.monotonic() - started) / len(losses)
        reporter.progress(step / job.steps, f"Training, loss {loss:.3f}", each * (job.steps - step))

    train_adapters(model, Episodes(draws, places), draws, TrainerConfig(), TrainingState(state_path), on_step)
    save_weights(model.trainable_state(), output, adapters_metadata(model.config))
    state_path.unlink(missing_ok=True)
    recent = losses[-max(1, len(losses) // 10) :]
    return {
        "adapters": str(output),
        "steps": job.steps,
        "seconds": time.monotonic() - started,
        "loss": sum(recent) / len(recent) if recent else None,
        "device": str(device),
    }
