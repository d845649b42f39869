"""The installer of the engine, run from QGIS's window."""

from __future__ import annotations

from qgis.PyQt.QtCore import QObject, QProcess, QProcessEnvironment, pyqtSignal

from ..engine.errors import RefSAMError
from ..host.base_python import INSTALLER, find_base_python
from ..host.engine import close_shared_client, is_busy
from ..host.environment import engine_environment

TO_PUT_BACK = 5000
"""Milliseconds that the installer has to end by itself."""


class SetUp(QObject):
    """Runs the installer in the background, on while the page that started it is closed, and keeps what it says.

    Signals:
        changed: It has said something, begun or ended.
    """

    changed = pyqtSignal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.log = ""
        self._process = QProcess(self)
        self._process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        self._process.readyReadStandardOutput.connect(self._read)
        self._process.finished.connect(self.changed)
        self._process.errorOccurred.connect(self.changed)

    def is_running(self) -> bool:
        """Whether the installer is at work."""
        return self._process.state() != QProcess.ProcessState.NotRunning

    def start(self) -> None:
        """Begin; the engine ends, whose files are replaced.

        Raises:
            RefSAMError: With code ``environment`` when the engine is at work, or there is no Python to begin with.
        """
        if is_busy():
            raise RefSAMError("environment", "RefSAM is at work; set its engine up when all runs have ended.")
        environ = engine_environment()
        base = find_base_python(environ)
        close_shared_client()
        self.log = ""
        variables = QProcessEnvironment()
        for name, value in {**environ, "PYTHONUNBUFFERED": "1"}.items():
            variables.insert(name, value)
        self._process.setProcessEnvironment(variables)
        self._process.start(base[0], [*base[1:], str(INSTALLER)])
        self.changed.emit()

    def stop(self) -> None:
        """End the installer, which puts back what was there."""
        self._process.terminate()
        if self.is_running() and not self._process.waitForFinished(TO_PUT_BACK):
            self._process.kill()

    def _read(self) -> None:
        self.log += bytes(self._process.readAllStandardOutput()).decode("utf-8", "replace")
        self.changed.emit()
