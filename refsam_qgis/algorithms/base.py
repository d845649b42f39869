"""What RefSAM's algorithms have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
)
from qgis.PyQt.QtGui import QIcon

from ..engine.errors import RefSAMError
from ..engine.job import Job, to_dict
from ..host.engine import engine_python, shared_client
from ..host.feedback import FeedbackReporter
from ..host.qgis_compat import ADVANCED, DOUBLE
from ..host.translation import tr
from .engine_rasters import EngineRasters
from .engine_vectors import EngineVectors
from .files import overwritten_input, unreadable_raster, unreadable_vector, unusable_sink
from .origin import command_of
from .values import Values

GROUPS = {
    "segmentation": "Segmentation",
    "references": "References",
    "learning": "Learning and accuracy",
    "engine": "Engine",
}
"""Label of each group by its id, which is public and never translated."""


class RefSAMAlgorithm(QgsProcessingAlgorithm):
    """Turns parameters into a job, runs it in the engine and hands over its outputs, off the main thread.

    A subclass declares its parameters in `initAlgorithm` and fills in `help_text`, `problem`, `prepare` and `process`.

    Attributes:
        GROUP: Id of its group, a key of `GROUPS`.
        MAY_OVERWRITE: Names of inputs that an output may replace.
        EXPLAINED_BY_ENGINE: Names of optional inputs that may be damaged, since the engine says of each what is wrong.
        engine_rasters: Paths at which the engine reads the rasters of this run; there from `prepare` on.
        engine_vectors: The same of its vector layers.
    """

    GROUP = "segmentation"
    MAY_OVERWRITE: tuple[str, ...] = ()
    EXPLAINED_BY_ENGINE: tuple[str, ...] = ()
    engine_rasters: EngineRasters
    engine_vectors: EngineVectors

    def help_text(self) -> str:
        """Return the paragraphs that explain the algorithm; those about its parameters are added."""
        return ""

    def problem(self, values: Values) -> str:
        """Return a sentence on what would fail in the run, and how to mend it; empty when all is well."""
        return ""

    def prepare(self, values: Values) -> None:
        """Take what is needed from the layers while in their thread."""

    def process(self, values: Values, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run the job in the engine and return the outputs by name.

        Raises:
            QgsProcessingException: With a sentence for the user.
            RefSAMError: The same.
        """
        raise NotImplementedError

    def tr(self, text: str) -> str:
        """Translate `text`."""
        return tr(text)

    def createInstance(self) -> RefSAMAlgorithm:
        """Return a fresh algorithm of the same class."""
        return type(self)()

    def icon(self) -> QIcon:
        """The provider's icon."""
        return self.provider().icon() if self.provider() else super().icon()

    def svgIconPath(self) -> str:
        """The same, as the model designer draws it."""
        return self.provider().svgIconPath() if self.provider() else super().svgIconPath()

    def group(self) -> str:
        """Name of its group in the toolbox."""
        return self.tr(GROUPS[self.GROUP])

    def groupId(self) -> str:
        """Public id of its group."""
        return self.GROUP

    def shortHelpString(self) -> str:
        """Text beside the dialog: the algorithm, then what a first run asks for."""
        parameters = [
            f"{parameter.description()}: {parameter.help()}"
            for parameter in self.parameterDefinitions()
            if not parameter.flags() & ADVANCED
        ]
        return "\n\n".join([self.help_text(), *parameters])

    def canExecute(self) -> tuple[bool, str]:
        """Whether the engine is installed, and what to do when it is not."""
        try:
            engine_python()
        except RefSAMError as error:
            return False, str(error)
        return True, ""

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        """Refuse, before the run, what would fail in it."""
        values = Values(self, parameters, context)
        known = {name: value for name, value in values.parameters.items() if name not in self.EXPLAINED_BY_ENGINE}
        valid, message = super().checkParameterValues(known, context)
        if not valid:
            return False, unreadable_raster(values) or unreadable_vector(values) or message
        sentence = self._first_problem(values)
        return not sentence, sentence

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Let the algorithm `prepare`; scripts and models come here without a check."""
        values = Values(self, parameters, context)
        sentence = self._first_problem(values)
        if sentence:
            raise QgsProcessingException(sentence)
        self.engine_rasters, self.engine_vectors = EngineRasters(), EngineVectors()
        try:
            self.prepare(values)
            self._origin = command_of(values)
        except RefSAMError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        """Let the algorithm `process`."""
        try:
            return self.process(Values(self, parameters, context), feedback)
        except RefSAMError as error:
            raise QgsProcessingException(str(error)) from error

    def _first_problem(self, values: Values) -> str:
        try:
            return (
                unreadable_vector(values)
                or self.problem(values)
                or overwritten_input(values, self.MAY_OVERWRITE)
                or unusable_sink(values)
            )
        except (RefSAMError, QgsProcessingException) as error:
            return str(error)

    def add(self, parameter: QgsProcessingParameterDefinition, help_text: str, advanced: bool = False) -> None:
        """Declare a parameter with its help, which is also its tooltip."""
        parameter.setHelp(help_text)
        if advanced:
            parameter.setFlags(parameter.flags() | ADVANCED)
        self.addParameter(parameter)

    def add_choice(self, name: str, label: str, options: Sequence[str], help_text: str, advanced: bool = True) -> None:
        """Declare a choice among static strings, of which the first is the default."""
        parameter = QgsProcessingParameterEnum(
            name, label, list(options), defaultValue=options[0], usesStaticStrings=True
        )
        self.add(parameter, help_text, advanced)

    def add_number(
        self,
        name: str,
        label: str,
        default: float | None,
        help_text: str,
        minimum: float = 0,
        maximum: float | None = None,
        kind: Any = DOUBLE,
        advanced: bool = True,
    ) -> None:
        """Declare a number, optional without a default; `kind` is `DOUBLE` or `INTEGER` of `qgis_compat`."""
        parameter = QgsProcessingParameterNumber(name, label, kind, default, default is None, minValue=minimum)
        if maximum is not None:
            parameter.setMaximum(maximum)
        self.add(parameter, help_text, advanced)

    def run_in_engine(self, job: Job, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run `job`, with what it was made from, in the session's worker and return its result.

        Raises:
            RefSAMError: With the engine's sentence; `JobCancelled` when the user asked to stop.
        """
        document = to_dict(job)
        if "origin" in document:
            document["origin"] = self._origin
        try:
            return shared_client().run(document, FeedbackReporter(feedback, self.in_users_words))
        except RefSAMError as error:
            error.args = (self.in_users_words(str(error)),)
            raise

    def in_users_words(self, text: str) -> str:
        """Return a text of the engine in which rasters and layers are called as the user knows them."""
        return self.engine_vectors.with_layers(self.engine_rasters.with_files(text))
