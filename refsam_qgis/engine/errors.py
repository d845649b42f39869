"""The one exception that carries a sentence for a person."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text that can be written anywhere, with codes for the bytes of a file name that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class RefSAMError(Exception):
    """A failure that the user can act on.

    The message is one sentence that names the file or value at fault and the remedy; it is shown as it stands,
    without a traceback.

    Attributes:
        code: Stable machine-readable kind: ``input``, ``reference``, ``checkpoint``, ``environment``, ``memory``,
            ``disk``, ``cancelled`` or ``internal``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(printable(message))
        self.code = code


class JobCancelled(RefSAMError):
    """The user asked for the job to stop; the message may say what is kept."""

    def __init__(self, message: str = "The run was cancelled; no output was written.") -> None:
        super().__init__("cancelled", message)
