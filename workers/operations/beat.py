"""Beat: whether one holds the clock, and for each entry when it was last sent and how late it is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.metrics_core import Metric
from redis import Redis

from workers.celery_config import BEAT_LOOP_SECONDS
from workers.operations.report import Section, Table, Trouble, gauge
from workers.operations.words import duration, moment

# Beat looks at its entries this often, so that being later than a few looks means that no beat is there.
LATE_SECONDS = 10 * BEAT_LOOP_SECONDS


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of beat_schedule.py. Times are UTC."""

    name: str
    task: str
    when: str
    known: bool
    """Beat has seen it."""
    last: datetime | None
    """When it was last sent."""
    next: datetime | None
    late_seconds: float


@dataclass(frozen=True, slots=True)
class Beat:
    """The clock and what it starts."""

    alive: bool
    entries: list[Entry]


def read(client: Redis) -> Beat:
    """Return how beat stands: one round trip."""
    from redbeat.schedulers import RedBeatConfig

    from workers.app import app

    config, schedule = RedBeatConfig(app), app.conf.beat_schedule
    with client.pipeline(transaction=False) as pipeline:
        pipeline.exists(config.lock_key)
        for name in schedule:
            pipeline.hget(f"{config.key_prefix}{name}", "meta")
        held, *metas = pipeline.execute()
    return Beat(bool(held), [_entry(name, schedule[name], meta) for name, meta in zip(schedule, metas, strict=True)])


def _entry(name: str, entry: dict[str, Any], meta: bytes | None) -> Entry:
    from redbeat.decoder import RedBeatJSONDecoder

    # As Celery words it: `freq: 1.00 minute`, `crontab: 30 1 * * * (m/h/dM/MY/d)`.
    words = entry["task"], str(entry["schedule"]).strip("<>")
    if meta is None:
        return Entry(name, *words, known=False, last=None, next=None, late_seconds=0)
    stored = json.loads(meta, cls=RedBeatJSONDecoder)
    now = datetime.now(UTC)
    # RedBeat's own due_at says "now" of what is overdue.
    remaining = entry["schedule"].remaining_estimate(stored["last_run_at"] or now)
    late = -remaining / timedelta(seconds=1)
    # An entry that was never sent carries the time at which beat first saw it.
    last = stored["last_run_at"] if stored.get("total_run_count") else None
    return Entry(name, *words, known=True, last=last, next=now + remaining, late_seconds=round(max(late, 0.0), 1))


def metrics(found: Beat) -> Iterator[Metric]:
    """Yield the gauges."""
    yield gauge("beat_up", "1 while a beat holds the lock, which ends 10 s after it does.", [((), found.alive)])
    rows = [((entry.name,), entry) for entry in found.entries]
    yield gauge("beat_entry_known", "1 if beat has seen the entry.", [(k, e.known) for k, e in rows], "entry")
    yield gauge(
        "beat_entry_late_seconds", "For how long the entry has been due.", [(k, e.late_seconds) for k, e in rows], "entry"
    )
    yield gauge(
        "beat_entry_last_sent_timestamp_seconds",
        "When the entry was last sent.",
        [(k, e.last.timestamp() if e.last else None) for k, e in rows],
        "entry",
    )


def troubles(found: Beat) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    if not found.alive:
        yield Trouble("ChatWorkersBeatDown", "critical", "No beat is running: nothing is started by the schedule.")
        return
    late = [entry for entry in found.entries if entry.late_seconds > LATE_SECONDS]
    if late:
        names = ", ".join(f"{entry.name} by {duration(entry.late_seconds)}" for entry in late[:5])
        yield Trouble("ChatWorkersBeatLate", "critical", f"Beat is late with {len(late)} of its entries: {names}.")
    unknown = [entry.name for entry in found.entries if not entry.known]
    if unknown:
        yield Trouble("ChatWorkersBeatEntryUnknown", "warning", f"Beat does not know of {', '.join(unknown)}: restart it.")


def tables(found: Beat) -> Iterator[Table]:
    """Yield what a person wants to see."""
    yield Table(
        "Schedule (UTC)",
        ("entry", "when", "last sent", "next", "late"),
        tuple(
            (
                entry.name,
                entry.when,
                moment(entry.last),
                moment(entry.next) if entry.known else "-",
                duration(entry.late_seconds) if entry.late_seconds > LATE_SECONDS else "" if entry.known else "UNKNOWN to beat",
            )
            for entry in found.entries
        ),
    )


SECTION = Section("beat", read, metrics, troubles, tables)
