"""RefSAM's page of QGIS's options, and the installer that it starts."""

import sys
from pathlib import Path

import pytest
from qgis.core import QgsSettings
from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import QCoreApplication, QEventLoop, QTimer
from qgis.PyQt.QtWidgets import QLabel, QPlainTextEdit, QPushButton

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.gui import set_up as set_up_module
from refsam_qgis.gui.options_page import OptionsFactory
from refsam_qgis.host.engine import PYTHON_SETTING
from refsam_qgis.plugin import RefSAMPlugin


class Interface:
    """QGIS's window, as far as the plugin asks it."""

    def __init__(self):
        self.pages = []

    def registerOptionsWidgetFactory(self, factory):
        self.pages.append(factory)

    def unregisterOptionsWidgetFactory(self, factory):
        self.pages.remove(factory)


@pytest.fixture
def home(qgis_app, monkeypatch, tmp_path):
    """Where the engine is looked for, and is not."""
    monkeypatch.delenv("REFSAM_ENGINE_PYTHON", raising=False)
    monkeypatch.setenv("REFSAM_HOME", str(tmp_path))
    QgsSettings().remove(PYTHON_SETTING)
    yield tmp_path
    QgsSettings().remove(PYTHON_SETTING)


@pytest.fixture
def factory(home):
    factory = OptionsFactory()
    yield factory
    factory.set_up.stop()


def install_by(monkeypatch, tmp_path, code):
    """Let the installer be a script of its own."""
    installer = tmp_path / "installer.py"
    installer.write_text(code, encoding="utf-8")
    monkeypatch.setattr(set_up_module, "INSTALLER", installer)
    monkeypatch.setattr(set_up_module, "find_base_python", lambda environ: [python()])


def python():
    """Return a Python that can be started; inside QGIS `sys.executable` may be none."""
    return sys.executable if Path(sys.executable).name.startswith("python") else "/usr/bin/python3"


def wait_until(condition, seconds=20):
    loop = QEventLoop()
    ticks = QTimer()
    ticks.timeout.connect(lambda: condition() and loop.quit())
    ticks.start(20)
    QTimer.singleShot(1000 * seconds, loop.quit)
    loop.exec()
    assert condition()


def texts(page):
    return " ".join(label.text() for label in page.findChildren(QLabel))


def test_it_says_whether_the_engine_is_there(factory, home):
    assert "not installed" in texts(factory.createWidget()) and str(home) in texts(factory.createWidget())
    (home / "env" / "bin").mkdir(parents=True)
    (home / "env" / "bin" / "python").touch()
    assert f"The engine is there: {home / 'env' / 'bin' / 'python'}" in texts(factory.createWidget())


def test_the_engine_is_set_up_while_the_page_may_be_closed(factory, home, monkeypatch):
    install_by(
        monkeypatch,
        home,
        "import os, pathlib, time\n"
        "print('Downloading torch ж')\n"
        "time.sleep(0.5)\n"
        "python = pathlib.Path(os.environ['REFSAM_HOME'], 'env', 'bin', 'python')\n"
        "python.parent.mkdir(parents=True)\n"
        "python.touch()\n"
        "assert 'QGIS_PREFIX_PATH' not in os.environ\n",
    )
    monkeypatch.setenv("QGIS_PREFIX_PATH", "/qgis")
    first = factory.createWidget()
    first.findChild(QPushButton).click()
    assert not first.findChild(QPushButton).isEnabled() and "is being set up" in texts(first)
    first.deleteLater()
    QCoreApplication.sendPostedEvents(None, 52)  # deferred deletions
    second = factory.createWidget()
    wait_until(lambda: not factory.set_up.is_running())
    assert second.findChild(QPlainTextEdit).toPlainText().strip() == "Downloading torch ж"
    assert "The engine is there" in texts(second) and second.findChild(QPushButton).isEnabled()


def test_what_the_installer_complains_of_is_shown(factory, home, monkeypatch):
    install_by(monkeypatch, home, "import sys\nsys.exit('The disk is full; make room.')\n")
    page = factory.createWidget()
    page.findChild(QPushButton).click()
    wait_until(lambda: not factory.set_up.is_running())
    assert "The disk is full; make room." in page.findChild(QPlainTextEdit).toPlainText()
    assert "not installed" in texts(page)


def test_what_it_cannot_begin_with_is_said(factory, monkeypatch):
    def find(environ):
        raise RefSAMError("environment", "No Python was found.")

    monkeypatch.setattr(set_up_module, "find_base_python", find)
    page = factory.createWidget()
    page.findChild(QPushButton).click()
    assert "No Python was found." in texts(page)
    assert page.findChild(QPushButton).isEnabled()


def test_the_engine_is_not_set_up_under_a_run(factory, home, monkeypatch):
    install_by(monkeypatch, home, "")
    monkeypatch.setattr(set_up_module, "is_busy", lambda: True)
    page = factory.createWidget()
    page.findChild(QPushButton).click()
    assert "RefSAM is at work" in texts(page) and not factory.set_up.is_running()


def test_it_says_that_another_python_is_used(factory, home, monkeypatch):
    python = home / "python"
    python.touch()
    monkeypatch.setenv("REFSAM_ENGINE_PYTHON", str(python))
    assert f"{python} is used as the engine, whatever is set up here" in texts(factory.createWidget())


def test_another_python_is_kept(factory, home):
    page = factory.createWidget()
    assert page.findChild(QgsFileWidget).filePath() == ""
    page.findChild(QgsFileWidget).setFilePath("/my/python ")
    page.apply()
    assert QgsSettings().value(PYTHON_SETTING) == "/my/python"
    again = factory.createWidget()
    assert again.findChild(QgsFileWidget).filePath() == "/my/python"
    assert "/my/python; correct it in Settings › Options › RefSAM" in texts(again)


def test_the_plugin_brings_the_page_and_takes_it_away(home, monkeypatch):
    interface = Interface()
    install_by(monkeypatch, home, "import time\ntime.sleep(60)\n")
    plugin = RefSAMPlugin(interface)
    plugin.initGui()
    (factory,) = interface.pages
    factory.set_up.start()
    assert factory.set_up.is_running()
    plugin.unload()
    assert interface.pages == [] and not factory.set_up.is_running()
