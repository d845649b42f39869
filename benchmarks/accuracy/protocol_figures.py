"""The protocol's figures, read out of its record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refsam_qgis.engine.evaluation.calibration import Reliability
from refsam_qgis.engine.evaluation.metrics import mean_defined
from refsam_qgis.engine.job import PROTOCOL_METHODS

from .data_sets import FOLDERS, FOLDS, REAL
from .options import markdown_table, percent

Cell = dict[str, dict[str, Any]]
RIVAL = "random_forest"
"""The summary names each method's mIoU as a multiple of this one's."""


@dataclass(frozen=True)
class Row:
    """One method on one data set with so many references so marked; means over the folds of the data set."""

    dataset: str
    shots: int
    support: str
    method: str
    miou: float
    fb_iou: float
    reliability: Reliability
    seconds_per_image: float
    seconds_per_reference_set: float
    episodes: int
    seen: bool
    """Whether the weights were trained on these images."""

    @property
    def title(self) -> str:
        """The data set's name, and whether training saw it."""
        return f"{self.dataset} (trained on it)" if self.seen else self.dataset


def rows(cells: Iterable[Cell]) -> list[Row]:
    """Put the folds of each data set together; one whose folds are not all measured is left out.

    Args:
        cells: Cells of the protocol table.

    Returns:
        By data set, shots, support and method.
    """
    groups: dict[tuple[str, int, str, str], list[Cell]] = {}
    for cell in cells:
        key = cell["key"]
        groups.setdefault((key["dataset"], key["shots"], key["support"], key["method"]), []).append(cell)
    order = (list(FOLDERS), None, None, list(PROTOCOL_METHODS))

    def place(group: tuple[Any, ...]) -> list[Any]:
        return [value if names is None else names.index(value) for value, names in zip(group, order, strict=True)]

    return [_row(*group, groups[group]) for group in sorted(groups, key=place) if _complete(group[0], groups[group])]


def _complete(dataset: str, cells: list[Cell]) -> bool:
    return len(cells) == len(FOLDS.get(dataset, (None,)))


def _row(dataset: str, shots: int, support: str, method: str, cells: list[Cell]) -> Row:
    results = [cell["result"] for cell in cells]
    reliability = Reliability()
    for result in results:
        reliability.merge(
            Reliability(
                np.array(result["bin_counts"]), np.array(result["bin_positives"]), np.array(result["bin_sums"]),
                result["squares"],
            )
        )  # fmt: skip

    def mean(name: str) -> float:
        return mean_defined([float("nan") if result[name] is None else result[name] for result in results])

    return Row(
        dataset, shots, support, method, mean("miou"), mean("fb_iou"), reliability, mean("seconds_per_image"),
        mean("seconds_per_reference_set"), sum(c["settings"]["episodes"] * c["settings"]["runs"] for c in cells),
        any(cell["settings"]["trained_on_it"] for cell in cells),
    )  # fmt: skip


def table(cells: Iterable[Cell]) -> str:
    """Lay out all figures, a method a line."""
    header = [
        "data", "shots", "support", "method", "mIoU %", "FB-IoU %", "ECE %", "s/image", "s/references", "episodes",
    ]  # fmt: skip
    lines = [
        [
            row.title, str(row.shots), row.support, row.method, percent(row.miou), percent(row.fb_iou),
            percent(row.reliability.ece), f"{row.seconds_per_image:.2f}", f"{row.seconds_per_reference_set:.2f}",
            str(row.episodes),
        ]
        for row in rows(cells)
    ]  # fmt: skip
    return markdown_table(header, lines)


def summary_table(cells: Iterable[Cell]) -> str:
    """Lay out the mIoU on the real data sets alone, a method a line, beside their mean and its multiple of the rival's.

    A mean or multiple is given where all the data sets were measured.
    """
    figures: dict[tuple[int, str], dict[str, dict[str, Row]]] = {}
    for row in rows(cells):
        figures.setdefault((row.shots, row.support), {}).setdefault(row.method, {})[row.dataset] = row
    header = ["shots", "support", "method", *(f"{name} mIoU %" for name in REAL), "mean", f"÷ {RIVAL}"]
    lines = []
    for (shots, support), methods in figures.items():
        rival = _mean_real(methods.get(RIVAL, {}))
        for method, found in methods.items():
            mean = _mean_real(found)
            ratio = f"{mean / rival:.2f}" if mean is not None and rival else "–"
            shown = [_shown(found.get(name)) for name in REAL]
            lines.append([str(shots), support, method, *shown, percent(mean), ratio])
    return markdown_table(header, lines) + "\n\n°: trained on it"


def _mean_real(found: dict[str, Row]) -> float | None:
    return float(np.mean([found[name].miou for name in REAL])) if set(REAL) <= set(found) else None


def _shown(row: Row | None) -> str:
    return "–" if row is None else percent(row.miou) + "°" * row.seen
