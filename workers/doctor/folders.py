"""Folders of attachments, quarantine and archives, where they are folders: whether they are there, and may be used."""

import os
from collections.abc import Iterator
from pathlib import Path

from settings import Settings
from workers.doctor.report import Finding, Question, ok, wrong

READ, WRITE = os.R_OK | os.X_OK, os.W_OK | os.X_OK


def folders(question: Question) -> Iterator[Finding]:
    """Find out about each folder that a variable names, for the user that the doctor is run as."""
    for what, variable, path, access in _wanted(question.settings):
        if not path.is_dir():
            yield wrong(what, f"{variable} names {path}, which is no folder here; mount it on this host too")
        elif not os.access(path, access):
            verb = "written" if access & os.W_OK else "read"
            yield wrong(what, f"{path} ({variable}) may not be {verb} by user {os.geteuid()}; give its group the right")
        else:
            yield ok(what, str(path))


def _wanted(settings: Settings) -> Iterator[tuple[str, str, Path, int]]:
    moves = settings.attachments_quarantine_url is not None and settings.attachments_quarantine == "move"
    for what, variable, url, access in (
        ("uploads", "ATTACHMENTS_URL", settings.attachments_url, READ | WRITE if moves else READ),
        ("quarantine", "ATTACHMENTS_QUARANTINE_URL", settings.attachments_quarantine_url, WRITE),
    ):
        if url is not None and url.startswith("file://"):
            yield what, variable, Path(url.removeprefix("file://")), access
    if settings.retention_archive_dir is not None:
        folder = settings.retention_archive_dir
        there = next(path for path in (folder, *folder.parents) if path.exists())  # the first archive makes the rest
        yield "archive", "RETENTION_ARCHIVE_DIR", there, READ | WRITE
