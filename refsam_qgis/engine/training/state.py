"""What a training run needs to go on where it stopped: weights, optimiser, step."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import RefSAMError
from ..rasters.outputs import OutputFiles, disk_errors
from .small_state import enlarge, halve, shrink

GRADIENT_CLIP = 1.0
SAVE_SECONDS = 120.0
"""How much work an interruption may cost."""
PARTS = {"settings", "weights", "optimiser", "step", "record"}
"""What a saved state holds."""
STATE = "state"
"""Name of the only output."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then a cosine down to zero."""

    peak: float
    warmup: int
    steps: int

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class TrainingState:
    """Optimiser and step of one run, saved aside and renamed so that a file is always whole.

    Attributes:
        path: Where it is saved.
        step: Steps taken.
        record: What else the run has to remember: tensors, numbers, texts, lists and dictionaries.
    """

    def __init__(self, path: Path, small: bool = False) -> None:
        """Set where the state is kept.

        Args:
            path: The file.
            small: Save a sixth of the bytes (see `small_state`), so that the state of a whole SAM travels. A run then
                goes on from nearly where it stopped instead of from the very weights.
        """
        self.path = path
        self._small = small
        self.step = 0
        self.record: dict[str, Any] = {}
        self._saved_at = time.monotonic()

    def begin(
        self, parameters: Sequence[nn.Parameter], model: nn.Module, weight_decay: float, settings: dict[str, Any]
    ) -> None:
        """Create the optimiser and take up a saved state if there is one.

        Args:
            parameters: Weights to train.
            model: Module whose trainable weights are saved.
            weight_decay: AdamW's, for matrices only; vectors are not decayed.
            settings: The run's configuration; a state of another configuration is refused.

        Raises:
            RefSAMError: With code ``input`` when the saved state belongs to another configuration, is damaged or none.
        """
        self._parameters = [p for p in parameters if p.requires_grad]
        self._model = model
        self._settings = settings
        matrices = [p for p in self._parameters if p.ndim > 1]
        vectors = [p for p in self._parameters if p.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        )
        if self.path.exists():
            self._take_up(self._read())

    def discard(self) -> None:
        """Delete a saved state if there is one.

        Raises:
            RefSAMError: With code ``input`` when what is there is no state or a damaged one.
        """
        if self.path.exists():
            self._read()
            self.path.unlink()

    def optimise(self, loss: Tensor, schedule: Schedule) -> None:
        """Take one optimiser step, and save when it is time."""
        if not bool(torch.isfinite(loss)):
            raise RefSAMError("internal", f"The loss is not finite at step {self.step}; lower the learning rate.")
        for group in self._optimiser.param_groups:
            group["lr"] = schedule.rate(self.step)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, GRADIENT_CLIP)
        self._optimiser.step()
        self.step += 1
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the state under its name only when it is whole."""
        trainable = {name for name, p in self._model.named_parameters() if p.requires_grad}
        buffers = {name for name, _ in self._model.named_buffers()}
        weights = {k: v for k, v in self._model.state_dict().items() if k in trainable or k in buffers}
        document = {
            "settings": self._settings,
            "weights": halve(weights) if self._small else weights,
            "optimiser": shrink(self._optimiser.state_dict()) if self._small else self._optimiser.state_dict(),
            "step": self.step,
            "record": self.record,
        }
        content = io.BytesIO()  # written to a file, torch makes an error of its own of a full disk
        torch.save(document, content)
        with OutputFiles({STATE: str(self.path)}, {STATE: (self.path.suffix,)}, []) as outputs:
            with disk_errors(str(self.path)), open(str(outputs[STATE]), "wb") as stream:
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())  # after a power cut, a file renamed before it was on the disk may be empty
            outputs.commit()
        self._saved_at = time.monotonic()

    def _read(self) -> dict[str, Any]:
        """Read what was saved. What is no state may be another program's file, so it is not simply replaced."""
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            if not PARTS <= saved.keys():
                raise ValueError("parts are missing")
        except Exception as error:  # torch.load fails in many ways on a foreign file; all mean the same to a user
            raise RefSAMError(
                "input",
                f"'{self.path}' is no state of a training, or a damaged one; delete it, or move it if it is another "
                "program's.",
            ) from error
        document: dict[str, Any] = saved
        return document

    def _take_up(self, saved: dict[str, Any]) -> None:
        if saved["settings"] != self._settings:
            if saved["step"] == 0:  # what stopped it may have asked for other settings or data; nothing is lost
                return
            raise RefSAMError(
                "input",
                f"'{self.path}' was left by a run with other settings or data; use those, or start anew instead of "
                "resuming.",
            )
        self._model.load_state_dict(saved["weights"], strict=False)
        moments = saved["optimiser"]
        self._optimiser.load_state_dict(enlarge(moments) if self._small else moments)
        self.step = int(saved["step"])
        self.record = saved["record"]
