"""Weights on disk: SAM's own ``.pth`` files, our safetensors, and the bundled compact model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import RefSAMError
from ..job import ModelOptions
from .config import ViRefSAMConfig
from .embedding import PixelEmbedding
from .fitted import FittedSegmenter, FittedStockSegmenter
from .precision import choose_precision, set_precision
from .sam import build_sam
from .segmenter import ReferenceSegmenter
from .training_free import TrainingFreeSegmenter
from .virefsam import ViRefSAM, ViRefSAMSegmenter
from .weight_files import adapters_path, checkpoint_path, require_file, resolve_method


def load_segmenter(options: ModelOptions) -> ReferenceSegmenter:
    """Build the segmenter that a job asks for, with its weights, on its device.

    Raises:
        RefSAMError: With code ``checkpoint`` when weights are missing, foreign or do not fit, or ``environment`` when
            the device is not there.
    """
    device = choose_device(options.device)
    sam: Any = load_sam(options)
    precision = choose_precision(device)
    for part in (sam.image_encoder, sam.mask_decoder.transformer, sam.mask_decoder.output_upscaling):
        set_precision(part, precision)
    adapters = adapters_path(options)
    method = resolve_method(options)
    if method == "training_free":
        return TrainingFreeSegmenter(sam.to(device))
    if method == "fitted" and adapters is None:
        return FittedStockSegmenter(sam.to(device))
    if adapters is None:
        raise RefSAMError(
            "checkpoint",
            f"Method 'virefsam' needs adapters trained for '{options.model}'; choose an adapters file, "
            "or the method 'fitted'.",
        )
    model = load_adapters(sam, adapters).to(device)
    if model.embedding is not None:
        set_precision(model.embedding, precision)
    return FittedSegmenter(model) if method == "fitted" else ViRefSAMSegmenter(model)


def load_sam(options: ModelOptions) -> nn.Module:
    """Build SAM and load its checkpoint, checking every key, shape and number."""
    path = checkpoint_path(options)
    state = read_weights(path)
    sam = build_sam(options.model)
    _load_strictly(sam, state, path, f"SAM model '{options.model}'")
    return sam


def load_adapters(sam: nn.Module, path: Path) -> ViRefSAM:
    """Put trained prompt encoder and adapters around a SAM; in adapters older than the blend, it is as it starts.

    Raises:
        RefSAMError: With code ``checkpoint`` when the file is missing, foreign or damaged, or does not fit the SAM.
    """
    config, state = _read_adapters(path)
    if any(name.startswith("sam.") for name in state):
        raise RefSAMError(
            "checkpoint", f"'{path}' holds weights of SAM itself, which adapters must leave alone; choose another file."
        )
    model = ViRefSAM(sam, config)
    kept = {name: value for name, value in model.state_dict().items() if name.startswith(("sam.", "blend."))}
    _load_strictly(model, {**kept, **state}, path, "this SAM model's adapters")
    return model


def load_embedding(path: Path) -> PixelEmbedding | None:
    """Return the learned embedding of an adapters file, which may stand beside any SAM; ``None`` where it has none.

    Raises:
        RefSAMError: With code ``checkpoint`` when the file is missing, foreign or damaged.
    """
    config, state = _read_adapters(path)
    if not config.embedding:
        return None
    embedding = PixelEmbedding(config.embedding)
    own = {name.removeprefix("embedding."): value for name, value in state.items() if name.startswith("embedding.")}
    _load_strictly(embedding, own, path, "a learned embedding")
    return embedding


def _read_adapters(path: Path) -> tuple[ViRefSAMConfig, dict[str, Tensor]]:
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).float() for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise RefSAMError("checkpoint", f"'{path}' is not an adapters file of RefSAM; choose another.") from error
    try:
        return ViRefSAMConfig(**json.loads(metadata.get("config", "{}"))), state
    except (TypeError, ValueError) as error:
        raise RefSAMError(
            "checkpoint", f"'{path}' was written by another version of RefSAM; update RefSAM or train it again."
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from ``.safetensors`` or from SAM's ``.pth``, never running code from the file."""
    require_file(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).float() for name in file.keys()}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails in many ways on a foreign file; all mean the same to a user
        raise RefSAMError(
            "checkpoint", f"'{path}' is not a SAM checkpoint (it may be damaged or partly downloaded); choose another."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise RefSAMError("checkpoint", f"'{path}' holds no SAM weights; choose a checkpoint in SAM's own form.")
    return state


def save_weights(state: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write weights as 16-bit safetensors, whole or not at all."""
    half = {name: value.detach().cpu().to(torch.float16).contiguous() for name, value in state.items()}
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(save(half, metadata=metadata))  # safetensors' own writer leaves a file only its owner may read
    os.replace(aside, path)


def adapters_metadata(config: ViRefSAMConfig) -> dict[str, str]:
    """What an adapters file says of itself."""
    return {"config": json.dumps(config.__dict__)}  # one entry: safetensors writes several in no fixed order


def choose_device(name: str) -> torch.device:
    """Turn a job's device into torch's.

    Raises:
        RefSAMError: With code ``environment`` when the device asked for is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    kind = name.split(":")[0]
    if not available.get(kind, False):
        raise RefSAMError("environment", f"Device '{name}' is not available on this machine; use 'auto' or 'cpu'.")
    return torch.device(name)


def _load_strictly(module: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    """Load a state whose keys and shapes all have to fit, and whose numbers have to be finite."""
    expected = module.state_dict()
    missing = sorted(set(expected) - set(state))
    foreign = sorted(set(state) - set(expected))
    misshapen = sorted(name for name in set(state) & set(expected) if state[name].shape != expected[name].shape)
    if missing or foreign or misshapen:
        example = (missing or foreign or misshapen)[0]
        raise RefSAMError(
            "checkpoint",
            f"'{path}' does not fit {what} ({len(missing)} weights missing, {len(foreign)} foreign, "
            f"{len(misshapen)} of another shape, such as '{example}'); choose the matching model or file.",
        )
    for name, value in state.items():
        # The extremes are NaN where any number is, and take one quick pass over each of up to 2.5 GB of weights.
        if value.numel() and not torch.stack(value.float().aminmax()).isfinite().all():
            raise RefSAMError(
                "checkpoint",
                f"'{path}' holds weights that are no finite numbers, such as '{name}'; train or download it again, or "
                "choose another file.",
            )
    module.load_state_dict(state)
