"""Every policy at its edges: exactly at the cutoff, unknown ages, other time zones, 2038, and rows that change meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches.place import find, start
from db.batches.target import Target
from db.batches.throttle import Throttle
from db.batches.walk import Limits, walk
from db.engine import create_engine
from db.locks import hold
from devstack.stack import Stack
from tasks.retention import ledger
from tasks.retention.plan import plan
from tasks.retention.policies import POLICIES
from tests.retention.rows import conversation, notification, parents

CUTOFF = datetime.fromisoformat("2025-06-01")
LIMITS = Limits(rows=10**6, seconds=60, batch_rows=500, batch_seconds=5)
SECOND, MILLISECOND, MINUTE = timedelta(seconds=1), timedelta(milliseconds=1), timedelta(minutes=1)


@dataclass(frozen=True)
class Case:
    """How a row that is due is written with its age, as SQL; the least step of that age; what keeps it from being due."""

    insert: Callable[[Connection, int, str], object]
    step: timedelta
    changed: str | None = None
    nullable: bool = False
    shared: bool = False


def run(statement: str) -> Callable[[Connection, int, str], object]:
    """Return what executes `statement` with {id} and {age} filled in."""
    return lambda connection, id_, age: connection.execute(text(statement.format(id=id_, age=age)))


def with_status(status: str) -> Callable[[Connection, int, str], object]:
    """Return what inserts an unread notification of this status."""

    def insert(connection: Connection, id_: int, age: str) -> None:
        notification(connection, id_, created=age, is_read="NULL")
        connection.execute(text(f"UPDATE chat_notifications SET delivery_status = '{status}' WHERE id = {id_}"))

    return insert


TARGETS = {name: policy.target for name, policy in POLICIES.items() if isinstance(policy.target, Target)}
CASES = {
    "read_notifications": Case(
        lambda connection, id_, age: notification(connection, id_, created=age),
        SECOND,
        "UPDATE chat_notifications SET is_read = 0",
        nullable=True,
        shared=True,
    ),
    "unread_notifications": Case(with_status("SENT"), SECOND, "UPDATE chat_notifications SET is_read = 1", shared=True),
    "failed_notifications": Case(
        with_status("FAILED"),
        SECOND,
        "INSERT INTO worker_deliveries (notification_id, due_at) SELECT id, NOW(3) FROM chat_notifications",
        shared=True,
    ),
    "bounced_notifications": Case(
        with_status("BOUNCED"), SECOND, "UPDATE chat_notifications SET delivery_status = 'PENDING'", shared=True
    ),
    "closed_conversations": Case(
        lambda connection, id_, age: conversation(connection, id_, is_closed="1", closed_at=age),
        SECOND,
        "UPDATE conversations SET is_closed = 0, last_message_at = NOW()",
        nullable=True,
        shared=True,
    ),
    "idle_conversations": Case(
        lambda connection, id_, age: conversation(connection, id_, last_message_at=age, created_at=age, updated_at=age),
        SECOND,
        "UPDATE conversations SET last_message_at = NOW()",
        shared=True,
    ),
    "typing_indicators": Case(
        run(
            "INSERT INTO typing_indicators (id, conversation_id, user_id, expires_at, started_at)"
            " VALUES ({id}, 1, 1, {age}, NULL)"
        ),
        SECOND,
        "UPDATE typing_indicators SET expires_at = NOW() + INTERVAL 5 SECOND",
        shared=True,
    ),
    "delivery_history": Case(
        run("INSERT INTO worker_delivery_history (notification_id, settled_at, status) VALUES ({id}, {age}, 'X')"), MILLISECOND
    ),
    "delivery_counts": Case(
        run("INSERT INTO worker_delivery_counts VALUES ({age}, 'fcm', 'default', 'sent', '', {id})"), MINUTE
    ),
    "dead_devices": Case(
        run(
            "INSERT INTO worker_dead_devices (device_key, provider, token, recipient_id, notification_id, reason, died_at)"
            " VALUES ('fcm:{id}', 'fcm', 't', 2, 1, 'gone', {age})"
        ),
        MILLISECOND,
        "DELETE FROM worker_dead_devices",
    ),
    "scan_events": Case(
        run("INSERT INTO worker_scan_events (attachment_id, happened_at, event) VALUES ({id}, {age}, 'infected')"), MILLISECOND
    ),
    "orphaned_scans": Case(
        run("INSERT INTO worker_scans (attachment_id, verdict, created_at) VALUES ({id}, 'clean', {age})"),
        MILLISECOND,
        "UPDATE worker_scans SET due_at = NOW(3)",
    ),
    "retention_runs": Case(
        run(
            "INSERT INTO worker_retention_runs (policy, started_by, rule, cutoff, ended_at, started_at)"
            " VALUES ('x', 'x', '', '2025-01-01', NOW(), {age})"
        ),
        MILLISECOND,
    ),
    "events": Case(run("INSERT INTO worker_events (type, data, happened_at) VALUES ('x', '{{}}', {age})"), MILLISECOND),
    "audit": Case(
        run("INSERT INTO worker_audit (who, what, arguments, began_at) VALUES ('x', 'x', '{{}}', {age})"), MILLISECOND
    ),
}
EACH = pytest.mark.parametrize("name", TARGETS)


@pytest.fixture
def families(chat: Engine) -> Engine:
    """A chat with what the rows refer to, whose own conversation is never due."""
    parents(chat)
    with chat.begin() as connection:
        connection.execute(text("UPDATE conversations SET is_closed = 1"))
    return chat


def written(name: str, engine: Engine, cutoff: datetime = CUTOFF) -> int:
    """Walk with a cutoff of our own; return the rows that were written."""
    with hold(engine, "boundaries") as lock:
        return walk(engine, TARGETS[name], str(cutoff), LIMITS, lock, Throttle(10**6, 60)).rows


def insert(engine: Engine, name: str, *ages: datetime | None) -> None:
    with engine.begin() as connection:
        for id_, age in enumerate(ages, 7):
            CASES[name].insert(connection, id_, "NULL" if age is None else f"'{age}'")


def due(engine: Engine, name: str, cutoff: datetime) -> list[datetime]:
    with engine.connect() as connection:
        target = TARGETS[name]
        statement = f"SELECT {POLICIES[name].age_column} FROM {target.table} WHERE {target.predicate} ORDER BY 1"
        return list(connection.execute(text(statement), {"cutoff": str(cutoff)}).scalars())


@EACH
def test_a_row_exactly_at_the_cutoff_stays_and_the_moment_before_goes(families: Engine, name: str) -> None:
    step = CASES[name].step
    insert(families, name, CUTOFF - step, CUTOFF, CUTOFF + step)
    assert due(families, name, CUTOFF) == [CUTOFF - step]
    assert written(name, families) == 1
    # What stayed is due a step later each.
    assert due(families, name, CUTOFF + step) == [CUTOFF]
    assert due(families, name, CUTOFF + 2 * step) == [CUTOFF, CUTOFF + step]


@EACH
def test_the_first_and_the_last_moment_of_a_timestamp_are_told_apart(families: Engine, name: str) -> None:
    first, last = datetime.fromisoformat("1970-01-01 00:01"), datetime.fromisoformat("2038-01-19 03:14")
    insert(families, name, first, last)
    assert written(name, families) == 1 + (name == "typing_indicators")  # for which the last is no end at all
    assert due(families, name, datetime.fromisoformat("2039-01-01")) == [last] * (name != "typing_indicators")
    assert written(name, families, last) == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.nullable])
def test_a_row_whose_age_is_unknown_stays(families: Engine, name: str) -> None:
    insert(families, name, None)
    if name == "read_notifications":
        with families.begin() as connection:
            connection.execute(text("UPDATE chat_notifications SET created_at = NULL"))
    assert written(name, families, datetime.fromisoformat("2038-01-01")) == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.shared and name != "typing_indicators"])
def test_a_row_whose_age_is_a_date_of_zeros_stays(families: Engine, name: str) -> None:
    insert(families, name, CUTOFF - MINUTE)
    column = POLICIES[name].age_column.removeprefix("COALESCE(").partition(",")[0]
    with families.begin() as connection:
        connection.execute(text(f"UPDATE {TARGETS[name].table} SET {column} = 0"))
    assert written(name, families, CUTOFF) == 0


def test_devices_of_which_the_api_says_that_they_died_at_no_time_at_all_keep_no_other(families: Engine) -> None:
    insert(families, "dead_devices", *(CUTOFF - MINUTE,) * 7)
    with families.begin() as connection:
        connection.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        for id_, died_at in enumerate(("0000-00-00", "2025-02-30", "0001-01-01", "9999-12-31 23:59:59.999"), 8):
            connection.execute(text(f"UPDATE worker_dead_devices SET died_at = '{died_at}' WHERE device_key = 'fcm:{id_}'"))
        connection.execute(text("SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"))
    assert plan(families, POLICIES["dead_devices"], seconds=9).count.rows == 5
    assert written("dead_devices", families) == 5
    with families.connect() as connection:
        left = connection.execute(text("SELECT device_key FROM worker_dead_devices ORDER BY 1")).scalars().all()
    assert left == ["fcm:11", "fcm:8"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.changed])
@pytest.mark.parametrize("by", ["keys", "range"])
def test_a_row_that_was_found_and_then_unread_reopened_renewed_or_claimed_stays(families: Engine, name: str, by: str) -> None:
    target, changed = TARGETS[name], CASES[name].changed
    assert changed is not None
    insert(families, name, CUTOFF - MINUTE)
    place = start(families, target, str(CUTOFF))
    keys, behind = find(families, target, place, 10)
    assert len(keys) == 1
    with families.begin() as api:
        api.execute(text(changed))
    with families.begin() as batch:
        if by == "keys":
            assert target.write(batch, target.among(keys), str(CUTOFF)) == 0
        else:
            assert target.write(batch, target.between(place.after, behind.after), str(CUTOFF)) == 0


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.shared])
@pytest.mark.parametrize("zone", ["-11:00", "+13:00"])
def test_an_api_in_another_time_zone_moves_no_boundary(families: Engine, name: str, zone: str) -> None:
    """The API's session writes the same moments, as its own clock shows them."""
    with families.connect() as api:
        api.execute(text(f"SET time_zone = '{zone}'"))
        for id_, moment in enumerate((CUTOFF - SECOND, CUTOFF), 7):
            CASES[name].insert(api, id_, f"FROM_UNIXTIME({int(moment.replace(tzinfo=UTC).timestamp())})")
        api.commit()
        api.execute(text("SET time_zone = '+00:00'"))
    assert due(families, name, CUTOFF + SECOND) == [CUTOFF - SECOND, CUTOFF]
    assert written(name, families) == 1


@pytest.fixture
def elsewhere(families: Engine, stack: Stack) -> Iterator[Engine]:
    """The chat on a server whose own time zone is not UTC."""
    with stack.mariadb.root() as cursor:
        cursor.execute("SET GLOBAL time_zone = '-09:30'")
        engine = create_engine(families.url.render_as_string(hide_password=False))
        yield engine
        engine.dispose()
        cursor.execute("SET GLOBAL time_zone = DEFAULT")


@EACH
def test_the_servers_own_time_zone_moves_no_boundary(elsewhere: Engine, name: str) -> None:
    age = timedelta(days=90)
    with elsewhere.connect() as connection:
        cutoff = ledger.cutoff(connection, age)
        assert isinstance(cutoff, datetime)
        assert abs(datetime.now(UTC).replace(tzinfo=None) - age - cutoff) < timedelta(minutes=5)
    at = cutoff.replace(second=0)
    insert(elsewhere, name, at - MINUTE, at)
    assert written(name, elsewhere, at) == 1


@pytest.mark.parametrize(
    "now",
    ["2026-03-29 00:59:59", "2026-03-29 01:30:00", "2026-10-25 01:30:00", "2026-11-01 09:30:00", "2038-01-19 03:14:07"],
    ids=["before summer time", "in the hour that Berlin leaves out", "in its second 02:30", "New York's", "the last second"],
)
def test_an_age_is_so_many_seconds_whatever_clocks_are_put_forward_in_it(families: Engine, now: str) -> None:
    moment = datetime.fromisoformat(now)
    with families.connect() as connection:
        connection.execute(text(f"SET timestamp = {int(moment.replace(tzinfo=UTC).timestamp())}"))
        try:
            cutoffs = [ledger.cutoff(connection, timedelta(days=days)) for days in (1, 90, 365)]
        finally:
            connection.execute(text("SET timestamp = DEFAULT"))
    assert cutoffs == [moment - timedelta(days=days) for days in (1, 90, 365)]


def test_every_policy_is_tested_here() -> None:
    assert CASES.keys() == TARGETS.keys()


def test_a_scan_record_goes_only_with_its_attachment_and_not_while_it_tells_where_a_copy_lies(families: Engine) -> None:
    with families.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO message_attachments (id, message_id, file_name, file_url, uploaded_by_id)"
                " VALUES (1, 1, 'a', '/files/a', 1)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO worker_scans (attachment_id, verdict, quarantine, lease, due_at, scanned_at, created_at) VALUES"
                " (1, 'clean', '', NULL, NULL, '2025-01-01', '2025-01-01'),"
                " (2, 'clean', '', NULL, NULL, '2025-01-01', '2025-01-01'),"
                " (3, 'infected', 's3://quarantine/3', NULL, NULL, '2025-01-01', '2025-01-01'),"
                " (4, 'infected', 'pending', NULL, NULL, '2025-01-01', '2025-01-01'),"
                " (5, 'infected', 'missing', NULL, NULL, '2025-01-01', '2025-01-01'),"
                " (6, 'clean', '', 'a run', '2025-01-01', '2025-01-01', '2025-01-01'),"
                " (7, 'clean', '', NULL, NULL, '2025-07-01', '2025-01-01'),"
                " (8, 'waiting', '', NULL, NULL, NULL, '2025-01-01')"
            )
        )
    assert written("orphaned_scans", families) == 3
    with families.connect() as connection:
        left = connection.execute(text("SELECT attachment_id FROM worker_scans ORDER BY 1")).scalars().all()
    assert left == [1, 3, 4, 6, 7]


def test_uploads_go_on_while_orphaned_records_are_deleted(families: Engine) -> None:
    target = TARGETS["orphaned_scans"]
    insert(families, "orphaned_scans", CUTOFF - MINUTE, CUTOFF - MINUTE)
    with families.begin() as batch:
        assert target.write(batch, target.between(0, 100), str(CUTOFF)) == 2
        with families.begin() as api:
            api.execute(text("SET innodb_lock_wait_timeout = 1"))
            api.execute(
                text(
                    "INSERT INTO message_attachments (id, message_id, file_name, file_url, uploaded_by_id)"
                    " VALUES (8, 1, 'a', '/files/a', 1), (99, 1, 'b', '/files/b', 1)"
                )
            )
