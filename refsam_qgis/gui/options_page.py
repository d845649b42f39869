"""RefSAM's page of QGIS's options: whether the engine is there, its set-up, and another Python for it."""

from __future__ import annotations

from qgis.core import QgsSettings
from qgis.gui import QgsFileWidget, QgsOptionsPageWidget, QgsOptionsWidgetFactory
from qgis.PyQt.QtGui import QIcon
from qgis.PyQt.QtWidgets import QFormLayout, QLabel, QPlainTextEdit, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from ..engine.errors import RefSAMError
from ..engine.installation import default_python
from ..host.engine import PYTHON_SETTING, engine_python
from ..host.translation import tr
from ..provider import ICON
from .set_up import SetUp


class OptionsPage(QgsOptionsPageWidget):
    """The page; QGIS makes one each time that its options are opened.

    Args:
        set_up: Outlives the page.
        parent: Of the widget.
    """

    def __init__(self, set_up: SetUp, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("refsam")
        self._set_up = set_up
        self._state = QLabel(wordWrap=True)
        self._button = QPushButton(tr("Set up the engine"))
        self._button.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._button.clicked.connect(self._press)
        self._log = QPlainTextEdit(readOnly=True)
        self._python = QgsFileWidget()
        self._python.setFilePath(QgsSettings().value(PYTHON_SETTING, "", type=str))
        self._python.lineEdit().setPlaceholderText(str(default_python()))
        intro = QLabel(
            tr(
                "RefSAM computes with packages that QGIS does not have. They lie in a Python environment of their own, "
                "about 1.5 GB and more with CUDA, which is set up once and after updates that need other versions."
            ),
            wordWrap=True,
        )
        form = QFormLayout()
        form.addRow(self._button)
        form.addRow(tr("Another Python with RefSAM's packages"), self._python)
        layout = QVBoxLayout(self)
        layout.addWidget(intro)
        layout.addWidget(self._state)
        layout.addLayout(form)
        layout.addWidget(self._log, stretch=1)
        layout.addStretch()
        set_up.changed.connect(self._show)
        self._show()

    def apply(self) -> None:
        """Keep what was entered."""
        QgsSettings().setValue(PYTHON_SETTING, self._python.filePath().strip())

    def _press(self) -> None:
        try:
            self._set_up.start()
        except RefSAMError as error:
            self._state.setText(str(error))

    def _show(self) -> None:
        running = self._set_up.is_running()
        if running:
            self._state.setText(tr("The engine is being set up; downloads take some minutes. QGIS can be used."))
        else:
            self._state.setText(_engine_state())
        self._button.setEnabled(not running)
        self._log.setVisible(bool(self._set_up.log))
        self._log.setPlainText(self._set_up.log)
        self._log.verticalScrollBar().setValue(self._log.verticalScrollBar().maximum())


class OptionsFactory(QgsOptionsWidgetFactory):
    """Makes the page when QGIS's options are opened."""

    def __init__(self) -> None:
        super().__init__("RefSAM", QIcon(str(ICON)))
        self.set_up = SetUp()

    def createWidget(self, parent: QWidget | None = None) -> OptionsPage:
        """Return a new page."""
        return OptionsPage(self.set_up, parent)


def _engine_state() -> str:
    try:
        python = engine_python()
    except RefSAMError as error:
        return str(error)
    if python != default_python():
        return tr("{} is used as the engine, whatever is set up here: another Python was chosen for it.").format(python)
    return tr("The engine is there: {}. The algorithm Engine status tests it.").format(python)
