"""The engine's environment and its worker, seen from QGIS. Standard library and ``qgis`` only."""
