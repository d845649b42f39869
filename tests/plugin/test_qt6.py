"""The plugin is ready for Qt 6, and the check that says so finds what is not."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_qt6.py"


@pytest.fixture(scope="module")
def check_qt6():
    specification = importlib.util.spec_from_file_location("check_qt6", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["check_qt6"] = module  # its dataclass looks there
    specification.loader.exec_module(module)
    yield module
    del sys.modules["check_qt6"]


@pytest.fixture
def problems(check_qt6, tmp_path):
    def find(code):
        file = tmp_path / "planted.py"
        file.write_text(code, encoding="utf-8")
        return [(finding.line, finding.problem) for finding in check_qt6.check([file])]

    return find


def test_the_plugin_is_ready(check_qt6):
    files = check_qt6.host_files()
    assert {"plugin.py", "provider.py", "base.py", "qgis_compat.py", "feedback.py"} <= {file.name for file in files}
    assert check_qt6.check(files) == []


@pytest.mark.parametrize(
    ("code", "line", "sentence"),
    [
        ("from PyQt5.QtCore import Qt", 1, "import from qgis.PyQt"),
        ("import os\nimport PyQt6.QtCore", 2, "import from qgis.PyQt"),
        ("from PyQt6 import QtCore", 1, "import from qgis.PyQt"),
        ("def show(dialog):\n    dialog.exec_()", 2, "call exec()"),
        ("from qgis.PyQt.QtCore import Qt\nx = Qt.AlignCenter", 2, "PyQt6 has no 'PyQt6.QtCore.Qt.AlignCenter'"),
        ("from qgis.PyQt.QtCore import Qt as Q\nx = [Q.AlignCenter]", 2, "no 'PyQt6.QtCore.Qt.AlignCenter'"),
        ("from qgis.PyQt import QtCore\nx = QtCore.QVariant.String", 2, "no 'PyQt6.QtCore.QVariant.String'"),
        ("from qgis.PyQt.QtWidgets import QAction", 1, "PyQt6 has no 'PyQt6.QtWidgets.QAction'"),
        ("import qgis.PyQt.QtCore\nqgis.PyQt.QtCore.Qt.Checked", 2, "no 'PyQt6.QtCore.Qt.Checked'"),
        ("from qgis.core import QgsProcessing\nx = QgsProcessing.TypeRaster", 2, "outside its enum"),
        ("from qgis.core import Qgis\nx = Qgis.Warning", 2, "write Qgis.MessageLevel.Warning"),
        ("import qgis.core as c\nx = c.QgsWkbTypes.Polygon", 2, "outside its enum"),
        ("from qgis.core import QgsNothing", 1, "QGIS has no 'qgis.core.QgsNothing'"),
        ("def late():\n    from qgis.PyQt.QtCore import Qt\n    return Qt.AlignCenter", 3, "Qt.AlignCenter"),
    ],
)
def test_a_planted_problem_is_found(problems, code, line, sentence):
    ((found_line, problem),) = problems(code)
    assert found_line == line and sentence in problem


def test_the_same_written_well_passes(problems):
    assert not problems(
        "import os\n"
        "import qgis.PyQt.QtCore\n"
        "from qgis.PyQt import QtGui, QtWidgets\n"
        "from qgis.PyQt.QtCore import QMetaType, Qt, pyqtSignal\n"
        "from qgis.core import Qgis, QgsProcessing, QgsProcessingParameterNumber as Number\n"
        "x = Qt.AlignmentFlag.AlignCenter, QtGui.QAction, QtWidgets.QDialog.DialogCode.Accepted.value\n"
        "x = QMetaType.Type.QString, qgis.PyQt.QtCore.Qt.CheckState.Checked, os.path.AlignCenter\n"
        "x = Qgis.MessageLevel.Warning, Number.Type.Double, QgsProcessing.SourceType.TypeRaster\n"
        "QtWidgets.QDialog().exec()\n"
    )


def test_versions_are_told_apart_in_one_file_alone(check_qt6, monkeypatch, tmp_path):
    file = tmp_path / "names.py"
    file.write_text("from qgis.PyQt import QtCore\nx = QtCore.QVariant.String\n", encoding="utf-8")
    assert len(check_qt6.check([file])) == 1
    monkeypatch.setattr(check_qt6, "COMPATIBILITY", file)
    assert check_qt6.check([file]) == []


def test_two_qt_bindings_never_meet(check_qt6):
    check_qt6.check(check_qt6.host_files())
    assert "PyQt6" not in sys.modules
