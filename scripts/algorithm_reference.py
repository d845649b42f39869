"""Describes RefSAM's algorithms as Markdown, from what they declare to QGIS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsProcessingAlgorithm, QgsProcessingParameterDefinition

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- begin algorithms: written by scripts/document_algorithms -->\n"
END = "<!-- end algorithms -->\n"


def describe_provider(provider: Any) -> str:
    """Return one Markdown section for each algorithm of the provider."""
    return "\n".join(
        describe(algorithm)
        for algorithm in sorted(provider.algorithms(), key=lambda a: (a.group(), a.name()))
        if algorithm.groupId() != "Examples"
    )


def describe(algorithm: QgsProcessingAlgorithm) -> str:
    """Return the Markdown of one algorithm: what it does, its parameters, its outputs."""
    lines = [f"#### {algorithm.displayName()} (`{algorithm.id()}`)", "", algorithm.shortDescription(), ""]
    lines += ["| parameter | what it is | default |", "|---|---|---|"]
    lines += [_row(parameter) for parameter in algorithm.parameterDefinitions()]
    given = {parameter.name() for parameter in algorithm.parameterDefinitions()}
    others = [f"`{o.name()}` ({o.description()})" for o in algorithm.outputDefinitions() if o.name() not in given]
    if others:
        lines += ["", f"Besides, it returns {', '.join(others)}."]
    return "\n".join([*lines, ""])


def updated(text: str, reference: str) -> str:
    """Return the README's text with its section of algorithms replaced."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + reference + END + after


def _row(parameter: QgsProcessingParameterDefinition) -> str:
    flags = parameter.flags()
    advanced = flags & QgsProcessingParameterDefinition.Flag.FlagAdvanced
    text = parameter.help().replace("|", "\\|").replace("\n", " ")
    name = f"`{parameter.name()}`" + ("" if not advanced else " ᵃ")
    return f"| {name} | {parameter.description()}. {text} | {_default(parameter)} |"


def _default(parameter: QgsProcessingParameterDefinition) -> str:
    if parameter.isDestination():
        return "output" if not parameter.flags() & _OPTIONAL else "optional output"
    value = parameter.defaultValue()
    if value is None or value == "":
        return "optional" if parameter.flags() & _OPTIONAL else "needed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)


_OPTIONAL = QgsProcessingParameterDefinition.Flag.FlagOptional


def main() -> int:
    """Write the README's section."""
    application = QgsApplication([], False)
    application.initQgis()
    from refsam_qgis.provider import RefSAMProvider

    provider = RefSAMProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    README.write_text(updated(README.read_text(encoding="utf-8"), describe_provider(provider)), encoding="utf-8")
    QgsApplication.processingRegistry().removeProvider(provider)
    return 0


if __name__ == "__main__":
    sys.exit(main())
