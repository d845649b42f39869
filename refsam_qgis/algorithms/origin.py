"""The command that repeats a run, for its report: the job itself names copies that are gone with the session."""

from __future__ import annotations

import re

from .values import Values

PASSWORD = re.compile(r" ?password=(\\'.*?(?<!\\\\)\\'|[^\s']+)", re.DOTALL)
"""The password in the source of a layer, within the quotes of a command; its own quotes are escaped there."""


def command_of(values: Values) -> str:
    """Return what runs the algorithm again in QGIS's Python console, without passwords of databases.

    It names layers by their sources, with filter and selection. To be called in the layers' own thread.
    """
    return PASSWORD.sub("", values.algorithm.asPythonCommand(values.parameters, values.context))
