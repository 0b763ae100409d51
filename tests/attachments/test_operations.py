"""What operators see and order on the command line."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from tasks.attachments.scannable import EICAR
from workers.cli import cli

from .conftest import Uploads
from .samples import ENCRYPTED_ZIP, PNG


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["attachments", *map(str, arguments)])
    return done.exit_code, done.output


def answer(*arguments: object) -> Any:
    code, output = call(*arguments, "--json")
    assert code == 0, output
    return json.loads(output)


def test_status_counts_verdicts_and_what_is_due(uploads: Uploads) -> None:
    for content in (PNG, EICAR, None):
        uploads.add(content)
    uploads.sweep()
    uploads.make_due()

    found = answer("status")

    counts = {row["verdict"]: row["attachments"] for row in found["verdicts"] if row["attachments"]}
    assert counts == {"clean": 1, "infected": 1, "waiting": 1}
    assert [row["attachments_due"] for row in found["due"]] == [1, 0]
    assert re.search(r"infected +1 *\n", call("status")[1])


def test_list_and_show_name_an_infected_attachment_without_harm_to_the_terminal(uploads: Uploads) -> None:
    attachment = uploads.add(EICAR, file_name="a\x1b[2J\n\u202egnp.exe")
    uploads.sweep()

    assert [row["id"] for row in answer("list")] == [attachment]
    for output in (call("list")[1], call("show", attachment)[1]):
        assert "Eicar-Test-Signature" in output
        assert "\x1b" not in output
        assert "\u202e" not in output
    assert answer("show", attachment)["scan"]["verdict"] == "infected"


def test_show_shows_the_types_that_earlier_versions_recorded_until_the_next_scan(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.sweep()
    with uploads.engine.begin() as connection:
        connection.execute(text("UPDATE worker_scans SET found_type = 'image/png', mismatch = 'declared exe, found png'"))

    record = answer("show", attachment)["scan"]
    assert (record["found_type"], record["mismatch"]) == ("image/png", "declared exe, found png")
    call("rescan", attachment)
    uploads.sweep()
    record = answer("show", attachment)["scan"]
    assert (record["found_type"], record["mismatch"]) == ("", "")


def test_show_of_what_is_not_there_says_so(uploads: Uploads) -> None:
    assert uploads
    assert call("show", 4711) == (1, "Error: there is no attachment 4711\n")


def test_rescan_scans_even_what_is_known(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.sweep()
    before = uploads.record(attachment).scanned_at

    assert answer("rescan", attachment) == {"due": 1}
    assert uploads.flags(attachment) == (1, 1)
    uploads.sweep()

    assert uploads.record(attachment).scanned_at > before
    assert uploads.record(attachment).forced == 0


def test_rescan_of_a_verdict_takes_all_of_them(uploads: Uploads) -> None:
    ids = [uploads.add(None, file_url=f"/../{number}") for number in range(3)]
    uploads.sweep()

    assert answer("rescan", "--verdict", "unscannable") == {"due": 3}
    assert all(uploads.record(attachment).due_at for attachment in ids)


def test_rescan_of_nothing_is_bad_usage(uploads: Uploads) -> None:
    assert uploads
    assert call("rescan")[0] == 2


@pytest.mark.parametrize("content", [EICAR, ENCRYPTED_ZIP])
def test_released_bytes_are_served_and_no_others(uploads: Uploads, content: bytes) -> None:
    attachment, same, other = uploads.add(content), uploads.add(content), uploads.add(content + b" ")
    uploads.sweep()
    blocked = uploads.flags(attachment)

    answer("release", attachment, "--reason", "a false alarm")
    assert uploads.flags(attachment) == blocked
    uploads.sweep()
    answer("rescan", same, other)
    uploads.sweep()

    assert (uploads.flags(attachment), uploads.flags(same)) == ((1, 1), (1, 1))
    assert uploads.flags(other) == blocked
    assert uploads.record(attachment).verdict == "released"
    assert uploads.events(attachment)[-1] == "released"


@pytest.mark.usefixtures("vault")
def test_a_release_puts_back_what_lies_in_quarantine(uploads: Uploads) -> None:
    attachment = uploads.add(EICAR)
    uploads.sweep()
    assert not uploads.path(attachment).exists()

    assert answer("release", attachment, "--reason", "a false alarm")["restored"] == 1
    uploads.sweep()

    assert uploads.path(attachment).read_bytes() == EICAR
    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.usefixtures("vault")
def test_rows_whose_place_is_gone_keep_no_other_from_its_release(uploads: Uploads) -> None:
    gone, renamed, held = uploads.add(EICAR, file_url="/gone/a"), uploads.add(EICAR), uploads.add(EICAR)
    uploads.sweep()
    (uploads.folder / "gone").rmdir()
    uploads.execute("UPDATE message_attachments SET file_url = '/chosen' WHERE id = :id", id=renamed)

    done = answer("release", held, "--reason", "a false alarm")

    assert (done["released"], done["restored"]) == (2, 1)
    uploads.sweep()
    assert [uploads.flags(attachment) for attachment in (gone, renamed, held)] == [(1, 0), (0, 0), (1, 1)]
    assert not (uploads.folder / "chosen").exists()


def test_a_copy_in_quarantine_that_has_changed_vouches_for_nothing(uploads: Uploads, vault: Path) -> None:
    attachment = uploads.add(EICAR)
    uploads.sweep()
    [kept] = vault.iterdir()
    kept.write_bytes(b"other")

    assert "nothing was released" in call("release", attachment, "--reason", "a false alarm")[1]

    with uploads.engine.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_scan_releases")).scalar_one() == 0


def test_a_release_of_what_was_never_read_is_refused(uploads: Uploads) -> None:
    attachment = uploads.add(bytes(26 * 2**20))
    uploads.sweep()

    code, output = call("release", attachment, "--reason", "trust me")

    assert (code, uploads.flags(attachment)) == (1, (0, 0))
    assert "larger than ATTACHMENTS_LARGEST_BYTES" in output


def test_check_says_whether_clamd_can_be_believed(uploads: Uploads, clamd: Any) -> None:
    assert uploads
    assert answer("check")["faults"] == []
    clamd.configure({"AlertEncrypted": "no"})
    clamd.restart()

    code, output = call("check")

    assert code == 1
    assert 'set "AlertEncrypted yes" in clamd.conf' in output
