"""What was accepted: a JSON-lines file that outlives the emulator, one line a message, so that tests count losses.

A line is `{"t", "provider", "token", "notification_id", "collapse", "name", "connection", "digest"}`; `t` is Unix time in
seconds with ms. Where the answer was to be cut off there is `"torn": true`, where it was to be late `"waited"` in seconds.
Lines are written a few times per second: a killed emulator (SIGKILL) may lose the last quarter of a second of its log.
"""

import os
from pathlib import Path

import orjson

from devstack.emulators.answers import Message

FILE_NAME = "accepted.jsonl"
FLUSH_SECONDS = 0.25


class AcceptedLog:
    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._pending: list[bytes] = []

    def append(
        self, provider: str, message: Message, connection: str, now: float, *, torn: bool = False, waited: float = 0.0
    ) -> None:
        """Given an accepted message and the "address:port" it came from, note it; `now` is Unix time in seconds."""
        line: dict[str, object] = {
            "t": round(now, 3),
            "provider": provider,
            "token": message.token,
            "notification_id": message.notification_id,
            "collapse": message.collapse,
            "name": message.name,
            "connection": connection,
            "digest": message.digest,
        }
        if torn:
            line["torn"] = True
        if waited:
            line["waited"] = waited
        self._pending.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def flush(self) -> None:
        if self._pending:
            pending, self._pending = b"".join(self._pending), []
            written = 0
            while written < len(pending):
                written += os.write(self._descriptor, pending[written:])

    def reset(self) -> None:
        self._pending = []
        os.ftruncate(self._descriptor, 0)
