"""``refsam:enginestatus``: what is installed, where it runs, whether it works, and how to mend what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
)

from ..engine.errors import JobCancelled, RefSAMError
from ..engine.job import StatusJob
from ..host.engine import engine_python
from .base import RefSAMAlgorithm
from .parameters import model
from .values import Values


class EngineStatus(RefSAMAlgorithm):
    """Reports on the engine, above all when it does not work."""

    GROUP = "engine"

    REPORT = "REPORT"
    ENGINE_VERSION = "ENGINE_VERSION"
    DEVICE_USED = "DEVICE_USED"
    SELF_TEST = "SELF_TEST"
    PROBLEM_COUNT = "PROBLEM_COUNT"
    PROBLEMS = "PROBLEMS"

    def name(self) -> str:
        """Public id; models and scripts store it."""
        return "enginestatus"

    def displayName(self) -> str:
        """Name in the toolbox."""
        return self.tr("Engine status")

    def tags(self) -> list[str]:
        """Words that find the algorithm in the toolbox."""
        words = "installation,environment,versions,device,cuda,gpu,self-test,diagnosis,troubleshooting,problem,help"
        return self.tr(words).split(",")

    def shortDescription(self) -> str:
        """One line for the toolbox."""
        return self.tr("Tells what is installed, which device is used, whether it works and how to mend it.")

    def help_text(self) -> str:
        """Return what the algorithm does."""
        return self.tr(
            "Looks at RefSAM's engine: its Python environment, the versions in it, the devices, and the weights of "
            "the model. A self-test then runs the model on a small drawing, from reading a raster to writing polygons. "
            "Whatever does not work is named, together with how to mend it.\n\n"
            "It can always be run, with or without an engine. Its report is what to send along with a question."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        """Declare parameters and outputs."""
        model.declare(self, references=False)
        self.add(
            QgsProcessingParameterFile(
                model.ADAPTERS, self.tr("Adapters"), optional=True, fileFilter=self.tr("Adapters (*.safetensors)")
            ),
            self.tr("Trained adapters to be tried with the model."),
            advanced=True,
        )
        filters = self.tr("HTML files (*.html);;JSON files (*.json)")
        self.add(
            QgsProcessingParameterFileDestination(self.REPORT, self.tr("Report"), filters, optional=True),
            self.tr("All that was found out, as a page to read or, with a name that ends in .json, as data."),
        )
        self.addOutput(QgsProcessingOutputString(self.ENGINE_VERSION, self.tr("Version of the engine")))
        self.addOutput(QgsProcessingOutputString(self.DEVICE_USED, self.tr("Device used")))
        self.addOutput(QgsProcessingOutputString(self.SELF_TEST, self.tr("Self-test: passed, failed or not run")))
        self.addOutput(QgsProcessingOutputNumber(self.PROBLEM_COUNT, self.tr("Number of problems")))
        self.addOutput(QgsProcessingOutputString(self.PROBLEMS, self.tr("Problems, one a line")))

    def canExecute(self) -> tuple[bool, str]:
        """Always: a missing engine is what it reports."""
        return True, ""

    def problem(self, values: Values) -> str:
        """Return what would fail in the run."""
        return model.problem(values)

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Ask the engine, or tell why it does not answer."""
        options = replace(model.read(values, references=False), adapters=values.file(model.ADAPTERS))
        status: dict[str, Any] = {"qgis": Qgis.QGIS_VERSION}
        try:
            status["executable"] = str(engine_python())
            status.update(self.run_in_engine(StatusJob(options), feedback))
        except JobCancelled:
            raise
        except RefSAMError as error:
            status["problems"] = [str(error)]
        for label, text in self._facts(status):
            feedback.pushInfo(f"{label}: {text}")
        for note in status.get("notes", []):
            feedback.pushWarning(note)
        for problem in status["problems"]:
            feedback.reportError(problem)
        if not status["problems"]:
            feedback.pushInfo(self.tr("Everything works."))
        report = values.output_file(self.REPORT)
        if report:
            self._write(Path(report), status)
        return {
            **({self.REPORT: report} if report else {}),
            self.ENGINE_VERSION: status.get("version", ""),
            self.DEVICE_USED: status.get("self_test", {}).get("device", ""),
            self.SELF_TEST: _outcome(status),
            self.PROBLEM_COUNT: len(status["problems"]),
            self.PROBLEMS: "\n".join(status["problems"]),
        }

    def _facts(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        """Return labels and texts of what is known, in the order in which a person reads them."""
        tr = self.tr
        facts = [(tr("QGIS"), status["qgis"])]
        if "version" in status:
            facts.append((tr("RefSAM"), status["version"]))
        if "executable" in status:
            facts.append(
                (tr("Python of the engine"), " ".join([status.get("python", ""), status["executable"]]).strip())
            )
        if "packages" in status:
            versions = [f"{name} {version or tr('missing')}" for name, version in status["packages"].items()]
            facts.append((tr("Packages"), ", ".join(versions)))
            facts.append((tr("Devices"), ", ".join(map(_device, status["devices"])) or tr("none")))
            facts.append((tr("Model"), _model(status["model"])))
        test = status.get("self_test", {})
        outcome = tr(_outcome(status))
        if test.get("passed"):
            outcome = tr("{} on {} in {} s").format(outcome, test["device"], test["seconds"])
        facts.append((tr("Self-test"), outcome))
        return facts

    def _write(self, path: Path, status: dict[str, Any]) -> None:
        """Write the report as its name asks.

        Raises:
            RefSAMError: With code ``disk``.
        """
        if path.suffix.lower() == ".json":
            text = json.dumps(status, ensure_ascii=False, indent=2)
        else:
            text = self._page(status)
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RefSAMError(
                "disk", f"'{path}' cannot be written ({error.strerror}); choose another place."
            ) from error

    def _page(self, status: dict[str, Any]) -> str:
        rows = "".join(
            f"<tr><th align='left'>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in self._facts(status)
        )
        parts = [f"<h1>{escape(self.tr('RefSAM: engine status'))}</h1>"]
        for title, sentences in ((self.tr("Problems"), status["problems"]), (self.tr("Notes"), status.get("notes"))):
            if sentences:
                items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
                parts.append(f"<h2>{escape(title)}</h2><ul>{items}</ul>")
        if not status["problems"]:
            parts.append(f"<p>{escape(self.tr('Everything works.'))}</p>")
        body = f"{''.join(parts)}<table>{rows}</table>"
        return f"<!DOCTYPE html><html><head><meta charset='utf-8'></head><body>{body}</body></html>"


def _outcome(status: dict[str, Any]) -> str:
    if "self_test" not in status:
        return "not run"
    return "passed" if status["self_test"]["passed"] else "failed"


def _device(device: dict[str, Any]) -> str:
    memory = device.get("memory_bytes")
    return f"{device['device']} ({device['name']}{f', {memory / 2**30:.0f} GiB' if memory else ''})"


def _model(described: dict[str, Any]) -> str:
    """Return the model's names and the beginnings of its digests."""
    files = [
        f"{described[part]} ({str(described[f'{part}_sha256'])[:12]}…)"
        for part in ("checkpoint", "adapters")
        if described.get(part)
    ]
    return ", ".join([described["model"], *filter(None, [described.get("method")]), *files])
