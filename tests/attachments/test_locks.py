"""Rows that someone holds locked, or the schema refuses, hold no other up: they are blocked and settled when they can be."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tasks.attachments import operations
from tasks.attachments.scannable import EICAR

from .conftest import Uploads
from .samples import PNG

Hold = Callable[[int], Callable[[], None]]

SERVED = "scanned_for_virus = 1, is_safe = 1"
# What someone has written into the row before it is locked; the last three after its scan.
LOCKED = {
    "new": "",
    "forged": SERVED,
    "served though infected": SERVED,
    "of another file": "file_url = '/files/1'",
    "under another row's id": "scanned_for_virus = 0, created_at = created_at - INTERVAL 1 MINUTE",
}
SCANNED = [*LOCKED][2:]


@pytest.fixture
def hold(uploads: Uploads) -> Iterator[Hold]:
    """Hold a row in a transaction of the API's; what is returned ends it."""
    with uploads.engine.connect() as api:

        def hold(attachment: int) -> Callable[[], None]:
            api.execute(text("SELECT id FROM message_attachments WHERE id = :id FOR UPDATE"), {"id": attachment})
            return api.rollback

        yield hold


@pytest.mark.parametrize("kind", LOCKED)
def test_a_locked_row_holds_no_other_up_and_is_scanned_when_it_is_free(uploads: Uploads, hold: Hold, kind: str) -> None:
    for content in (PNG, EICAR):
        uploads.add(content)
    uploads.sweep()  # all that comes now is from after the workers
    locked, other = (uploads.add(EICAR, file_url=f"/files/{name}") for name in ("virus", "other virus"))
    if kind in SCANNED:
        uploads.sweep()
    if LOCKED[kind]:
        uploads.execute(f"UPDATE message_attachments SET {LOCKED[kind]} WHERE id IN ({locked}, {other})")
    before = uploads.flags(locked)
    let_go = hold(locked)
    new, forged = uploads.add(PNG), uploads.add(EICAR, scanned_for_virus=1, is_safe=1)

    for _ in range(3):
        uploads.sweep()
        assert (uploads.flags(new), uploads.flags(forged), uploads.flags(other)) == ((1, 1), (1, 0), (1, 0))
        assert (uploads.flags(locked), uploads.record(locked).claims) == (before, 0)
        assert uploads.record(locked).verdict in {"unverified", "infected"}  # a gate by the record lets nobody have it
        uploads.make_due()

    let_go()
    uploads.sweep()
    assert (uploads.flags(locked), uploads.record(locked).verdict) == ((1, 0), "infected")
    assert uploads.events(locked)[-1] == "infected"


def test_a_clean_row_that_is_locked_is_no_suspect_and_served_when_it_is_free(uploads: Uploads, hold: Hold) -> None:
    locked = uploads.add(PNG)
    let_go = hold(locked)
    for _ in range(8):
        uploads.sweep()
        record = uploads.record(locked)
        assert (record.verdict, record.claims, record.attempts, record.lease) == ("waiting", 0, 0, None)
        uploads.make_due()

    let_go()
    uploads.sweep()
    assert (uploads.flags(locked), uploads.record(locked).due_at, uploads.events(locked)) == ((1, 1), None, [])


def test_the_time_that_a_row_is_locked_is_none_that_its_file_has_to_arrive(uploads: Uploads, hold: Hold) -> None:
    locked = uploads.add(PNG)
    let_go = hold(locked)
    for _ in range(8):
        uploads.sweep()
        uploads.make_due()
    uploads.path(locked).unlink()

    let_go()
    uploads.sweep()
    record = uploads.record(locked)
    assert (uploads.flags(locked), record.verdict, record.attempts) == ((0, 1), "waiting", 1)


def test_what_broke_scans_off_is_not_forgotten_while_its_row_is_locked(uploads: Uploads, hold: Hold) -> None:
    locked = uploads.add(PNG)
    uploads.execute("INSERT INTO worker_scans (attachment_id, due_at, claims) VALUES (:id, NOW(3), 5)", id=locked)
    let_go = hold(locked)
    uploads.sweep()
    assert uploads.record(locked).claims >= 5

    let_go()
    uploads.make_due()
    uploads.sweep()
    assert (uploads.flags(locked), uploads.record(locked).reason[:10]) == ((0, 0), "5 scans of")


def test_calls_and_orders_wait_for_no_locked_row(uploads: Uploads, hold: Hold) -> None:
    locked = uploads.add(PNG)
    uploads.sweep()
    uploads.execute("UPDATE worker_scans SET scanned_at = scanned_at - INTERVAL 1 HOUR")
    hold(locked)
    assert uploads.scan(locked).verdicts == {"left to the sweep": 1}
    assert operations.rescan(uploads.engine, [locked]) == 1
    assert uploads.record(locked).forced


def test_rows_whose_flags_a_trigger_refuses_hold_no_other_up(uploads: Uploads) -> None:
    uploads.add(PNG)
    uploads.sweep()
    waiting, forged = uploads.add(PNG), uploads.add(EICAR, scanned_for_virus=1, is_safe=1)
    uploads.execute(f"""
        CREATE TRIGGER refuse BEFORE UPDATE ON message_attachments FOR EACH ROW
        IF NEW.id IN ({waiting}, {forged}) THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'on hold'; END IF
    """)
    try:
        others = [uploads.add(content) for content in (PNG, EICAR, b"text")]
        uploads.sweep()
        assert [uploads.flags(attachment) for attachment in others] == [(1, 1), (1, 0), (1, 1)]
        assert uploads.record(forged).verdict == "unverified"
    finally:
        uploads.execute("DROP TRIGGER refuse")
    uploads.make_due()
    uploads.sweep()
    assert (uploads.flags(waiting), uploads.flags(forged)) == ((1, 1), (1, 0))


def test_what_keeps_a_look_for_rows_from_its_work_keeps_no_other_from_it(uploads: Uploads) -> None:
    uploads.add(PNG)
    uploads.sweep()
    old, new = uploads.add(PNG, created_at="2026-01-01 00:00:00"), uploads.add(PNG)
    uploads.execute("""
        CREATE TRIGGER refuse BEFORE UPDATE ON worker_scan_walks FOR EACH ROW
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no walk moves'
    """)
    try:
        with pytest.raises(DBAPIError, match="no walk moves"):  # as a task that fails is seen
            uploads.sweep()
        assert uploads.flags(new) == (1, 1)
    finally:
        uploads.execute("DROP TRIGGER refuse")
    uploads.sweep()
    assert uploads.flags(old) == (1, 1)
