"""From probabilities to objects."""

from __future__ import annotations

from ...engine.job import SegmentJob
from ..base import RefSAMAlgorithm
from ..values import Values

THRESHOLD = "THRESHOLD"
SEPARATE = "SEPARATE"


def declare(algorithm: RefSAMAlgorithm) -> None:
    """Declare the parameters."""
    tr = algorithm.tr
    algorithm.add_number(
        THRESHOLD,
        tr("Threshold"),
        SegmentJob.threshold,
        tr("Probability from which a pixel belongs to a class."),
        maximum=1,
    )
    algorithm.add_number(
        SEPARATE,
        tr("Separate touching objects"),
        SegmentJob.separate,
        tr(
            "Objects that touch are cut apart where the probability between them falls by at least this, such as 0.2; "
            "0 leaves them together."
        ),
        maximum=1,
    )


def threshold(values: Values) -> float:
    """Return the probability from which a pixel belongs to a class, 0..1."""
    return values.number(THRESHOLD)


def separate(values: Values) -> float:
    """Return by how much the probability falls where touching objects are cut apart, 0..1."""
    return values.number(SEPARATE)
