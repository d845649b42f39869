#!/usr/bin/env python3
"""Look for what would break the plugin under Qt 6 and QGIS 4, without running it.

Reads the syntax trees of the files that run inside QGIS and finds

* imports of a Qt binding other than ``qgis.PyQt``, and ``exec_()``, which PyQt6 no longer has;
* names of ``qgis.PyQt`` that PyQt6 does not have, above all enum members that are not reached through their enum;
* names of ``qgis`` that the QGIS at hand does not have, or enum members that are not reached through their enum.

`COMPATIBILITY` is where names of several versions are told apart, so its names are not looked up. Needs PyQt6 and QGIS;
each is looked into by a process of its own, as two Qt bindings do not go together. Usage: check_qt6.py [FILE...]
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "refsam_qgis"
COMPATIBILITY = PACKAGE / "host" / "qgis_compat.py"
BINDINGS = ("PyQt5", "PyQt6", "PySide2", "PySide6", "sip")


@dataclass(frozen=True)
class Finding:
    """One place in a file, and what is wrong there."""

    file: Path
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}"


def host_files() -> list[Path]:
    """Return the files that run inside QGIS."""
    return sorted(path for path in PACKAGE.rglob("*.py") if (PACKAGE / "engine") not in path.parents)


def check(files: Iterable[Path]) -> list[Finding]:
    """Return what is wrong in `files`, in their order."""
    findings: list[Finding] = []
    used: list[tuple[Path, int, str]] = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        findings += [Finding(file, line, problem) for line, problem in _plain_problems(tree)]
        if file != COMPATIBILITY:
            used += [(file, line, name) for line, name in _qgis_names(tree)]
    problems = _look_up({name for _, _, name in used})
    findings += [Finding(file, line, problems[name]) for file, line, name in used if name in problems]
    return findings


def _plain_problems(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and problem of what needs no look-up."""
    imports: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "exec_":
            yield node.lineno, "exec_() is gone in PyQt6; call exec()"
        elif isinstance(node, ast.Import):
            imports += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imports.append((node.lineno, str(node.module)))
    for line, module in imports:
        if module.split(".")[0] in BINDINGS:
            yield line, f"'{module}' is imported past QGIS; import from qgis.PyQt"


def _qgis_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of what is imported from ``qgis``, and of each attribute reached from it."""
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "qgis":
                    imported[alias.asname or "qgis"] = alias.name if alias.asname else "qgis"
        elif isinstance(node, ast.ImportFrom) and not node.level and str(node.module).split(".")[0] == "qgis":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                imported[alias.asname or alias.name] = name
                yield node.lineno, name
    inner: set[ast.expr] = set()  # the whole of a.b.c is looked up at once
    for node in ast.walk(tree):  # outer before inner
        if isinstance(node, ast.Attribute) and node not in inner:
            attributes: list[str] = []
            root: ast.expr = node
            while isinstance(root, ast.Attribute):
                attributes.insert(0, root.attr)
                root = root.value
                inner.add(root)
            if isinstance(root, ast.Name) and root.id in imported:
                yield node.lineno, ".".join([imported[root.id], *attributes])


def _look_up(names: Iterable[str]) -> dict[str, str]:
    """Return the problem of each of the full dotted `names` that has one."""
    worlds: dict[str, dict[str, str]] = {"PyQt6": {}, "QGIS": {}}
    for name in names:
        if name.startswith("qgis.PyQt."):
            worlds["PyQt6"][name.replace("qgis.PyQt", "PyQt6", 1)] = name
        elif name != "qgis.PyQt":
            worlds["QGIS"][name] = name
    problems = {}
    for world, originals in worlds.items():
        answer = subprocess.run(
            [sys.executable, __file__, "--look-up", world],
            input=json.dumps(sorted(originals)), stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        problems.update({originals[name]: problem for name, problem in json.loads(answer.stdout).items()})
    return problems


def _problem(name: str, world: str) -> str:
    """Return what is wrong with the full dotted `name` in this process; empty when nothing is."""
    value: Any = None
    owner: Any = None
    path = ""
    for part in name.split("."):
        path = f"{path}.{part}" if path else part
        owner = value
        try:
            value = importlib.import_module(path) if owner is None else getattr(owner, part)
        except AttributeError:
            try:
                value = importlib.import_module(path)
            except ImportError:
                return f"{world} has no '{path}'"
    if _is_enum_member(value) and type(value) is not owner:
        return f"'{name}' is an enum member outside its enum; write {type(value).__qualname__}.{path.split('.')[-1]}"
    return ""


def _is_enum_member(value: object) -> bool:
    """Whether `value` belongs to one of Python's enums or, before QGIS 4, of sip's."""
    return any(base.__name__ in ("EnumMeta", "EnumType", "enumtype") for base in type(type(value)).__mro__)


def main() -> None:
    """Print what is wrong and end with status 1 when anything is."""
    if sys.argv[1:2] == ["--look-up"]:
        looked_up = {name: _problem(name, sys.argv[2]) for name in json.load(sys.stdin)}
        print(json.dumps({name: problem for name, problem in looked_up.items() if problem}))
        return
    findings = check([Path(name).resolve() for name in sys.argv[1:]] or host_files())
    print(*findings, sep="\n", end="\n" if findings else "")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
