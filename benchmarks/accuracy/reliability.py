"""Whether probabilities mean what they say: calibration errors and a reliability picture out of the protocol's record.

    python -m benchmarks.accuracy.reliability [--methods virefsam random_forest] [--shots 1] [--support mask]

`protocol_table` counts the probabilities of every cell; this draws what it counted. The scenes are unseen, but for
those marked otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refsam_qgis.engine.evaluation.calibration import BINS
from refsam_qgis.engine.job import PROTOCOL_METHODS, SUPPORTS

from .cells import Cells
from .options import RECORDS, markdown_table, percent
from .protocol_figures import Row, rows
from .protocol_table import RECORD

METHODS = ("virefsam", "fitted", "training_free", "random_forest")
PANEL = 3.2
"""Width of a panel in inches."""


def main() -> None:
    """Print the table and draw the picture."""
    arguments = _parse()
    found = [
        row
        for row in rows(Cells(arguments.record))
        if (row.shots, row.support) == (arguments.shots, arguments.support) and row.method in arguments.methods
    ]
    if not found:
        sys.exit(f"'{arguments.record}' holds none of these cells; measure them with protocol_table first.")
    print(_table(found))
    draw_reliability(found, arguments.picture)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Calibration errors and reliability picture.")
    parser.add_argument("--methods", nargs="+", choices=PROTOCOL_METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--shots", type=int, default=1)
    parser.add_argument("--support", choices=SUPPORTS, default="mask")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON of protocol_table")
    parser.add_argument("--picture", type=Path, default=RECORDS / "reliability.png", help="PNG to write")
    return parser.parse_args()


def _table(found: Sequence[Row]) -> str:
    rows = [
        [row.title, row.method, percent(row.reliability.ece), f"{row.reliability.brier:.4f}", f"{_size(row):.1f}"]
        for row in found
    ]
    return markdown_table(["data", "method", "ECE %", "Brier score", "million pixels"], rows)


def _size(row: Row) -> float:
    return float(row.reliability.counts.sum()) / 1e6


def draw_reliability(found: Sequence[Row], path: Path) -> None:
    """Draw a panel a data set: how often the class is there against its probability, and how many pixels say so.

    Args:
        found: What to draw, by data set.
        path: PNG to write.
    """
    datasets = list(dict.fromkeys(row.dataset for row in found))
    figure = Figure(figsize=(PANEL * len(datasets), 1.7 * PANEL), layout="constrained")
    axes = figure.subplots(2, len(datasets), height_ratios=(3, 1), sharex=True, sharey="row", squeeze=False)
    for (curve, histogram), dataset in zip(axes.T, datasets, strict=True):
        curve.plot((0, 1), (0, 1), color="0.75", linewidth=1)
        for row in (row for row in found if row.dataset == dataset):
            _draw(curve, histogram, row)
        curve.legend(title=dataset, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, alignment="left")
        curve.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        histogram.set(xlabel="probability", yscale="log", ylim=(1e-5, 1))
    axes[0, 0].set_ylabel("share of the class")
    axes[1, 0].set_ylabel("share of pixels")
    figure.savefig(path, dpi=100, bbox_inches="tight")


def _draw(curve: Axes, histogram: Axes, row: Row) -> None:
    reliability, colour = row.reliability, f"C{PROTOCOL_METHODS.index(row.method)}"
    shown = reliability.counts > 0
    mean, frequency = reliability.mean_probability[shown], reliability.frequency[shown]
    label = f"{row.method}: ECE {100 * reliability.ece:.1f} %{' (trained on it)' if row.seen else ''}"
    curve.plot(mean, frequency, "o-", color=colour, markersize=3, clip_on=False, label=label)
    shares = np.append(reliability.counts, reliability.counts[-1]) / reliability.counts.sum()
    histogram.step(np.linspace(0, 1, BINS + 1), shares, where="post", color=colour)


if __name__ == "__main__":
    main()
