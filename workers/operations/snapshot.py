"""The snapshot: every part, read now from MySQL and Redis, with what is wrong at its top."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from redis import Redis
from sqlalchemy import text

from tasks.attachments import facts as attachments
from tasks.backups import facts as backups
from tasks.events import facts as events
from tasks.facts import Alert, AnyFact, Fact, Row, Table, read_tables
from tasks.notifications import facts as notifications
from tasks.retention import facts as retention
from workers.operations import beat, fleet, queues, reader, worker_signals
from workers.operations.alerts import Trouble, troubles
from workers.operations.counted import Counted
from workers.operations.counted import read as read_counted
from workers.operations.reader import Reading, Source, together

Tables = tuple[Table, ...]

# One line here brings a part into the metrics, the page and the command.
FROM_DATABASE: dict[str, Tables] = {
    "notifications": notifications.TABLES,
    "attachments": attachments.TABLES,
    "backups": backups.TABLES,
    "retention": retention.TABLES,
    "events": events.TABLES,
}
FROM_REDIS: dict[str, Tables] = {
    "queues": queues.TABLES,
    "messages": queues.MESSAGES,
    "workers": fleet.TABLES,
    "beat": beat.TABLES,
}
TABLES = FROM_DATABASE | FROM_REDIS
COUNTED = (*notifications.COUNTED, attachments.SCANS, *worker_signals.COUNTED)
# In the order in which a person asks.
SHOWN = ("notifications", "queues", "messages", "workers", "beat", "attachments", "backups", "retention", "events")


def _collectors(readings: tuple[Reading, ...]) -> list[Row]:
    return [{"collector": r.name, "collector_up": r.ok, "collector_seconds": r.seconds, "fault": r.fault} for r in readings]


UP = Fact(
    "collector_up",
    "1 if this part could be read for this scrape; alerts on its facts are blind while it could not.",
    alert=Alert("ChatWorkersCollectorDown", "critical", "What lies in {collector} cannot be read", ": {fault}", below=1),
)
COLLECTORS = Table("collectors", "", ("collector",), _collectors, (UP, Fact("collector_seconds", "How long its reading took.")))

FACTS: list[AnyFact] = [
    *COLLECTORS.facts,
    *(fact for tables in TABLES.values() for table in tables for fact in table.facts),
    *COUNTED,
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All readings of one moment."""

    at: datetime
    readings: tuple[Reading, ...]

    def tables(self) -> list[tuple[Table, list[Row]]]:
        """Return each table with its rows in the order in which a person asks; those that could not be read are left out."""
        values = {reading.name: reading.value for reading in self.readings if reading.ok}
        read = [(table, values[name]) for name in SHOWN if name in values for table in TABLES[name] if not table.on_demand]
        return [(COLLECTORS, COLLECTORS.rows(self.readings)), *((table, value[table.name]) for table, value in read)]

    def counted(self) -> Counted | None:
        """Return the counters and histograms, None if they could not be read."""
        return next((reading.value for reading in self.readings if reading.name == "counters"), None)

    def troubles(self) -> list[Trouble]:
        """Return what is wrong now, the worst and most urgent first."""
        found = [trouble for table, rows in self.tables() for fact in table.facts for trouble in troubles(fact, rows)]
        if counted := self.counted():
            found += [trouble for fact in COUNTED for trouble in troubles(fact, counted.windows.get(fact.name, ()))]
        return sorted(found, key=lambda trouble: (trouble.severity, trouble.minutes))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs: facts by the names that they have in Prometheus."""
        return {
            "at": self.at,
            "troubles": [asdict(trouble) for trouble in self.troubles()],
            "sections": {r.name: r.value if r.ok else {"fault": r.fault} for r in self.readings if r.name in TABLES},
        }


def read_all() -> Snapshot:
    """Return the snapshot of now, or of a moment ago. It takes two seconds at most, whatever is away."""
    return Snapshot(datetime.now(UTC), together(*_sources()))


def read_ready() -> tuple[Reading, ...]:
    """Return whether the database and the broker answer, within two seconds."""
    return together(*_pings())


@cache
def _sources() -> tuple[Source, Source]:
    def parts(tables: dict[str, Tables]) -> dict[str, Callable[[Any], Any]]:
        return {name: partial(read_tables, own) for name, own in tables.items()}

    counters = {"counters": partial(read_counted, facts=COUNTED)}
    return Source(reader.database, parts(FROM_DATABASE)), Source(reader.redis, parts(FROM_REDIS) | counters)


@cache
def _pings() -> tuple[Source, Source]:
    one = text("SELECT 1")
    database = Source(reader.database, {"database": lambda connection: connection.scalar(one)})
    return database, Source(reader.redis, {"broker": Redis.ping})
