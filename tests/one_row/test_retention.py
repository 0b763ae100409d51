"""What deletes and changes by age, and what forgets a person: one row that cannot be written keeps no other from it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from db.batches.target import Target
from settings import get_settings
from tasks.retention import rules
from tasks.retention.policies import POLICIES
from tasks.retention.run import run_policy
from tasks.typing_indicators.expire import expire
from tests.one_row.odd import LOCKED, SIGNALS, TO_DELETE, TO_UPDATE, Rows, Way, locked
from tests.retention.test_boundaries import CASES, families
from workers import forget

__all__ = ["families"]

# What a conversation looks like that the policies have changed.
CHANGED = {"closed_conversations": "is_active = 0", "idle_conversations": "closed_reason = 'INACTIVE_30_DAYS'"}
KEYS = {"dead_devices": "device_key", "orphaned_scans": "attachment_id"}
# Nobody but the workers writes counts, and of days ago none does: their walk is by the minute, and waits for a locked one.
EACH = [name for name in CASES if name != "delivery_counts"]


@dataclass(frozen=True)
class Writer:
    policy: str
    run: Callable[[Engine], object]

    def rows(self, engine: Engine) -> Rows:
        target = POLICIES[self.policy].target
        assert isinstance(target, Target)
        return Rows(engine, target.table, CHANGED.get(self.policy, "FALSE"), KEYS.get(self.policy, "id"), "conversation_id")

    @property
    def ways(self) -> dict[str, Way]:
        """Nobody's schema reaches into the workers' own tables."""
        if not CASES[self.policy].shared:
            return LOCKED
        return TO_UPDATE if self.policy in CHANGED else TO_DELETE | (SIGNALS if self.policy == "read_notifications" else {})


def by_policy(name: str, *, archive: bool = False) -> Writer:
    def run(engine: Engine) -> None:
        with engine.begin() as connection:
            rules.change(connection, POLICIES[name], {"enabled": True, "archive": archive or None})
        run_policy(engine, POLICIES[name], by="test")

    return Writer(name, run)


WRITERS = {
    **{name: by_policy(name) for name in EACH},
    "read_notifications, archived": by_policy("read_notifications", archive=True),
    "scan_events, archived": by_policy("scan_events", archive=True),
    "the minute job": Writer("typing_indicators", expire),
    "forget": Writer(
        "dead_devices",
        lambda engine: forget.forget(engine, Redis.from_url(get_settings().celery_broker_url), 2, lambda: False),
    ),
}


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(("name", "way"), [(name, way) for name, writer in WRITERS.items() for way in writer.ways])
def test_the_others_go_and_the_odd_one_when_it_can(
    families: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    monkeypatch.setenv("RETENTION_ARCHIVE_DIR", str(tmp_path))
    get_settings.cache_clear()
    writer = WRITERS[name]
    rows = writer.rows(families)
    own = rows.left()  # the families' own conversation
    with families.begin() as connection:
        for id_ in range(7, 12):
            CASES[writer.policy].insert(connection, id_, "'2020-02-02 02:02:00'")
    mine = {*rows.left()} - {*own}  # runs write what is deleted by age, too
    odd = sorted(mine)[2]
    with writer.ways[way](rows, odd):
        for _ in range(2):
            writer.run(families)
            assert {*rows.left()} & mine == {odd}
    writer.run(families)
    assert {*rows.left()} & mine == set()
    get_settings.cache_clear()


@pytest.mark.usefixtures("redis")
def test_a_locked_row_beside_the_odd_one_keeps_none_from_it(families: Engine) -> None:
    """A DELETE waits for the locks of what its subqueries read."""
    with families.begin() as connection:
        for id_ in range(7, 12):
            CASES["failed_notifications"].insert(connection, id_, "'2020-02-02'")
            connection.execute(text(f"INSERT INTO worker_deliveries (notification_id, due_at) VALUES ({id_}, NOW(3))"))
        connection.execute(text("DELETE FROM worker_deliveries WHERE notification_id NOT IN (8, 9)"))
    notifications, entries = (
        Rows(families, *table) for table in (("chat_notifications", "FALSE"), ("worker_deliveries", "FALSE", "notification_id"))
    )
    with locked(entries, 9):
        WRITERS["failed_notifications"].run(families)
    assert notifications.left() == [8, 9]
    notifications.execute("UPDATE chat_notifications SET delivery_status = 'SENT'")
    with locked(notifications, 9):
        WRITERS["forget"].run(families)
    assert entries.left() == []


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("name", ["delivery_history", "orphaned_scans", "dead_devices"])
def test_rows_at_the_ends_of_all_ids_go_with_the_others(families: Engine, name: str) -> None:
    rows, key = WRITERS[name].rows(families), {"dead_devices": "recipient_id"}.get(name) or KEYS.get(name, "id")
    with families.begin() as connection:
        for id_ in range(7, 12):
            CASES[name].insert(connection, id_, "'2020-02-02 02:02:00'")
        for end, order in ((-(2**63), ""), (2**63 - 1, "DESC")):
            connection.execute(text(f"UPDATE {rows.table} SET {key} = {end} ORDER BY {key} {order} LIMIT 1"))
    mine = {*rows.left()}
    WRITERS[name].run(families)
    assert {*rows.left()} & mine == set()
    rows.execute(f"TRUNCATE TABLE {rows.table}")  # no id is given behind the highest one
