"""What becomes of the record of a row that someone holds locked; that it holds no other up: tests/one_row."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tasks.attachments import operations

from .conftest import Uploads
from .samples import PNG

Hold = Callable[[int], Callable[[], None]]


@pytest.fixture
def hold(uploads: Uploads) -> Iterator[Hold]:
    """Hold a row in a transaction of the API's; what is returned ends it."""
    with uploads.engine.connect() as api:

        def hold(attachment: int) -> Callable[[], None]:
            api.execute(text("SELECT id FROM message_attachments WHERE id = :id FOR UPDATE"), {"id": attachment})
            return api.rollback

        yield hold


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
