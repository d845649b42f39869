"""The plugin as QGIS sees it."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsApplication

from .gui.options_page import OptionsFactory
from .host.engine import close_shared_client
from .provider import RefSAMProvider


class RefSAMPlugin:
    """Registers the Processing provider, and a page of QGIS's options.

    Args:
        iface: QGIS's window, or ``None`` in ``qgis_process``.
    """

    def __init__(self, iface: Any) -> None:
        self._iface = iface
        self._provider: RefSAMProvider | None = None
        self._options: OptionsFactory | None = None

    def initProcessing(self) -> None:
        """Add the provider; ``qgis_process`` calls this alone."""
        self._provider = RefSAMProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add what belongs to QGIS's window."""
        self._options = OptionsFactory()
        self._iface.registerOptionsWidgetFactory(self._options)
        self.initProcessing()

    def unload(self) -> None:
        """Take everything back and end the engine."""
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
        if self._options is not None:
            self._iface.unregisterOptionsWidgetFactory(self._options)
            self._options.set_up.stop()
            self._options = None
        close_shared_client()
