"""The API's attachments: clean, infected, late, missing and too large files, and what each must end as."""

import gzip
import hashlib
import os
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pymysql.cursors import Cursor

from tasks.attachments.scannable import EICAR
from tests.attachments.samples import PNG, tarred, zipped
from tests.chaos.client import BY_GATEWAY, Client
from tests.chaos.gateway import Gateway

INSERT = (
    "INSERT INTO message_attachments (id, message_id, file_name, file_url, file_size, uploaded_by_id)"
    " VALUES (%s, %s, %s, %s, %s, 1)"
)
NUDGED = 0.7
LATE_STEPS = 3
# More than ATTACHMENTS_LARGEST_BYTES; a hole, so that it costs nothing.
TOO_LARGE_BYTES = 26 << 20

SERVED, INFECTED, BLOCKED, WAITING = (1, 1), (1, 0), (0, 0), None
# kind: its share, and the flags that it must end with. What never arrives is tried for half an hour: it must not be served.
KINDS = {
    "clean": (0.70, SERVED),
    "large": (0.02, SERVED),
    "late": (0.03, SERVED),
    "infected": (0.14, INFECTED),
    "infected archive": (0.06, INFECTED),
    "too large": (0.02, BLOCKED),
    "missing": (0.03, WAITING),
}


@dataclass(slots=True)
class Upload:
    """What an attachment is. `answered`: the API knows that its row is there."""

    kind: str
    sha256: str
    answered: bool = True


class Files(Client):
    """Uploads so many files a second."""

    seconds: ClassVar[float] = 0.5

    def __init__(self, database_url: str, broker_url: str, folder: Path, gateway: Gateway, *, rate: float, seed: int) -> None:
        super().__init__("files", database_url, broker_url)
        self.gateway = gateway
        self.uploads: dict[int, Upload] = {}
        """By attachment, noted before the statement: one that fails may have been done."""
        self.sizes = 0
        self._folder = folder
        self._files = rate * self.seconds
        self._seed = seed
        self._owed = 0.0
        self._next_id = 1
        self._chance = random.Random(f"files {seed}")
        self._late: deque[list[tuple[Path, bytes]]] = deque([[] for _ in range(LATE_STEPS)])

    def step(self, cursor: Cursor) -> None:
        for path, content in self._late.popleft():
            path.write_bytes(content)
        self._late.append([])
        self._owed += self._files
        uploaded = []
        while self._owed >= 1:
            self._owed -= 1
            uploaded.append(self._upload(cursor))
        self._tell([number for number in uploaded if self._chance.random() < NUDGED])

    @property
    def answered(self) -> int:
        """How many attachments the API knows to be there."""
        return sum(upload.answered for upload in self.uploads.values())

    def arrive(self) -> None:
        """Let what is still on its way arrive."""
        for files in self._late:
            for path, content in files:
                path.write_bytes(content)

    def _tell(self, ids: list[int]) -> None:
        if ids and self._chance.random() < BY_GATEWAY:
            self.gateway.attachments(ids)
        else:
            for number in ids:
                self.send("tasks.attachments.scan", number)

    def _upload(self, cursor: Cursor) -> int:
        number, self._next_id = self._next_id, self._next_id + 1
        kind = self._chance.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
        path = self._folder / f"{number}.bin"
        content = self._content(kind, number)
        upload = self.uploads[number] = Upload(kind, hashlib.sha256(content).hexdigest(), answered=False)
        if kind == "late":
            self._late[-1].append((path, content))
        elif kind != "missing":
            path.write_bytes(content)
        if kind == "too large":
            os.truncate(path, TOO_LARGE_BYTES)
        cursor.execute(
            INSERT, (number, 1 + number % 1000, path.name, f"/{path.name}", None if kind == "late" else len(content) or None)
        )
        upload.answered = True
        return number

    def _content(self, kind: str, number: int) -> bytes:
        # No two are alike: a copy that is kept of one cannot pass for another's.
        mark = f"{number} {self._seed}".encode()
        match kind:
            case "infected":
                return EICAR + b"\n" + mark
            case "infected archive":
                return zipped(EICAR, f"{number}.com") if number % 2 else gzip.compress(tarred(EICAR), mtime=number)
            case "large":
                return self._chance.randbytes(6 << 20)
            case "clean" if number % 3 == 0:
                return zipped(mark * 100, "hello.txt")
            case _:
                return PNG + mark
