"""Records that grow cell by cell, so that what takes a night can be done in pieces."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Fields = dict[str, Any]


class Cells:
    """Cells of a table in a JSON file, a cell a line, written after each one.

    A cell holds what it is of (``key``), all that its figures depend on but the code (``settings``), and the figures
    (``result``).

    Args:
        path: The file; read if it is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells = self._read()

    def __iter__(self) -> Iterator[dict[str, Fields]]:
        return iter(self._cells)

    def has(self, key: Fields, settings: Fields) -> bool:
        """Whether a cell was measured with equal settings."""
        return any(cell["key"] == key and cell["settings"] == settings for cell in self._cells)

    def put(self, key: Fields, settings: Fields, result: Fields) -> None:
        """Add a cell or replace the one of equal key, and write the file."""
        # Another process may have added cells of other methods since.
        kept = [cell for cell in self._read() if cell["key"] != key]
        kept.append({"key": key, "settings": settings, "result": result})
        self._cells = sorted(kept, key=lambda cell: json.dumps(cell["key"], sort_keys=True))
        lines = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in self._cells)
        aside = self._path.with_name(self._path.name + ".part")
        aside.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
        os.replace(aside, self._path)

    def _read(self) -> list[dict[str, Fields]]:
        if not self._path.exists():
            return []
        cells: list[dict[str, Fields]] = json.loads(self._path.read_text(encoding="utf-8"))
        return cells
