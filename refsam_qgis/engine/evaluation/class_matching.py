"""Which class of the result is which of the truth."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RefSAMError
from ..events import Reporter
from ..references.marks import MAX_CLASSES
from .layers import Layer, LoneClass

ON = 255
"""What masks of one class hold where it is, when not 1."""


@dataclass(frozen=True)
class MatchedClasses:
    """The classes that are compared.

    Attributes:
        names: Name of class 1, 2, …: those of the truth, then those of the result alone.
        truth: Class of each name the truth uses.
        result: Class of each name the result uses.
        truth_only: Names that the result does not know.
        result_only: Names that the truth does not know.
    """

    names: list[str]
    truth: dict[str, int]
    result: dict[str, int]
    truth_only: list[str]
    result_only: list[str]


def match_classes(result: Layer, truth: Layer, reporter: Reporter) -> MatchedClasses:
    """Match by name, whatever the case; two lone classes also where one of them has no name of its own.

    Args:
        result: What was found, after it was prepared.
        truth: What is there, after it was prepared.
        reporter: Hears of classes that only one of them has, and of lone classes that were matched.

    Raises:
        RefSAMError: With code ``input`` when the truth has no class, the two have none in common, or together more than
            `MAX_CLASSES`.
    """
    true_keys = {name: name.strip().casefold() for name in truth.classes}
    found_keys = {name: name.strip().casefold() for name in result.classes}
    if not true_keys:
        raise RefSAMError("input", f"The truth '{truth.path}' shows no class there; there is nothing to compare with.")
    if found_keys and not set(true_keys.values()) & set(found_keys.values()):
        if truth.lone is not None and result.lone is not None and _may_be_one(truth.lone, result.lone):
            return _match_lone(result.lone, truth.lone, reporter)
        raise RefSAMError(
            "input",
            f"No class of the result ({', '.join(found_keys)}) is one of the truth ({', '.join(true_keys)}); rename "
            "them, or name the classes of rasters.",
        )
    names: dict[str, str] = {}
    for name, key in (*true_keys.items(), *found_keys.items()):
        names.setdefault(key, name)
    if len(names) > MAX_CLASSES:
        raise RefSAMError(
            "input",
            f"The result '{result.path}' and the truth '{truth.path}' have {len(names)} different classes together, "
            f"but at most {MAX_CLASSES} can be compared; give class ids or names, not numbers of objects.",
        )
    number = {key: i for i, key in enumerate(names, 1)}
    truth_only = [name for name, key in true_keys.items() if key not in found_keys.values()]
    result_only = [name for name, key in found_keys.items() if key not in true_keys.values()]
    if truth_only:
        reporter.log(f"The result has no class {', '.join(truth_only)}; they count as missed.")
    if result_only:
        reporter.log(f"The truth has no class {', '.join(result_only)}; all that was found of them counts as wrong.")
    return MatchedClasses(
        list(names.values()),
        {name: number[key] for name, key in true_keys.items()},
        {name: number[key] for name, key in found_keys.items()},
        truth_only,
        result_only,
    )


def _may_be_one(one: LoneClass, other: LoneClass) -> bool:
    """Whether lone classes that are called differently can be the same: a number says something as a name does."""
    if one.named and other.named:
        return False
    if ON in (one.number, other.number) or None in (one.number, other.number):
        return True
    return one.number == other.number


def _match_lone(result: LoneClass, truth: LoneClass, reporter: Reporter) -> MatchedClasses:
    reporter.log(
        f"The only class of the result, '{result.name}', is taken for the only one of the truth, '{truth.name}'."
    )
    name = result.name if result.named else truth.name
    return MatchedClasses([name], {truth.name: 1}, {result.name: 1}, [], [])
