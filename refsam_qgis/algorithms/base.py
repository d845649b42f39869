"""What RefSAM's algorithms have in common."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterDefinition,
)
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtGui import QIcon

from ..engine.errors import JobCancelled, RefSAMError
from ..engine.job import Job, to_dict
from ..host.engine import engine_python, shared_client
from ..host.feedback import FeedbackReporter


class RefSAMAlgorithm(QgsProcessingAlgorithm):
    """Turns parameters into a job, runs it in the engine and hands over its outputs, off the main thread."""

    def tr(self, text: str) -> str:
        """Translate `text`."""
        return QCoreApplication.translate("RefSAM", text)

    def createInstance(self) -> RefSAMAlgorithm:
        """Return a fresh algorithm of the same class."""
        return type(self)()

    def icon(self) -> QIcon:
        """The provider's icon."""
        return self.provider().icon() if self.provider() else super().icon()

    def canExecute(self) -> tuple[bool, str]:
        """Whether the engine is installed, and what to do when it is not."""
        try:
            engine_python()
        except RefSAMError as error:
            return False, str(error)
        return True, ""

    def add(self, parameter: QgsProcessingParameterDefinition, help_text: str, advanced: bool = False) -> None:
        """Declare a parameter with its help, which is also its tooltip."""
        parameter.setHelp(help_text)
        if advanced:
            flag = QgsProcessingParameterDefinition.Flag.FlagAdvanced
            parameter.setFlags(parameter.flags() | flag)
        self.addParameter(parameter)

    def run_in_engine(self, job: Job, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        """Run `job` in the session's worker and return its result.

        Raises:
            QgsProcessingException: With the engine's sentence.
        """
        try:
            return shared_client().run(to_dict(job), FeedbackReporter(feedback))
        except JobCancelled as error:
            raise QgsProcessingException(self.tr("The run was cancelled; no output was written.")) from error
        except RefSAMError as error:
            raise QgsProcessingException(str(error)) from error
