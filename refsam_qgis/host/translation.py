"""Texts in the user's language."""

from __future__ import annotations

from qgis.PyQt.QtCore import QCoreApplication


def tr(text: str) -> str:
    """Translate `text`, in RefSAM's own context."""
    return QCoreApplication.translate("RefSAM", text)
