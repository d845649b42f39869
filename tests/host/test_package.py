"""What the plugin repository's scanners are told, in the assembled plugin."""

import configparser
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

from refsam_qgis import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_every_digest_of_the_weights_is_known_to_be_no_secret(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "package", "--folder", tmp_path], check=True, capture_output=True
    )
    plugin = tmp_path / "refsam_qgis"
    card = (plugin / "checkpoints" / "compact.json").read_text(encoding="utf-8")
    known = json.loads((plugin / ".secrets.baseline").read_text(encoding="utf-8"))["results"][
        "checkpoints/compact.json"
    ]
    digests = re.findall(r'"([0-9a-f]{40,64})"', card)
    assert digests
    assert {entry["hashed_secret"] for entry in known} == {hashlib.sha1(one.encode()).hexdigest() for one in digests}


def test_the_metadata_tell_what_is_new():
    metadata = (
        configparser.ConfigParser()
    )  # as QGIS and the plugin repository read them: a lone percent sign would fail
    metadata.read(ROOT / "metadata.txt", encoding="utf-8")
    assert metadata["general"]["changelog"].startswith(__version__.removesuffix("-beta") + ":")
