"""RefSAM: outline a few examples of a class, find it over whole rasters.

Importing this package imports nothing else, so that the engine runs where there is no QGIS.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.2.0-beta"


def classFactory(iface: Any) -> Any:
    """Return the plugin; QGIS calls this when it loads the folder.

    Args:
        iface: QGIS's window, or ``None`` in ``qgis_process``.
    """
    from .plugin import RefSAMPlugin

    return RefSAMPlugin(iface)
