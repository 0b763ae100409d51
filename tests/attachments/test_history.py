"""What says (1, 1) without a verdict of ours: a client's own flags, rows from before the workers, a restore without records."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from tasks import pause
from tasks.attachments import find_unqueued, operations
from tasks.attachments.scannable import EICAR
from workers.cli import cli

from .conftest import Uploads
from .samples import PNG

SERVED = {"scanned_for_virus": 1, "is_safe": 1}


def history(*options: str) -> Any:
    done = CliRunner().invoke(cli, ["attachments", "history", "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.mark.parametrize("columns", [{}, {"created_at": "2020-01-01 00:00:00"}, {"created_at": None}], ids=str)
def test_flags_that_a_client_sets_itself_open_nothing(uploads: Uploads, clamd: Any, columns: dict[str, Any]) -> None:
    uploads.sweep()
    forged = uploads.add(EICAR, **SERVED, **columns)
    clamd.kill()
    uploads.sweep()
    assert uploads.flags(forged) == (0, 0)

    clamd.start()
    uploads.make_due()
    uploads.sweep()
    assert uploads.flags(forged) == (1, 0)


def test_a_forged_row_that_waits_for_its_scan_is_blocked_too(uploads: Uploads) -> None:
    uploads.sweep()
    forged = uploads.add(None)
    uploads.sweep()
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 1 WHERE id = :id", id=forged)

    find_unqueued.find_recent(uploads.engine)

    assert uploads.flags(forged) == (0, 0)


@pytest.fixture
def wide_ids(uploads: Uploads) -> Iterator[None]:
    uploads.execute("ALTER TABLE message_attachments MODIFY id BIGINT NOT NULL AUTO_INCREMENT")
    yield
    uploads.execute("DELETE FROM message_attachments")
    uploads.execute("ALTER TABLE message_attachments MODIFY id INT NOT NULL AUTO_INCREMENT, AUTO_INCREMENT = 1")


@pytest.mark.parametrize(
    ("chosen", "walk"),
    [
        (-5, find_unqueued.find_older),
        (-(2**63), find_unqueued.find_older),
        (2**63 - 1, find_unqueued.find_older),
        (2**63 - 1, find_unqueued.find_recent),
    ],
)
@pytest.mark.usefixtures("wide_ids")
def test_no_id_that_a_client_chooses_is_beyond_the_walks(uploads: Uploads, chosen: int, walk: Any) -> None:
    old = SERVED | {"created_at": "2020-01-01 00:00:00"}
    for _ in range(3):
        uploads.add(PNG, **old)
    uploads.sweep()
    uploads.add(EICAR, id=chosen, **old)

    for _ in range(3):
        walk(uploads.engine, page=2)

    assert uploads.flags(chosen) == (0, 0)
    uploads.sweep()
    assert uploads.flags(chosen) == (1, 0)
    assert operations.rescan_verdict(uploads.engine, "infected") == 1


def test_rows_from_before_the_workers_stay_as_they_are_until_an_operator_chooses(uploads: Uploads) -> None:
    old = [uploads.add(content, **SERVED, file_size=len(content)) for content in (PNG, EICAR)]
    for _ in range(2):
        uploads.sweep()

    assert [uploads.flags(each) for each in old] == [(1, 1), (1, 1)]
    found = history()
    assert (found["attachments"], found["bytes"], found["choice"]) == (2, len(PNG + EICAR), None)


@pytest.mark.parametrize(("choice", "meanwhile"), [("--scan", (1, 1)), ("--block", (0, 0))])
def test_they_are_scanned_while_they_are_served_or_blocked_until_then(
    uploads: Uploads, choice: str, meanwhile: tuple[int, int]
) -> None:
    old = [uploads.add(content, **SERVED) for content in (PNG, EICAR)]
    uploads.sweep()

    history(choice)
    find_unqueued.find_older(uploads.engine)
    find_unqueued.find_recent(uploads.engine)

    assert [uploads.flags(each) for each in old] == [meanwhile] * 2
    assert {uploads.record(each).lane for each in old} == {1}
    uploads.sweep()
    assert [uploads.flags(each) for each in old] == [(1, 1), (1, 0)]
    assert history()["attachments"] == 0


def test_an_id_that_was_free_when_the_workers_came_is_a_client_s_once_the_walk_has_been_past_it(
    uploads: Uploads, clamd: Any
) -> None:
    before = SERVED | {"created_at": "2019-01-01 00:00:00"}
    old = [uploads.add(PNG, **before) for _ in range(3)]
    uploads.execute("DELETE FROM message_attachments WHERE id = :id", id=old[1])
    uploads.sweep()
    history("--scan")
    find_unqueued.find_older(uploads.engine, page=2)
    find_unqueued.find_older(uploads.engine, page=2)
    assert {uploads.flags(old[0]), uploads.flags(old[2])} == {(1, 1)}

    forged = uploads.add(EICAR, id=old[1], file_url="/files/forged", **before)
    clamd.kill()
    uploads.sweep()
    assert uploads.flags(forged) == (0, 0)
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 1, is_safe = 1 WHERE id = :id", id=forged)
    for _ in range(2):
        uploads.make_due()
        uploads.sweep()
    assert [uploads.flags(each) for each in (old[0], forged, old[2])] == [(1, 1), (0, 0), (1, 1)]
    assert history()["choice"] == "scan"

    clamd.start()
    uploads.make_due()
    uploads.sweep()
    assert [uploads.flags(each) for each in (old[0], forged, old[2])] == [(1, 1), (1, 0), (1, 1)]


def test_where_all_records_were_lost_the_operator_is_asked_before_any_row_is_touched(uploads: Uploads) -> None:
    uploads.sweep()
    old = [uploads.add(content) for content in (PNG, EICAR)]
    for _ in range(2):
        uploads.sweep()
    assert history()["choice"] == "scan"  # of an empty table: there was nothing to choose

    uploads.execute("DELETE FROM worker_scans")
    for _ in range(2):
        uploads.sweep()

    assert [uploads.flags(each) for each in old] == [(1, 1), (1, 0)]
    assert (history()["attachments"], history()["choice"]) == (1, None)
    forged = uploads.add(EICAR + b"\n", **SERVED, created_at="2030-01-01 00:00:00")
    history("--scan")
    for _ in range(2):
        uploads.sweep()
    assert [uploads.flags(each) for each in (*old, forged)] == [(1, 1), (1, 0), (1, 0)]


def test_records_that_are_gone_while_a_restore_lasts_are_not_lost(uploads: Uploads) -> None:
    scanned, waiting = uploads.add(PNG), uploads.add(PNG, file_url="/files/waiting")
    uploads.scan(scanned)
    for _ in range(2):
        find_unqueued.history(uploads.engine)
    with pause.held(uploads.engine, "ana@ops", "a restore"):
        uploads.execute("DELETE FROM worker_scans")
        uploads.sweep()
        uploads.scan(waiting)
        history()  # an operator looks
        with uploads.engine.connect() as connection:
            assert "records" in connection.execute(text("SELECT walk FROM worker_scan_walks")).scalars().all()
    assert (uploads.flags(scanned), uploads.flags(waiting)) == ((1, 1), (0, 1))
    uploads.sweep()
    assert uploads.flags(waiting) == (1, 1)


def test_what_is_from_before_the_workers_is_counted_page_by_page(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "HISTORY_PAGE", 2)
    old = [uploads.add(PNG, **SERVED, file_size=10, created_at=f"2020-01-0{day} 00:00:00") for day in range(1, 6)]
    uploads.execute("UPDATE message_attachments SET is_safe = 0 WHERE id = :id", id=old[0])
    uploads.sweep()
    found = history()
    assert (found["attachments"], found["bytes"]) == (4, 40)


def test_where_nothing_is_older_nothing_is_asked(uploads: Uploads) -> None:
    uploads.sweep()
    assert history()["choice"] == "scan"


def test_where_rows_are_older_but_none_is_served_nothing_is_asked_either(
    uploads: Uploads, capsys: pytest.CaptureFixture[str]
) -> None:
    uploads.add(PNG)
    uploads.sweep()
    assert "served unscanned" not in capsys.readouterr().out
    assert "nothing to choose" in CliRunner().invoke(cli, ["attachments", "history"]).output
