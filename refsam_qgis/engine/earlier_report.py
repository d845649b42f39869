"""What earlier runs said of themselves, read again. Standard library only: the QGIS process imports this module too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import RefSAMError


def read_report(path: str) -> dict[str, Any]:
    """Return a report, empty if there is none or it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            report = json.load(stream)
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def card_path(adapters: str) -> str:
    """Return where the card of adapters goes, beside their file.

    Nobody is asked whether that may be replaced, so only the card of an earlier training is.

    Args:
        adapters: The file of the adapters.

    Raises:
        RefSAMError: With code ``input`` when something else has that name.
    """
    card = str(Path(adapters).with_suffix(".json"))
    if os.path.lexists(card) and not _is_card(read_report(card)):
        raise RefSAMError(
            "input",
            f"'{card}' is no card of adapters, and that of '{adapters}' would replace it; choose another name for the "
            "adapters.",
        )
    return card


def _is_card(report: dict[str, Any]) -> bool:
    """Whether a report is that of a training."""
    job = report.get("job")
    return "refsam" in report and isinstance(job, dict) and job.get("kind") == "train"
