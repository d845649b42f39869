"""Command line flags that the accuracy benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from refsam_qgis.engine.evaluation.protocol import LEARNED_METHODS, RANDOM_FOREST
from refsam_qgis.engine.job import MODELS, ModelOptions

RECORDS = Path(__file__).parent / "records"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose methods, network and weights."""
    methods = (*LEARNED_METHODS, RANDOM_FOREST)
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--model", choices=MODELS, default=ModelOptions.model)
    parser.add_argument("--checkpoint", help="SAM weights; not needed for the bundled model")
    parser.add_argument("--adapters", help="RefSAM adapters; not needed for the bundled model")
    parser.add_argument("--device", default=ModelOptions.device)


def model_options(arguments: argparse.Namespace) -> ModelOptions:
    """Return the network that parsed arguments ask for; each method is filled in when it runs."""
    return ModelOptions(arguments.model, arguments.checkpoint, arguments.adapters, "auto", arguments.device)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Lay out a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(ratio: float | None) -> str:
    """Show a ratio in percent; an undefined one as a dash."""
    return "–" if ratio is None else f"{100 * ratio:.1f}"
