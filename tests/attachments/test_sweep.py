"""What comes to be scanned without anyone asking, and when it is tried again."""

import pytest
from sqlalchemy.exc import NoResultFound

from devstack.stack import Stack
from tasks.attachments import find_unqueued
from tasks.attachments.clamd import Version
from tasks.attachments.scannable import EICAR
from tests.processes import wait_until

from .conftest import Uploads, reread
from .samples import PNG

HELLO = b"Attention-Signature:0:0:" + b"hello new world".hex().encode()


def test_the_sweep_scans_what_no_one_enqueued(uploads: Uploads) -> None:
    clean, infected = uploads.add(PNG), uploads.add(EICAR)

    summary = uploads.sweep()

    assert (uploads.flags(clean), uploads.flags(infected)) == ((1, 1), (1, 0))
    assert summary.verdicts == {"clean": 1, "infected": 1}


def test_the_walk_finds_old_rows_page_by_page_and_starts_over(uploads: Uploads) -> None:
    old = [uploads.add(PNG, created_at="2026-01-01 00:00:00") for _ in range(5)]

    found = [find_unqueued.find_older(uploads.engine, page=2) for _ in range(4)]

    assert found == [2, 2, 1, 0]
    assert {uploads.record(attachment).lane for attachment in old} == {1}


def test_a_row_that_was_committed_late_under_a_low_id_is_found(uploads: Uploads) -> None:
    first, second = uploads.add(PNG), uploads.add(PNG)
    uploads.sweep()
    uploads.execute("DELETE FROM message_attachments WHERE id = :id", id=first)
    uploads.sweep()

    uploads.add(EICAR, id=first, file_url="/files/late")
    uploads.execute("DELETE FROM worker_scans WHERE attachment_id = :id", id=first)
    uploads.sweep()

    assert (uploads.flags(first), uploads.flags(second)) == ((1, 0), (1, 1))


def test_an_old_row_whose_verdict_is_bad_is_blocked_however_many_are_newer(uploads: Uploads) -> None:
    old = uploads.add(EICAR, created_at="2026-01-01 00:00:00")
    uploads.sweep()
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 1, is_safe = 1 WHERE id = :id", id=old)
    assert find_unqueued.find_served(uploads.engine) == 1
    assert uploads.flags(old) == (0, 0)
    uploads.sweep()
    assert uploads.flags(old) == (1, 0)
    assert find_unqueued.find_served(uploads.engine) == 0


def test_uploads_go_before_old_rows(uploads: Uploads) -> None:
    old = uploads.add(PNG, created_at="2026-01-01 00:00:00")
    find_unqueued.find_older(uploads.engine)
    new = uploads.add(PNG)
    find_unqueued.find_recent(uploads.engine)

    assert (uploads.record(old).lane, uploads.record(new).lane) == (1, 0)


@pytest.mark.parametrize("created_at", [None, "2037-01-01 00:00:00"])
def test_old_rows_without_a_true_time_do_not_have_each_sweep_read_the_whole_table(
    uploads: Uploads, created_at: str | None
) -> None:
    odd = uploads.add(PNG, created_at=created_at)
    new = uploads.add(PNG)

    assert find_unqueued.find_recent(uploads.engine, page=1) == 1
    assert uploads.record(new).lane == 0
    assert find_unqueued.find_older(uploads.engine) == 1
    assert uploads.record(odd).lane == 1


def test_old_rows_with_a_time_of_this_hour_do_not_have_each_sweep_read_the_whole_table(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_unqueued, "MOST_PAGES", 2)
    old = uploads.add(PNG)
    for _ in range(2):
        uploads.add(PNG)
    assert find_unqueued.find_recent(uploads.engine, page=1) == 2
    assert find_unqueued.find_older(uploads.engine) == 1
    assert uploads.record(old).lane == 1


@pytest.mark.parametrize("content", [PNG, EICAR])
def test_flags_that_the_api_resets_ask_for_another_scan(uploads: Uploads, content: bytes) -> None:
    attachment = uploads.add(content)
    uploads.sweep()
    flags = uploads.flags(attachment)
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 1")

    uploads.sweep()

    assert uploads.flags(attachment) == flags


def test_a_row_with_null_flags_is_scanned(uploads: Uploads) -> None:
    attachment = uploads.add(PNG, scanned_for_virus=None, is_safe=None)

    uploads.sweep()

    assert uploads.flags(attachment) == (1, 1)


def test_a_blocked_row_is_left_alone(uploads: Uploads) -> None:
    attachment = uploads.add(None, file_url="/../x")
    uploads.sweep()
    before = uploads.record(attachment)

    uploads.sweep()

    assert uploads.record(attachment) == before


def test_a_row_that_the_api_deletes_is_forgotten(uploads: Uploads) -> None:
    attachment = uploads.add(None)
    uploads.sweep()
    uploads.execute("DELETE FROM message_attachments")
    uploads.make_due()

    uploads.sweep()

    with pytest.raises(NoResultFound):
        uploads.record(attachment)


def test_a_call_for_a_row_that_is_not_there_yet_does_nothing(uploads: Uploads) -> None:
    assert not uploads.scan(4711).verdicts


def test_new_signatures_bring_recent_clean_attachments_back(uploads: Uploads, scanners: Stack) -> None:
    recent = uploads.add(b"hello new world")
    old = uploads.add(b"hello new world, long ago", created_at="2026-01-01 00:00:00")
    uploads.sweep()
    assert (uploads.flags(recent), uploads.flags(old)) == ((1, 1), (1, 1))
    uploads.execute("UPDATE worker_scan_walks SET moved_at = moved_at - INTERVAL 1 MINUTE")

    try:
        scanners.clamd.publish(27_500, HELLO)
        reread()

        def found() -> bool:
            """A clamd that is slow on a busy machine is asked again at a later sweep."""
            uploads.sweep()
            return uploads.flags(recent) == (1, 0)

        wait_until(found, "the new signature was found")
    finally:
        scanners.clamd.publish(27_000)

    assert uploads.flags(old) == (1, 1)
    assert uploads.record(recent).database_version == 27_500
    assert uploads.events(recent) == ["infected"]


def test_re_scans_come_newest_first_and_at_a_bounded_rate(uploads: Uploads) -> None:
    ids = [uploads.add(bytes([number])) for number in range(5)]
    uploads.sweep()
    uploads.execute("UPDATE worker_scan_walks SET moved_at = moved_at - INTERVAL 1 MINUTE")

    renewed = find_unqueued.schedule_rescans(uploads.engine, Version("1.4.6", 99_999), days=7, per_minute=2)

    assert renewed == 2
    assert [attachment for attachment in ids if uploads.record(attachment).due_at] == ids[-2:]
    assert find_unqueued.schedule_rescans(uploads.engine, Version("1.4.6", 99_999), days=7, per_minute=2) == 0


def test_an_older_clamd_beside_a_newer_one_starts_no_re_scans(uploads: Uploads) -> None:
    uploads.add(PNG)
    uploads.sweep()
    for version, expected in ((99_999, 1), (99_998, 0), (99_999, 0)):
        uploads.execute("UPDATE worker_scan_walks SET moved_at = moved_at - INTERVAL 1 MINUTE")
        assert find_unqueued.schedule_rescans(uploads.engine, Version("1.4.6", version), days=7, per_minute=60) == expected


def test_an_infected_file_that_a_restored_dump_calls_clean_is_blocked_and_scanned_again(uploads: Uploads) -> None:
    attachment = uploads.add(EICAR)
    uploads.sweep()
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 1, is_safe = 1 WHERE id = :id", id=attachment)

    find_unqueued.find_recent(uploads.engine)

    assert uploads.flags(attachment) == (0, 0)
    uploads.sweep()
    assert uploads.flags(attachment) == (1, 0)


def test_a_blocked_row_that_names_another_file_now_is_scanned_again(uploads: Uploads) -> None:
    attachment = uploads.add(PNG, file_url="/../outside")
    uploads.sweep()
    assert uploads.flags(attachment) == (0, 0)
    other = uploads.add(PNG)
    uploads.execute(
        "UPDATE message_attachments a JOIN message_attachments b ON b.id = :other SET a.file_url = b.file_url WHERE a.id = :id",
        id=attachment,
        other=other,
    )

    uploads.sweep()

    assert uploads.flags(attachment) == (1, 1)
