"""Beat: whether one holds the clock, and for each entry when it was last sent and how late it is."""

import json
from datetime import UTC, datetime, timedelta
from typing import cast

from celery.schedules import BaseSchedule
from redbeat.decoder import RedBeatJSONDecoder
from redis import Redis

from settings import get_settings
from tasks.facts import Alert, Column, Fact, Row, Table
from tasks.words import duration
from workers import paused_entries
from workers.celery_config import BEAT_PREFIX, beat_entries

UP = Fact(
    "beat_up", "1 while a beat holds the lock, which ends 10 s after it does.",
    alert=Alert("ChatWorkersBeatDown", "critical", "No beat is running: nothing is started by the schedule", below=1),
)  # fmt: skip
KNOWN = Fact(
    "beat_entry_known", "1 if beat has the entry as this host's beat_schedule.py and settings have it, 0 if they differ.",
    alert=Alert("ChatWorkersBeatEntryUnknown", "warning", "Beat's schedule is not this host's for {entry}", ": {difference}",
                below=1, minutes=5),
)  # fmt: skip
LATE_SECONDS = 60
LATE = Fact(
    "beat_entry_late_seconds", "For how long the entry has been due.", "late by",
    Alert("ChatWorkersBeatLate", "critical", "Beat holds its lock and does not send what is due: {entry}",
          above=LATE_SECONDS, given="beat_up"),
    show=lambda row: _late(row),
)  # fmt: skip
PAUSED = Fact("beat_entry_paused", "1 while an operator has paused the entry.")
LAST = Fact("beat_entry_last_sent_timestamp_seconds", "When the entry was last sent.")


def entries(client: Redis) -> list[Row]:
    """Return a row for each entry of this host's schedule, and of beat's, with times in UTC."""
    own = beat_entries(get_settings())
    written = {name.decode() for name in cast(set[bytes], client.smembers(f"{BEAT_PREFIX}:statics"))}
    names = [*own, *sorted(written - own.keys())]
    with client.pipeline(transaction=False) as pipeline:
        pipeline.exists(f"{BEAT_PREFIX}:lock")
        for name in names:
            pipeline.hmget(BEAT_PREFIX + name, "definition", "meta")
        held, *stored = pipeline.execute()
    paused, now = paused_entries.paused(client), datetime.now(UTC)
    rows = []
    for name, parts in zip(names, stored, strict=True):
        beats, meta = (json.loads(part, cls=RedBeatJSONDecoder) if part else None for part in parts)
        if entry := own.get(name) or beats:
            difference = _difference(own.get(name), beats)
            times = _times((beats or entry)["schedule"], meta or {}, now)
            row = {"entry": name, "task": entry["task"], "when": in_words(entry["schedule"]), UP.name: bool(held), **times}
            row |= {KNOWN.name: not difference, "difference": difference}
            row |= {PAUSED.name: name in paused, "paused": paused.get(name)}
            rows.append(row | ({LATE.name: 0.0} if name in paused else {}))
    return rows


def _difference(own: Row | None, beats: Row | None) -> str:
    """Return in what beat's entry and this host's differ. Beat is started anew to write its own host's."""
    if beats is None:
        return "unknown to beat; restart it"
    if own is None:
        return "beat alone has it; give all hosts the same schedule and settings, and restart beat"
    if all(own[part] == beats[part] for part in ("task", "schedule", "options")):
        return ""
    return f"beat has it {in_words(beats['schedule'])} for {beats['task']}; give all hosts the same schedule, and restart beat"


def _times(schedule: BaseSchedule, meta: Row, now: datetime) -> Row:
    if not meta:
        return {LATE.name: 0.0, LAST.name: None, "last": None, "next": None}
    # RedBeat's own due_at says "now" of what is overdue.
    remaining = schedule.remaining_estimate(meta["last_run_at"] or now)
    # An entry that was never sent carries the time at which beat first saw it.
    last = meta["last_run_at"] if meta.get("total_run_count") else None
    late = round(max(-remaining / timedelta(seconds=1), 0.0), 1)
    return {LATE.name: late, LAST.name: last and last.timestamp(), "last": last, "next": now + remaining, "at": now}


def is_late(row: Row) -> bool:
    """Return whether an entry is so late that the alert says so."""
    return float(row[LATE.name]) > LATE_SECONDS


def in_words(when: BaseSchedule) -> str:
    """Return a schedule for people: `every 5 seconds`, or cron's five fields. Celery's own words are their source."""
    kind, _, words = str(when).strip("<>").partition(": ")
    return words.partition(" (")[0] if kind == "crontab" else f"every {words.replace('.00', '')}"


def _last(row: Row) -> str:
    return f"{duration((row['at'] - row['last']).total_seconds())} ago" if row["last"] else "never"


def _next(row: Row) -> str:
    if paused := row["paused"]:
        return f"paused by {paused['by']} until {paused['until'] or 'it is resumed'}{': ' * bool(paused['why'])}{paused['why']}"
    return f"in {duration(max((row['next'] - row['at']).total_seconds(), 0))}" if row["next"] else "-"


def _late(row: Row) -> str:
    return "DIFFERS" if not row[KNOWN.name] else duration(row[LATE.name]) if is_late(row) else "-"


SCHEDULE = Table("schedule", "Schedule (UTC)", ("entry",), entries, (
    Column("when", lambda row: row["when"]), Column("last sent", _last), Column("next", _next), LATE, KNOWN, PAUSED, LAST,
))  # fmt: skip
TABLES = (Table("beat", "", (), lambda client: [{UP.name: bool(client.exists(f"{BEAT_PREFIX}:lock"))}], (UP,)), SCHEDULE)
