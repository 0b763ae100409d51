"""A real clamd and an S3 endpoint for these tests, and a chat whose uploads lie in a folder."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from devstack.stack import Stack
from settings import Settings, get_settings
from tasks.attachments import run, scannable
from tasks.attachments.clamd import Clamd, Version
from tasks.attachments.run import Summary
from tasks.attachments.scannable import Fitness

from .server import Server, serving


@dataclass
class Uploads:
    """The API's side: it stores files and writes their rows; and the workers' tasks, called as Celery would."""

    engine: Engine
    folder: Path

    def add(self, content: bytes | None, **columns: Any) -> int:
        """Store a file, unless content is None, and write its row; return the row's id."""
        with self.engine.begin() as connection:
            connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
            count = connection.execute(text("SELECT COUNT(*) FROM message_attachments")).scalar_one()
            row = {"file_name": "a.bin", "file_url": f"/files/{count}", "message_id": 1, "uploaded_by_id": 1, **columns}
            names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            done = connection.execute(text(f"INSERT INTO message_attachments ({names}) VALUES ({values})"), row)
            connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
        if content is not None:
            path = self.folder / row["file_url"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return int(done.lastrowid)

    def path(self, attachment: int) -> Path:
        with self.engine.connect() as connection:
            url = connection.execute(text("SELECT file_url FROM message_attachments WHERE id = :id"), {"id": attachment})
            return self.folder / str(url.scalar_one()).lstrip("/")

    def scan(self, attachment: int) -> Summary:
        return run.scan_one(attachment)

    def sweep(self) -> Summary:
        return run.sweep()

    def flags(self, attachment: int) -> tuple[int, int]:
        with self.engine.connect() as connection:
            row = connection.execute(
                text("SELECT scanned_for_virus, is_safe FROM message_attachments WHERE id = :id"), {"id": attachment}
            ).one()
        return row.scanned_for_virus, row.is_safe

    def record(self, attachment: int) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text("SELECT * FROM worker_scans WHERE attachment_id = :id"), {"id": attachment}).one()

    def events(self, attachment: int) -> list[str]:
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT event FROM worker_scan_events WHERE attachment_id = :id ORDER BY id"), {"id": attachment}
            )
            return [row.event for row in rows]

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def make_due(self) -> None:
        """Let the time of all next tries and leases have come."""
        self.execute("UPDATE worker_scans SET due_at = NOW(3) WHERE due_at IS NOT NULL")


def being_scanned(path: Path) -> bool:
    """Return whether a scan in this process is at the file: it has it open and has read from it."""
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if handle.readlink() == path:
                position = Path(f"/proc/self/fdinfo/{handle.name}").read_text().split()[1]
                return position != "0"
    return False


@pytest.fixture
def folder(environment: dict[str, str], scanners: Stack, tmp_path: Path) -> Iterator[Path]:
    """The folder that ATTACHMENTS_URL names; a test that changes the environment calls `reread` afterwards."""
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        own = {**environment, **scanners.environment, "ATTACHMENTS_URL": f"file://{uploads}"}
        for key, value in own.items():
            patch.setenv(key, value)
        reread()
        yield uploads
    reread(another_clamd=True)


def reread(*, another_clamd: bool = False) -> None:
    """Forget the settings and what was made from them, as a new worker process has: of clamd, where they name another one."""
    get_settings.cache_clear()
    run._process.cache_clear()
    if another_clamd:
        scannable.forget()


@cache
def tested(url: str, version: Version) -> Fitness:
    """Return what a worker process learns of this clamd, asked once: the questions take half a second, and most tests scan."""
    largest_bytes: int = Settings.model_fields["attachments_largest_bytes"].default
    return scannable.fitness(Clamd(url, scan_seconds=180), version, largest_bytes)


@pytest.fixture
def uploads(chat: Engine, folder: Path, scanners: Stack) -> Uploads:
    """The API's side. The workers have tested clamd, until a test breaks it or names another."""
    reread(another_clamd=True)  # other files' tests leave a version of their clamd behind
    url = scanners.environment["CLAMD_URL"]
    version = Clamd(url, scan_seconds=180).version()
    scannable._tested[version] = tested(url, version)._replace(tested_at=time.monotonic())
    return Uploads(chat, folder)


@pytest.fixture
def clamd(uploads: Uploads, scanners: Stack) -> Iterator[Any]:
    """clamd, to be broken: it is brought back as it was."""
    scannable.forget()
    yield scanners.clamd
    scanners.clamd.resume()
    scanners.clamd.configure({})
    scanners.clamd.restart()
    scannable.forget()


@pytest.fixture
def vault(uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A quarantine folder that content is moved to."""
    assert uploads
    folder = tmp_path / "quarantine"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE_URL", f"file://{folder}")
    monkeypatch.setenv("ATTACHMENTS_QUARANTINE", "move")
    reread()
    return folder


@pytest.fixture
def server(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Uploads behind HTTP, with a token."""
    assert uploads
    with serving() as server:
        monkeypatch.setenv("ATTACHMENTS_URL", server.url)
        monkeypatch.setenv("ATTACHMENTS_TOKEN", "secret-token")
        reread()
        yield server
