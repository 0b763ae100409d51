"""An attachment whose id another row had before (a restore, TRUNCATE) inherits nothing of that row's."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tasks.attachments.scannable import EICAR
from workers.cli import cli

from .conftest import Uploads
from .samples import PNG


def take_id_again(uploads: Uploads, content: bytes | None, **columns: Any) -> int:
    """Empty the table as TRUNCATE does, and have the API write another row of the first id."""
    uploads.execute("DELETE FROM message_attachments")
    return uploads.add(content, id=1, message_id=2, **columns)


def test_neither_verdict_nor_quarantine(uploads: Uploads, vault: Path) -> None:
    """The new file is still on its way: an infected one that is gone is in quarantine, but that was the other row's."""
    uploads.add(EICAR, id=1)
    for _ in range(2):
        uploads.sweep()
    assert uploads.record(1).quarantine.startswith("file://")
    take_id_again(uploads, None, file_url="/files/new")
    uploads.scan(1)
    assert uploads.flags(1) == (0, 1)
    uploads.path(1).write_bytes(PNG)
    uploads.scan(1)
    assert (uploads.flags(1), uploads.record(1).quarantine) == ((1, 1), "")


def test_no_scans_that_broke_off(uploads: Uploads) -> None:
    uploads.add(PNG, id=1)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET claims = 6, verdict = 'unscannable', reason = '5 scans of it broke off'")
    take_id_again(uploads, PNG + b"\n", file_url="/files/new")
    uploads.scan(1)
    assert uploads.flags(1) == (1, 1)


@pytest.mark.parametrize("forged", [{}, {"scanned_for_virus": 1, "is_safe": 1}], ids=["new", "forged"])
def test_neither_due_time_nor_trust(uploads: Uploads, forged: dict[str, int]) -> None:
    """With the same name of a file, which says nothing."""
    uploads.add(PNG, id=1)
    uploads.sweep()
    uploads.execute(
        "UPDATE worker_scans SET verdict = 'released', attempts = 9, due_at = NOW(3) + INTERVAL 1 HOUR, scanned_at = NULL"
    )
    take_id_again(uploads, EICAR, file_url="/files/0", **forged)
    for _ in range(2):
        uploads.sweep()
    assert (uploads.flags(1), uploads.record(1).attempts) == ((1, 0), 0)


def test_neither_history_nor_a_release(uploads: Uploads) -> None:
    uploads.add(EICAR, id=1)
    uploads.sweep()
    take_id_again(uploads, PNG, file_url="/files/new")
    told = json.loads(CliRunner().invoke(cli, ["attachments", "show", "1", "--json"]).output)
    assert (told["attachment"]["id"], told["scan"], told["events"]) == (1, None, [])
    refused = CliRunner().invoke(cli, ["attachments", "release", "1", "--reason", "it is a test"])
    assert "there is no attachment 1 that was scanned" in refused.output


def test_no_lease_of_a_run_that_scans_the_other_row(uploads: Uploads) -> None:
    uploads.add(PNG, id=1)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET attempts = 30, lease = 'dead', due_at = NOW(3) + INTERVAL 1 DAY")
    take_id_again(uploads, EICAR, file_url="/files/new")
    uploads.scan(1)
    assert (uploads.record(1).attempts, uploads.flags(1)) == (0, (1, 0))


def test_a_row_that_takes_the_place_of_one_that_is_due_has_its_turn_at_the_next_sweep(uploads: Uploads) -> None:
    uploads.add(PNG, id=1)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET due_at = NOW(3)")
    take_id_again(uploads, EICAR, file_url="/files/new")
    for _ in range(2):
        uploads.sweep()
    assert uploads.flags(1) == (1, 0)


def test_records_of_the_version_before_are_any_rows(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET of_row = ''")
    uploads.sweep()
    assert uploads.flags(attachment) == (1, 1)
