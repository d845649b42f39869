"""Looking for a Python that can make the engine's environment."""

import os
import sys
from pathlib import Path

import pytest

from refsam_qgis.host.base_python import INSTALLER, find_base_python


def script(path: Path, status: int) -> Path:
    path.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand for Pythons")
def test_the_first_that_can(tmp_path):
    missing, unfit, fit = tmp_path / "missing", script(tmp_path / "unfit", 1), script(tmp_path / "fit", 0)
    candidates = [[str(missing)], [str(unfit), "-3"], [str(fit), "-3.12"], [sys.executable]]
    assert find_base_python(dict(os.environ), candidates) == [str(fit), "-3.12"]
    assert find_base_python(dict(os.environ), candidates[:2]) is None


def test_a_real_one_that_is_new_enough():
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    assert (find_base_python(dict(os.environ), [[sys.executable]]) is not None) == fits


def test_the_installer_lies_in_the_plugin():
    assert INSTALLER.is_file()
