"""Every writer of message_attachments: a row that it cannot write, or cannot read, keeps no other from its scan."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from db.engine import get_engine
from tasks.attachments import operations
from tasks.attachments.scannable import EICAR
from tests.attachments.conftest import Uploads, folder, uploads
from tests.attachments.samples import PNG
from tests.one_row.odd import TO_UPDATE, Rows, locked

__all__ = ["folder", "uploads"]

CLEAN, BAD = "scanned_for_virus = 1 AND is_safe = 1", "scanned_for_virus = 1 AND is_safe = 0"


def sweep(uploads: Uploads, _: list[int]) -> None:
    uploads.sweep()


def call(uploads: Uploads, ids: list[int]) -> None:
    for id_ in ids:
        uploads.scan(id_)


def rescan(uploads: Uploads, ids: list[int]) -> None:
    operations.rescan(uploads.engine, ids)
    uploads.sweep()


@dataclass(frozen=True)
class Writer:
    """Rows of `content`, `swept` or not, of which `first`, SQL, makes what it finds; `done` holds of those it has written."""

    content: bytes
    done: str
    first: str = ""
    swept: bool = True
    run: Callable[[Uploads, list[int]], None] = sweep


SERVED = "scanned_for_virus = 1, is_safe = 1"
WRITERS = {
    "clean": Writer(PNG, CLEAN, swept=False),
    "infected": Writer(EICAR, BAD, swept=False),
    "called": Writer(PNG, CLEAN, swept=False, run=call),
    "forged": Writer(EICAR, BAD, SERVED, swept=False),
    "served though infected": Writer(EICAR, BAD, SERVED),
    "of another file": Writer(EICAR, BAD, f"{SERVED}, file_url = CONCAT(file_url, '2')"),
    "under another row's id": Writer(EICAR, BAD, "scanned_for_virus = 0, created_at = created_at - INTERVAL 1 MINUTE"),
    "reset": Writer(PNG, CLEAN, "scanned_for_virus = 0, is_safe = 1"),
    "old": Writer(PNG, CLEAN, "created_at = '2020-02-02'", swept=False),
    "rescanned": Writer(EICAR, BAD, SERVED, run=rescan),
}


@pytest.mark.parametrize(("name", "way"), [(name, way) for name in WRITERS for way in TO_UPDATE])
def test_the_others_are_scanned_and_the_odd_one_when_it_can_be(uploads: Uploads, name: str, way: str) -> None:
    writer = WRITERS[name]
    uploads.sweep()  # all rows are from after the workers
    ids = [uploads.add(writer.content) for _ in range(5)]
    for id_ in ids:
        (path := uploads.path(id_)).with_name(f"{path.name}2").write_bytes(writer.content)
    if writer.swept:
        uploads.sweep()
    if writer.first:
        uploads.execute(f"UPDATE message_attachments SET {writer.first}")
    rows = Rows(uploads.engine, "message_attachments", writer.done, mark="file_url")
    with TO_UPDATE[way](rows, ids[2]):
        for _ in range(2):
            writer.run(uploads, ids)
            assert rows.left() == [ids[2]]
            record = uploads.record(ids[2])
            assert record.claims == 0  # no suspect, that would be scanned alone
            assert record.verdict in ({"unverified", "infected"} if writer.content is EICAR else {"waiting", "clean"})
            uploads.make_due()
    writer.run(uploads, ids)
    assert rows.left() == []
    told = {event for id_ in ids for event in uploads.events(id_)[-1:]}
    assert told == ({"infected"} if writer.content is EICAR else set())


def test_the_others_are_scanned_though_someone_holds_a_record(uploads: Uploads) -> None:
    """As a worker whose host has vanished does, until the server misses it."""
    ids = [uploads.add(PNG) for _ in range(5)]
    uploads.sweep()
    uploads.execute(f"UPDATE message_attachments SET {WRITERS['reset'].first}")
    new = uploads.add(PNG)
    with locked(Rows(uploads.engine, "worker_scans", "FALSE", "attachment_id"), ids[2]):
        uploads.sweep()
        assert uploads.flags(new) == (1, 1)
        assert [uploads.flags(id_)[0] for id_ in ids] == [1, 1, 0, 1, 1]
    uploads.sweep()
    assert uploads.flags(ids[2])[0] == 1


HALF = "CONVERT(X'2F66EDA0802F62' USING utf8mb4)"
NULLABLE = {
    "message_id": "INT",
    "uploaded_by_id": "INT",
    "file_name": "VARCHAR(255)",
    "file_url": "VARCHAR(2000)",
    "file_size": "INT",
    "scanned_for_virus": "BOOLEAN DEFAULT 0",
    "is_safe": "BOOLEAN DEFAULT 1",
    "created_at": "TIMESTAMP NULL DEFAULT NOW()",
}
VALUES = {
    **{f"NULL in {column}": f"{column} = NULL" for column in NULLABLE},
    "no address": "file_url = ''",
    "a long address": "file_url = CONCAT('/', REPEAT('👍', 1000))",
    "a long part of an address": "file_url = CONCAT('/', REPEAT('x', 400))",
    "control signs": "file_url = CONCAT('/a', CHAR(0), CHAR(10), '%00'), file_name = CHAR(0)",
    "a size of no file": "file_size = -2147483648",
    "dates of zeros": "created_at = 0",
    "the last date": "created_at = '2038-01-19 03:14:07'",
    "the lowest id": f"id = {-(2**63)}",
    "the highest id": f"id = {2**63 - 1}",
    "id 0": "id = 0",
}
if os.environ.get("DEVSTACK_DATABASE") != "mysql":
    VALUES |= {f"half a pair in {column}": f"{column} = {HALF}" for column in ("file_url", "file_name")}


@pytest.fixture(scope="module")
def lenient(environment: dict[str, str]) -> Iterator[None]:
    """A schema that allows all of that."""
    assert environment
    with get_engine().begin() as connection:
        before = connection.execute(text("SHOW CREATE TABLE message_attachments")).one()[1]
        changes = [f"MODIFY {name} {kind} NULL" for name, kind in NULLABLE.items() if "NULL" not in kind]
        changes += [f"MODIFY {name} {kind}" for name, kind in NULLABLE.items() if "NULL" in kind]
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        connection.execute(text(f"ALTER TABLE message_attachments {', '.join(changes)}, MODIFY id BIGINT AUTO_INCREMENT"))
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    yield
    with get_engine().begin() as connection:
        connection.execute(text("DROP TABLE message_attachments"))
        connection.exec_driver_sql(before)


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("what", VALUES)
def test_the_others_are_scanned_whatever_the_odd_one_says(uploads: Uploads, what: str) -> None:
    uploads.sweep()
    ids = [uploads.add(PNG) for _ in range(5)]
    with uploads.engine.connect() as connection:
        connection.execute(text("SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', FOREIGN_KEY_CHECKS = 0"))
        connection.execute(text(f"UPDATE message_attachments SET {VALUES[what]} WHERE id = {ids[2]}"))
        connection.commit()
        connection.invalidate()
    rows = Rows(uploads.engine, "message_attachments", CLEAN)
    for _ in range(6):
        uploads.sweep()
        assert [id_ for id_ in rows.left() if id_ in ids and id_ != ids[2]] == []
        uploads.make_due()
    for left in rows.left():
        record = uploads.record(int(left))
        assert (record.claims, record.attempts > 0 or record.verdict == "unscannable") == (0, True)
    uploads.execute("TRUNCATE TABLE message_attachments")  # no id is given behind the highest one
