"""Command line flags that the accuracy benchmarks share, and how they lay out their tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.job import MAX_SEED, MODELS, PROTOCOL_METHODS, ModelOptions

RECORDS = Path(__file__).parent / "records"


def count(text: str) -> int:
    """Read a number of episodes, runs or the like off the command line; at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; give 1 or more")
    return number


def seed(text: str) -> int:
    """Read a seed that every method takes off the command line."""
    number = int(text)
    if not 0 <= number <= MAX_SEED:
        raise argparse.ArgumentTypeError(f"{number} is no seed; give 0 to {MAX_SEED}")
    return number


def record_path(text: str) -> Path:
    """Read where a record is kept off the command line: a missing folder is to be told before hours of measuring."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"the folder '{path.parent}' does not exist; make it first")
    return path


def add_model(parser: argparse.ArgumentParser, methods: Sequence[str] = PROTOCOL_METHODS) -> None:
    """Add the flags that choose methods, network and weights."""
    parser.add_argument("--methods", nargs="+", choices=PROTOCOL_METHODS, default=list(methods), metavar="METHOD")
    parser.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    parser.add_argument("--checkpoint", help="SAM weights; not needed for the bundled model")
    parser.add_argument("--adapters", help="RefSAM adapters; not needed for the bundled model")
    parser.add_argument("--device", default=ModelOptions.device)


def add_fold_weights(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names weights for the folds of the training data."""
    parser.add_argument(
        "--fold-weights",
        type=Path,
        metavar="DIR",
        help="folder of SCENE_CLASS/compact_sam.safetensors and compact_adapters.safetensors, made by trainings that "
        "went without that scene and that class",
    )


def model_options(arguments: argparse.Namespace) -> ModelOptions:
    """Return the network that parsed arguments ask for; each method is filled in when it runs."""
    return ModelOptions(arguments.model, arguments.checkpoint, arguments.adapters, "auto", arguments.device)


def fold_options(model: ModelOptions, fold_weights: Path, fold: str) -> ModelOptions:
    """Return the compact model with the weights of a fold.

    Raises:
        RefSAMError: With code ``checkpoint`` if they are not there.
    """
    checkpoint, adapters = (fold_weights / fold / f"compact_{part}.safetensors" for part in ("sam", "adapters"))
    for path in (checkpoint, adapters):
        if not path.is_file():
            raise RefSAMError(
                "checkpoint",
                f"'{path}' is not there; train without that scene and class, or leave out --fold-weights.",
            )
    return replace(model, model="compact", checkpoint=str(checkpoint), adapters=str(adapters))


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(ratio: float | None) -> str:
    """Show a ratio in percent; an undefined one as a dash."""
    return "–" if ratio is None else f"{100 * ratio:.1f}"
