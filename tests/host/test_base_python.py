"""Looking for a Python that can make the engine's environment."""

import os
import sys
from pathlib import Path

import pytest

from refsam_qgis.engine.errors import RefSAMError
from refsam_qgis.engine.installation import NEWEST, OLDEST
from refsam_qgis.host.base_python import CANDIDATES, INSTALLER, find_base_python


def script(path: Path, status: int) -> Path:
    path.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts stand for Pythons")
def test_the_first_that_can(tmp_path):
    missing, unfit, fit = tmp_path / "missing", script(tmp_path / "unfit", 1), script(tmp_path / "fit", 0)
    candidates = [[str(missing)], [str(unfit), "-3"], [str(fit), "-3.12"], [sys.executable]]
    assert find_base_python(dict(os.environ), candidates) == [str(fit), "-3.12"]
    with pytest.raises(RefSAMError, match=r"No Python from 3\.11 to 3\.14") as caught:
        find_base_python(dict(os.environ), candidates[:2])
    assert caught.value.code == "environment" and "python3-venv" in str(caught.value)


@pytest.mark.skipif(not OLDEST <= sys.version_info[:2] <= NEWEST, reason="this Python cannot")
def test_a_real_one():
    assert find_base_python(dict(os.environ), [[sys.executable]]) == [sys.executable]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of a Mac")
def test_every_version_is_looked_for_where_a_mac_has_them():
    found = {command for (command,) in CANDIDATES}
    assert {"python3.12", "/opt/homebrew/bin/python3.13", "/usr/local/bin/python3.11", "/usr/bin/python3"} <= found


def test_the_installer_lies_in_the_plugin():
    assert INSTALLER.is_file()
