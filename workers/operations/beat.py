"""Beat: whether one holds the clock, and for each entry when it was last sent and how late it is."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import BaseSchedule
from prometheus_client.metrics_core import Metric
from redbeat.decoder import RedBeatJSONDecoder
from redis import Redis

from settings import get_settings
from tasks.words import duration
from workers.celery_config import BEAT_LOOP_SECONDS, BEAT_PREFIX, beat_entries
from workers.operations.report import Section, Table, Trouble, gauge

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
    at: datetime

    def seconds_since(self, when: datetime) -> float:
        return (self.at - when).total_seconds()


def read(client: Redis) -> Beat:
    """Return how beat stands: one round trip."""
    entries = beat_entries(get_settings())
    with client.pipeline(transaction=False) as pipeline:
        pipeline.exists(f"{BEAT_PREFIX}:lock")
        for name in entries:
            pipeline.hget(BEAT_PREFIX + name, "meta")
        held, *metas = pipeline.execute()
    now = datetime.now(UTC)
    return Beat(bool(held), [_entry(name, entries[name], meta, now) for name, meta in zip(entries, metas, strict=True)], now)


def _entry(name: str, entry: dict[str, Any], meta: bytes | None, now: datetime) -> Entry:
    words = entry["task"], in_words(entry["schedule"])
    if meta is None:
        return Entry(name, *words, known=False, last=None, next=None, late_seconds=0)
    stored = json.loads(meta, cls=RedBeatJSONDecoder)
    # RedBeat's own due_at says "now" of what is overdue.
    remaining = entry["schedule"].remaining_estimate(stored["last_run_at"] or now)
    late = -remaining / timedelta(seconds=1)
    # An entry that was never sent carries the time at which beat first saw it.
    last = stored["last_run_at"] if stored.get("total_run_count") else None
    return Entry(name, *words, known=True, last=last, next=now + remaining, late_seconds=round(max(late, 0.0), 1))


def in_words(when: BaseSchedule) -> str:
    """Return a schedule for people: `every 5 seconds`, or cron's five fields. Celery's own words are their source."""
    kind, _, words = str(when).strip("<>").partition(": ")
    return words.partition(" (")[0] if kind == "crontab" else f"every {words.replace('.00', '')}"


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
    late = [entry for entry in found.entries if _is_late(entry)]
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
        ("entry", "when", "last sent", "next", "late by"),
        tuple(
            (
                entry.name,
                entry.when,
                f"{duration(found.seconds_since(entry.last))} ago" if entry.last else "never",
                "-" if entry.next is None else f"in {duration(max(-found.seconds_since(entry.next), 0))}",
                "UNKNOWN to beat" if not entry.known else duration(entry.late_seconds) if _is_late(entry) else "-",
            )
            for entry in found.entries
        ),
    )


def _is_late(entry: Entry) -> bool:
    return entry.late_seconds > LATE_SECONDS


SECTION = Section("beat", read, metrics, troubles, tables)
