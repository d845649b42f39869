"""The RefSAM engine: everything that runs in its own Python environment, without QGIS."""
