"""Takes the README's screenshots; `scripts/screenshots` starts QGIS with this file.

Each step acts as a person would and says how long to wait for the window to settle.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import processing
import qgis.utils
from qgis.core import QgsApplication, QgsFillSymbol, QgsProcessingContext, QgsProject, QgsRasterLayer, QgsVectorLayer
from qgis.PyQt.QtCore import Qt, QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QLineEdit, QTreeView, QWidget
from qgis.utils import iface

FOLDER = Path(os.environ["REFSAM_SCREENSHOTS"])
SAMPLE = Path("sample")
"""Seen from the project's folder, where QGIS is started: no picture is to show anybody's own folders."""
SETTLE = 1500
"""Milliseconds for a window to be laid out and painted."""
PARAMETERS = {"CLASS_FIELD": "class", "ANNOTATION": "partial", "MIN_AREA": 4, "SIMPLIFY": 0.3}


def grab(window: QWidget, name: str) -> None:
    """Save what a window shows under a file name; as JPEG where there is imagery in it."""
    assert window.grab().save(str(FOLDER / name), quality=90 if name.endswith("jpg") else -1)


def toolbox() -> QDockWidget:
    """Return the Processing toolbox's dock."""
    return iface.mainWindow().findChild(QDockWidget, "ProcessingToolbox")


def steps() -> Iterator[int | Callable[[], object]]:
    """Yield, between the steps, how many milliseconds to wait, or a function that says whether to go on."""
    qgis.utils.loadPlugin("processing")
    qgis.utils.loadPlugin("refsam_qgis")
    qgis.utils.startPlugin("refsam_qgis")
    main = iface.mainWindow()
    main.resize(1500, 1000)
    raster = QgsRasterLayer(str(SAMPLE / "scene.tif"), "scene")
    examples = QgsVectorLayer(str(SAMPLE / "references.gpkg"), "examples")
    outline = {"style": "no", "outline_color": "yellow", "outline_width": "0.8"}
    examples.renderer().setSymbol(QgsFillSymbol.createSimple(outline))
    for layer in (raster, examples):  # the later one lies on top
        QgsProject.instance().addMapLayer(layer)
    QgsProject.instance().setCrs(raster.crs())
    iface.mapCanvas().setExtent(raster.extent())
    toolbox().setVisible(True)
    toolbox().findChild(QLineEdit).setText("refsam")
    toolbox().findChild(QTreeView).expandAll()
    yield 2 * SETTLE
    grab(main, "toolbox.jpg")

    dialog = processing.createAlgorithmDialog(
        "refsam:segmentbyreference", {"INPUT": raster, "REFERENCES": examples, **PARAMETERS}
    )
    dialog.resize(1150, 800)
    dialog.show()
    yield SETTLE
    grab(dialog, "dialog.png")
    finished = []
    dialog.algorithmFinished.connect(lambda successful, results: finished.append(successful))
    dialog.runButton().click()
    yield 8000
    grab(dialog, "running.png")
    yield lambda: finished
    assert finished == [True], dialog.findChildren(QLineEdit)
    yield SETTLE
    dialog.close()
    iface.setActiveLayer(raster)
    iface.mapCanvas().setExtent(raster.extent())
    iface.mapCanvas().refresh()
    yield 2 * SETTLE
    grab(main, "result.jpg")

    from processing.gui.BatchAlgorithmDialog import BatchAlgorithmDialog

    registry = QgsApplication.processingRegistry()
    batch = BatchAlgorithmDialog(registry.algorithmById("refsam:segmentbyreference").create(), main)
    panel = batch.mainWidget()
    panel.addRow()
    for row in panel.wrappers:
        for wrapper, value in zip(row[:4], (raster, examples, "class", "partial"), strict=True):
            wrapper.setParameterValue(value, QgsProcessingContext())
    batch.show()
    yield SETTLE
    batch.resize(1300, 500)
    yield SETTLE
    grab(batch, "batch.png")
    batch.close()

    from processing.modeler.ModelerDialog import ModelerDialog

    provider = registry.providerById("refsam")
    example = next(a for a in provider.algorithms() if a.groupId() == "Examples")
    designer = ModelerDialog.create(example)
    designer.resize(1400, 850)
    designer.show()
    yield SETTLE
    designer.view().fitInView(designer.view().scene().itemsBoundingRect(), Qt.AspectRatioMode.KeepAspectRatio)
    yield SETTLE
    grab(designer, "designer.png")


def advance() -> None:
    """Run to the next pause; leave QGIS after the last step or the first failure."""
    global condition
    try:
        if condition is not None and not condition():
            QTimer.singleShot(200, advance)
            return
        condition = None
        pause = next(script)
    except StopIteration:
        os._exit(0)  # an ordinary exit would ask whether to save the project
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(1)
    if callable(pause):
        condition, pause = pause, 0
    QTimer.singleShot(pause, advance)


script = steps()
condition = None
QTimer.singleShot(3000, advance)
