"""The batch engine: exactly the matching rows, in bounded transactions, from any place, under any interference."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from db.batches.batch import STATEMENT_ROWS
from db.batches.count import count
from db.batches.place import find, start
from db.batches.target import MINUTE, Target
from db.batches.throttle import CHECK_SECONDS, RUNNING, Throttle
from db.batches.walk import Limits, Progress, next_size, walk
from db.engine import create_engine
from db.locks import hold, is_held
from db.migrate import migrate
from devstack.stack import Stack
from settings import get_settings
from tests.processes import wait_until

OLD = Target("things", "age < :cutoff")
CUTOFF = "2026-01-01 00:00:00"
# A batch may last so long that none is made smaller on a slow machine.
LIMITS = Limits(rows=1_000_000, seconds=60, batch_rows=500, batch_seconds=5)
FREE = Throttle(10_000, 60)


@pytest.fixture
def things(engine: Engine) -> Engine:
    """A database with an empty table of things that have an age."""
    with engine.begin() as connection:
        connection.execute(
            text("CREATE TABLE things (id INT AUTO_INCREMENT PRIMARY KEY, age DATETIME NULL, touched INT DEFAULT 0)")
        )
    return engine


def fill(engine: Engine, ids: Any, age: str = "'2025-01-01'") -> None:
    with engine.begin() as connection:
        values = ", ".join(f"({id_}, {age})" for id_ in ids)
        connection.execute(text(f"INSERT INTO things (id, age) VALUES {values}"))


def left(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT id FROM things ORDER BY id")).scalars())


def purge(engine: Engine, target: Target = OLD, limits: Limits = LIMITS, **options: Any) -> Progress:
    with hold(engine, "test") as lock:
        return walk(engine, target, CUTOFF, limits, lock, options.pop("throttle", FREE), **options)


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """What is sent to the server."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    "ids",
    [range(1, 3001), range(1, 30_000, 10), (1, 2_000_000_000), (7,), range(-5, 0)],
    ids=["dense", "sparse", "a gap of two billion", "one", "negative"],
)
def test_all_that_matches_goes_whatever_the_keys_look_like(things: Engine, ids: Any) -> None:
    fill(things, ids)
    walked = purge(things)
    assert left(things) == []
    assert (walked.why, walked.rows) == ("finished", len(ids))


def test_an_empty_table_is_finished_at_once(things: Engine) -> None:
    assert purge(things).why == "finished"


def test_what_does_not_match_stays_in_dense_and_in_sparse_stretches(things: Engine) -> None:
    fill(things, range(1, 2001))
    fill(things, range(2001, 4001), "'2026-06-01'")
    fill(things, range(4001, 4011), "NULL")
    fill(things, range(50_000, 51_000))
    with things.begin() as connection:
        connection.execute(text(f"UPDATE things SET age = '{CUTOFF}' WHERE id % 3 = 0 AND id <= 2000"))
    walked = purge(things)
    expected = [i for i in range(1, 2001) if i % 3 == 0] + list(range(2001, 4011))
    assert left(things) == expected
    assert walked.rows == 5010 - len(expected)


def test_no_transaction_writes_more_rows_than_the_batch_limit(things: Engine) -> None:
    fill(things, range(1, 3001))
    written: list[int] = []
    purge(things, limits=replace(LIMITS, batch_rows=100), record=lambda _c, rows: written.append(rows))
    assert sum(written) == 3000
    assert max(written) <= 100


def test_no_query_reads_more_keys_than_a_window(things: Engine, statements: list[str]) -> None:
    fill(things, range(1, 90_001, 30), "'2026-06-01'")
    purge(things)
    searches = [statement for statement in statements if statement.startswith("SELECT DISTINCT")]
    assert len(searches) == 5
    with things.connect() as connection:
        parameters = {"cutoff": CUTOFF, "after": 0, "until": 20_000, "rows": 100}
        plan = connection.execute(OLD.explain, parameters).mappings().one()
    assert (plan["type"], plan["key"]) == ("range", "PRIMARY")


def test_a_row_that_changes_between_search_and_write_stays(things: Engine) -> None:
    fill(things, range(1, 101, 5))
    found, _ = find(things, OLD, start(things, OLD, CUTOFF), 100)
    with things.begin() as connection:
        connection.execute(text("UPDATE things SET age = '2026-06-01' WHERE id = 51"))
    with things.begin() as connection:
        assert OLD.write(connection, OLD.among(found), CUTOFF) == len(found) - 1 == 19
    assert left(things) == [51]


def test_rows_that_come_after_the_start_are_left_for_the_next_walk(things: Engine) -> None:
    fill(things, range(1, 11))
    late: list[int] = []

    def halt() -> None:
        late.append(20 + len(late))
        fill(things, late[-1:])

    assert purge(things, halt=halt).why == "finished"
    assert left(things) == late != []


def test_it_ends_at_its_rows_and_the_next_goes_on_from_there(things: Engine) -> None:
    fill(things, range(1, 1001))
    first = purge(things, limits=replace(LIMITS, rows=300))
    assert (first.why, first.rows, left(things)) == ("its rows per run are done", 300, list(range(301, 1001)))
    second = purge(things)
    assert (second.why, second.rows, left(things)) == ("finished", 700, [])


def test_it_ends_when_its_time_is_up(things: Engine) -> None:
    fill(things, range(1, 1001))
    walked = purge(things, limits=replace(LIMITS, seconds=0.0))
    assert (walked.why, walked.rows) == ("its time is up", 0)


def test_it_ends_between_two_batches_when_told_to(things: Engine) -> None:
    fill(things, range(1, 1001))
    asked: list[Progress] = []
    walked = purge(
        things,
        limits=replace(LIMITS, batch_rows=100),
        progress=asked.append,
        halt=lambda: "enough" if len(asked) == 3 else None,
    )
    assert (walked.why, walked.rows, len(left(things))) == ("enough", 300, 700)


def test_a_change_is_written_once_to_each_row(things: Engine) -> None:
    fill(things, range(1, 1001))
    target = Target("things", "age < :cutoff AND touched < 1", change="touched = touched + 1")
    assert purge(things, target).rows == 1000
    assert purge(things, target).rows == 0
    with things.connect() as connection:
        assert connection.execute(text("SELECT SUM(touched), MAX(touched) FROM things")).one() == (1000, 1)


def test_a_table_without_an_id_is_walked_by_its_minutes(things: Engine) -> None:
    with things.begin() as connection:
        connection.execute(text("CREATE TABLE counts (minute DATETIME, what INT, PRIMARY KEY (minute, what))"))
        minutes = [f"('2025-12-31 {h:02d}:{m:02d}:00', {w})" for h in (0, 3, 23) for m in range(60) for w in range(3)]
        connection.execute(text(f"INSERT INTO counts VALUES {', '.join(minutes)}, ('{CUTOFF}', 1), ('2027-01-01', 1)"))
    target = Target("counts", "minute < :cutoff", key=MINUTE)
    assert purge(things, target, replace(LIMITS, batch_rows=25)).rows == 540
    with things.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM counts")).scalar() == 2


def test_what_record_counts_is_true_when_the_process_dies_at_any_batch(things: Engine) -> None:
    """The process is cut off in the middle of a transaction: neither its rows nor its count are there."""
    fill(things, range(1, 1001))
    with things.begin() as connection:
        connection.execute(text("CREATE TABLE counted (rows_done INT)"))
        connection.execute(text("INSERT INTO counted VALUES (0)"))

    class Died(BaseException):
        pass

    def record(connection: Connection, rows: int) -> None:
        connection.execute(text("UPDATE counted SET rows_done = rows_done + :r"), {"r": rows})
        if connection.execute(text("SELECT rows_done FROM counted")).scalar_one() > 250:
            raise Died

    with pytest.raises(Died):
        purge(things, limits=replace(LIMITS, batch_rows=100), record=record)
    with things.connect() as connection:
        rows = connection.execute(text("SELECT rows_done FROM counted")).scalar_one()
    assert rows
    assert left(things) == list(range(rows + 1, 1001))


@pytest.mark.parametrize("step", [1, 10], ids=["dense", "sparse"])
def test_a_row_that_the_api_holds_is_passed_over_and_counted_and_those_behind_it_go(things: Engine, step: int) -> None:
    fill(things, range(step, 3001 * step, step))
    with things.connect() as api:
        api.execute(text(f"UPDATE things SET touched = 5 WHERE id IN ({700 * step}, {2000 * step})"))
        walked = purge(things)
        assert left(things) == [700 * step, 2000 * step]
        api.commit()
    assert (walked.why, walked.rows, walked.skipped) == ("finished", 2998, 2)
    again = purge(things)
    assert (again.rows, again.skipped) == (2, 0)


def test_a_row_that_stays_and_that_the_api_holds_keeps_no_batch_waiting(things: Engine) -> None:
    fill(things, range(1, 1001))
    with things.connect() as api:
        api.execute(text("UPDATE things SET age = '2026-06-01' WHERE id = 500"))
        api.commit()
        api.execute(text("UPDATE things SET touched = 5 WHERE id = 500"))
        walked = purge(things)
    assert (walked.rows, walked.skipped, left(things)) == (999, 0, [500])


def test_a_batch_that_has_had_its_time_is_committed_early(things: Engine) -> None:
    """Batches grow while rows are quick; then each row takes the server a while, as when nothing of it is in memory."""
    cold = 4000
    fill(things, range(1, 2 * cold + 1))
    with things.begin() as connection:
        connection.execute(
            text(f"CREATE TRIGGER cold BEFORE DELETE ON things FOR EACH ROW DO IF(OLD.id > {cold}, SLEEP(5e-4), 0)")
        )
    written: list[int] = []

    def record(connection: Connection, rows: int) -> None:
        first = connection.execute(text("SELECT MIN(id) FROM things")).scalar()
        written.extend([rows] if first is None or first > cold + 1 else [])

    walked = purge(
        things,
        limits=replace(LIMITS, batch_rows=5000, batch_seconds=0.3),
        record=record,
    )
    assert (walked.rows, left(things)) == (2 * cold, [])
    assert max(written) <= 2 * STATEMENT_ROWS


def test_inserts_are_not_blocked_while_a_batch_is_open(things: Engine) -> None:
    fill(things, range(1, 1001, 10))
    with things.begin() as batch:
        OLD.write(batch, OLD.between(0, 500), CUTOFF)
        OLD.write(batch, OLD.among([501, 511, 521]), CUTOFF)
        with things.begin() as api:
            api.execute(text("SET innodb_lock_wait_timeout = 1"))
            api.execute(text("INSERT INTO things (id, age) VALUES (505, '2025-01-01'), (95, '2025-01-01'), (2000, NOW())"))
    assert 95 in left(things)


def test_rows_that_stay_are_not_locked_by_a_batch(things: Engine) -> None:
    fill(things, range(1, 101))
    with things.begin() as connection:
        connection.execute(text("UPDATE things SET age = '2026-06-01' WHERE id = 50"))
    with things.begin() as batch:
        OLD.write(batch, OLD.between(0, 100), CUTOFF)
        with things.begin() as api:
            api.execute(text("SET innodb_lock_wait_timeout = 1"))
            api.execute(text("UPDATE things SET touched = 1 WHERE id = 50"))
    assert left(things) == [50]


def test_nothing_is_written_once_the_lock_is_lost(things: Engine) -> None:
    fill(things, range(1, 1001))
    with hold(things, "test") as lock:
        with things.connect() as other:
            other.execute(text(f"KILL {lock.holder}"))
        wait_until(lambda: not is_held(things, "test"), "the killed session's lock was free", every=0.005)
        with pytest.raises(Exception, match=r"was lost with its connection|Lost connection|gone away|Connection was killed"):
            walk(things, OLD, CUTOFF, LIMITS, lock, FREE)
    assert len(left(things)) == 1000


def test_it_waits_while_too_much_is_running_and_says_so(things: Engine) -> None:
    fill(things, range(1, 101))
    held: list[str | None] = []
    with things.connect() as connection:
        idle = int(connection.execute(RUNNING).one()[1]) - 1  # MySQL counts its event scheduler
    throttle = Throttle(idle, 60)
    busy = threading.Thread(target=_sleep_on_the_server, args=(things, 3))
    busy.start()
    with things.connect() as connection:
        asleep = text("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'")
        while not connection.execute(asleep).scalar():
            connection.rollback()
    walked = purge(things, throttle=throttle, progress=lambda p: held.append(p.held))
    busy.join()
    assert held[0] is not None
    assert held[0] == f"{idle + 1} threads are running, more than {idle}"
    assert walked.held_seconds > 0
    assert left(things) == []


def _sleep_on_the_server(engine: Engine, seconds: float) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT SLEEP(:seconds)"), {"seconds": seconds})


def test_it_waits_for_a_replica_that_is_behind_and_says_how_far(things: Engine, stack: Stack) -> None:
    migrate(things)
    # To the throttle a replica is a database whose heartbeat comes from elsewhere.
    url = stack.mariadb.create_database(f"{things.url.database}_replica")
    replica = create_engine(url)
    migrate(replica)
    throttle = Throttle(10_000, 30, {"replica": replica})
    with hold(things, "probe") as lock:

        def reason_with(heartbeat: str) -> str | None:
            with replica.begin() as connection:
                connection.execute(text(f"REPLACE INTO worker_heartbeat VALUES (1, {heartbeat})"))
            time.sleep(CHECK_SECONDS)
            return throttle.reason(lock.session)

        assert "has no heartbeat" in (throttle.reason(lock.session) or "")
        assert reason_with("NOW(3)") is None
        assert "s behind, more than 30 s" in (reason_with("NOW(3) - INTERVAL 1 MINUTE") or "")
    replica.dispose()
    stack.mariadb.drop_database(str(things.url.database) + "_replica")


def test_it_waits_for_a_replica_that_cannot_be_asked(things: Engine, environment: dict[str, str]) -> None:
    migrate(things)
    url = things.url.set(port=1).render_as_string(hide_password=False)
    assert environment
    settings = get_settings().model_copy(update={"batches_replica_urls": (url,)})
    with Throttle.of(settings) as throttle, hold(things, "probe") as lock:
        assert "replica 127.0.0.1:1 cannot be asked how far behind it is" in (throttle.reason(lock.session) or "")


def test_a_count_is_exact_and_says_when_it_was_cut_short(things: Engine) -> None:
    fill(things, range(1, 3001))
    fill(things, (500_000_000,), "'2024-01-01'")
    fill(things, (5000,), "NULL")
    counted = count(things, OLD, CUTOFF, "age", seconds=30)
    assert (counted.rows, counted.complete, str(counted.oldest), str(counted.newest)) == (
        3001,
        True,
        "2024-01-01 00:00:00",
        "2025-01-01 00:00:00",
    )
    assert not count(things, OLD, CUTOFF, "age", seconds=0).complete


@pytest.mark.parametrize(
    ("size", "seconds", "then"),
    [
        (1000, 0.1, 1000),
        (1000, 0.05, 2000),
        (1000, 0.001, 2000),
        (1000, 0.2, 500),
        (1000, 60, 500),
        (60, 60, 50),
        (4000, 0.01, 5000),
    ],
)
def test_the_batch_size_follows_the_time_that_a_batch_takes(size: int, seconds: float, then: int) -> None:
    assert next_size(size, seconds, replace(LIMITS, batch_seconds=0.1, batch_rows=5000)) == then


def test_the_largest_batch_wins_over_the_smallest() -> None:
    assert next_size(10, 0.001, replace(LIMITS, batch_seconds=0.1, batch_rows=7)) == 7
