"""The log of accepted messages: a JSON-lines file that outlives the emulator, one line a message, so that tests count losses.

Lines are written a few times per second: a killed emulator (SIGKILL) may lose the last quarter of a second of its log.
"""

import os
from pathlib import Path
from typing import NamedTuple

import orjson

FILE_NAME = "accepted.jsonl"
FLUSH_SECONDS = 0.25


class Accepted(NamedTuple):
    """One accepted message."""

    t: float
    """Unix time in seconds, with ms."""
    provider: str
    token: str
    notification_id: str | None
    collapse: str | None
    name: str
    """What the sender gets back."""
    connection: str = ""
    """The sender's "address:port"."""
    digest: str = ""
    """Of its title and body, see `answers.digest_of`."""
    torn: bool = False
    """Its answer is cut off on purpose."""
    waited: float = 0.0
    """So many seconds it was made to wait before it was taken."""


class AcceptedLog:
    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pending: list[bytes] = []

    def append(self, accepted: Accepted) -> None:
        self._pending.append(orjson.dumps(accepted._asdict(), option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        if self._pending:
            pending, self._pending = b"".join(self._pending), []
            written = 0
            while written < len(pending):
                written += os.write(self._descriptor, pending[written:])

    def reset(self) -> None:
        self._pending = []
        os.ftruncate(self._descriptor, 0)
