"""Load without faults: a steady state with everything flat, a burst, a backlog; sampled each ten seconds, then audited."""

import math
import signal
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from tests.chaos.audit import files as files_audit
from tests.chaos.audit import pushes as pushes_audit
from tests.chaos.audit import rows as rows_audit
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.campaign import QUIET_SECONDS, UNDELETED, UNSCANNED, UNSETTLED, Load, Plan, backups, gateway
from tests.chaos.client import Client
from tests.chaos.scene import Scene, one

SAMPLE_SECONDS = 10
# A million rows at a few hundred a second.
PATIENCE_SECONDS = 2 * 3600
BURST_SECONDS = 60
BURST_SLACK = 1.1
# Of the rows that a rate asks for.
FEWEST_ROWS = 0.95
BACKLOG_STATEMENT_ROWS = 5000
TABLES = ("worker_deliveries", "worker_delivery_history", "worker_dead_devices", "worker_scans")
# A third with fewer samples says nothing of a drift.
FEWEST_SAMPLES = 4
# How much may be added from the second third to the last: a factor, and what is noise in any case.
FLAT = {
    "waiting": (1.5, 500),
    "p50": (1.5, 0.3),
    "p99": (2.0, 1.0),
    "worker_mb": (1.1, 20),
    "redis_keys": (1.5, 20),
    "redis_mb": (1.2, 1),
    # The queue itself is as long as what waits; the other tables hold what was done, and grow by as much in either third.
    "worker_deliveries": (1.5, 500),
    "worker_delivery_history": (1.5, 500),
    "worker_dead_devices": (1.5, 100),
    "worker_scans": (1.5, 100),
}
# From so many seconds on, a third is long enough for its median to be above noise.
LONG_SECONDS = 600
# What may be added then: so large a share an hour, or what is noise in any case.
CREEP_AN_HOUR = 0.1
CREEP = {"p50": 0.05, "p99": 0.3, "worker_mb": 20, "redis_keys": 150, "redis_mb": 0.5}
MEMORY = ("worker_mb", "redis_keys", "redis_mb")
SHOWN_SAMPLES = 30
SHOWN_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. Seconds since the start; latencies in seconds from the API's commit to the provider's taking."""

    at: float
    waiting: int
    pushes: int
    p50: float
    p99: float
    worker_mb: float
    redis_keys: int
    redis_mb: float
    tables: dict[str, int]


class Sampler:
    """Takes samples; the pushes since the last one make the latencies."""

    def __init__(self, scene: Scene, load: Load) -> None:
        self._scene = scene
        self._load = load
        self._began = time.monotonic()
        list(scene.emulator.newly_accepted())

    def take(self) -> Sample:
        batches = list(self._load.pushes.written.batches)
        firsts = [first for first, _, _ in batches]
        latencies = sorted(
            push.t - batches[bisect_right(firsts, int(push.notification_id or 0)) - 1][2]
            for push in self._scene.emulator.newly_accepted()
            if firsts and int(push.notification_id or 0) >= firsts[0]
        )
        with Redis.from_url(self._scene.stack.redis.url) as redis:
            keys = redis.dbsize()
            memory = int(redis.info("memory")["used_memory"])
        return Sample(
            round(time.monotonic() - self._began, 1),
            one(self._scene.engine, UNSETTLED),
            len(latencies),
            round(_quantile(latencies, 0.5), 3),
            round(_quantile(latencies, 0.99), 3),
            round(sum(self._scene.fleet.memory().values()) / 1e6, 1),
            keys,
            round(memory / 1e6, 2),
            {table: one(self._scene.engine, f"SELECT COUNT(*) FROM {table}") for table in TABLES},
        )


def steady(scene: Scene, minutes: float, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Run at one rate; return the samples and how much the last third differs from the second."""
    load = Load(scene, plan)
    sampler = Sampler(scene, load)
    load.start()
    samples: list[Sample] = []
    ends_at = time.monotonic() + minutes * 60
    while time.monotonic() < ends_at:
        time.sleep(SAMPLE_SECONDS)
        samples.append(sampler.take())
        say(line(samples[-1]))
    load.end()
    found, problems = drift(samples), [*too_few(load.pushes.written.rows, plan.rate * minutes * 60), *judge(samples)]
    problems += await_done(scene, sampler, samples, say)
    return {"drift": found} | _summary(scene, load, plan, samples, [*problems, *day(scene, load, plan)])


def burst(scene: Scene, rows: int, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Insert the rows within a minute; return how long it took until all were settled."""
    load = Load(scene, replace(plan, rate=rows / BURST_SECONDS))
    sampler = Sampler(scene, load)
    began = time.monotonic()
    load.start()
    samples: list[Sample] = []
    while load.pushes.written.rows < rows:
        time.sleep(0.1)
        if time.monotonic() - began > (len(samples) + 1) * SAMPLE_SECONDS:
            samples.append(sampler.take())
            say(line(samples[-1]))
    inserted = time.monotonic() - began
    load.end()
    problems = [*too_slow(inserted), *await_done(scene, sampler, samples, say)]
    pace = _pace(load, inserted, time.monotonic() - began)
    return pace | _summary(scene, load, plan, samples, [*problems, *day(scene, load, plan)])


def backlog(scene: Scene, rows: int, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Insert the rows while the notifications workers are stopped, then let them go; return how long it took them.

    Nothing but the workers' memory and Redis has to stay flat over the drain: the latency is the time that a row has waited.
    """
    load = Load(scene, plan)
    sampler = Sampler(scene, load)
    workers = scene.fleet.names("notifications")
    for name in workers:
        scene.fleet.signal_all(name, signal.SIGSTOP)
    began = time.monotonic()
    load.pushes.step(load.pushes.cursor())
    while load.pushes.written.rows < rows:
        load.pushes.insert(load.pushes.cursor(), BACKLOG_STATEMENT_ROWS)
    inserted = time.monotonic() - began
    say(f"{load.pushes.written.rows:,} rows wait; the workers go on")
    for name in workers:
        scene.fleet.signal_all(name, signal.SIGCONT)
    samples: list[Sample] = []
    left = await_done(scene, sampler, samples, say)
    pace = _pace(load, inserted, time.monotonic() - began)
    return pace | _summary(scene, load, plan, samples, [*left, *judge(samples, MEMORY, long=True)])


def line(sample: Sample) -> str:
    """Return a sample for people."""
    tables = ", ".join(f"{name.removeprefix('worker_')} {rows:,}" for name, rows in sample.tables.items())
    rate = sample.pushes / SAMPLE_SECONDS
    return (
        f"waiting {sample.waiting:,}  {rate:,.0f} pushes/s  p50 {sample.p50:.2f} s  p99 {sample.p99:.2f} s"
        f"  workers {sample.worker_mb:,.0f} MB  Redis {sample.redis_keys} keys, {sample.redis_mb:.1f} MB  {tables}"
    )


def text(found: dict[str, Any]) -> str:
    """Return a report for people: what was found, a line each, without the samples."""
    lines = {key: value for key, value in found.items() if key not in {"drift", "samples"}}
    for name, (before, after) in found.get("drift", {}).items():
        lines[name] = f"{before:g} in the second third, {after:g} in the last"
    return "\n".join(f"{key:24} {value}" for key, value in lines.items())


def drift(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Return, for what has to stay flat, the second third's median and the last third's.

    Of a table that grows with what was done it is how much it grew within either; too few samples are no drift.
    """
    third = len(samples) // 3
    if third < FEWEST_SAMPLES:
        return {}
    middle, last = samples[third - 1 : 2 * third], samples[2 * third - 1 : 3 * third]
    found = {}
    for name in FLAT:
        before, after = ([_value(each, name) for each in part] for part in (middle, last))
        if name in TABLES[1:]:
            found[name] = (before[-1] - before[0], after[-1] - after[0])
        else:
            found[name] = (round(statistics.median(before), 3), round(statistics.median(after), 3))
    return found


def judge(samples: list[Sample], names: Collection[str] = FLAT.keys(), *, long: bool | None = None) -> list[str]:
    """Return which of these are not flat; `long` tells whether CREEP holds, by default for runs that are long enough."""
    seconds = samples[-1].at - samples[0].at if samples else 0
    if long is None:
        # The first look came one interval after the start.
        long = seconds * len(samples) >= LONG_SECONDS * (len(samples) - 1)
    return [
        f"not flat: {name} was {before:g} in the second third and {after:g} in the last"
        for name, (before, after) in drift(samples).items()
        if name in names and after > _most(name, before, seconds, long=long)
    ]


def _most(name: str, before: float, seconds: float, *, long: bool) -> float:
    """Return what a median may be in the last third, by that of the second and the seconds of the run."""
    if long and name in CREEP:
        return before + max(CREEP[name], before * CREEP_AN_HOUR * seconds / 3 / 3600)
    factor, noise = FLAT[name]
    return before * factor + noise


def _value(sample: Sample, name: str) -> float:
    return float(sample.tables[name] if name in sample.tables else getattr(sample, name))


def await_done(
    scene: Scene, sampler: Sampler, samples: list[Sample], say: Callable[[str], None], patience: int = PATIENCE_SECONDS
) -> list[str]:
    """Go on sampling until all is done; return what was left to do when patience, in seconds, was at its end."""
    deadline = time.monotonic() + patience
    while left := one(scene.engine, UNSETTLED) + one(scene.engine, UNSCANNED):
        if time.monotonic() > deadline:
            return [f"{left:,} rows were not done after {patience:,} s"]
        time.sleep(SAMPLE_SECONDS)
        samples.append(sampler.take())
        say(line(samples[-1]))
    return []


def too_few(rows: int, asked: float) -> list[str]:
    """Return what is wrong with a run that wrote so many rows: the clients did not keep up, so it shows less than it says."""
    return [f"{rows:,} rows were written of {asked:,.0f} that were asked for"] if rows < FEWEST_ROWS * asked else []


def too_slow(inserted: float) -> list[str]:
    """Return what is wrong with a burst that was inserted in so many seconds."""
    return [f"inserted in {inserted:.0f} s instead of {BURST_SECONDS}"] if inserted > BURST_SLACK * BURST_SECONDS else []


def day(scene: Scene, load: Load, plan: Plan) -> list[str]:
    """Wait until what is old is deleted, then judge the rest of the chat's day: deletions, backups and the gateway."""
    deadline = time.monotonic() + QUIET_SECONDS
    load.chores.tidy()
    asked = time.monotonic()
    while one(scene.engine, UNDELETED) and time.monotonic() < deadline:
        time.sleep(0.5)
        if time.monotonic() - asked > SAMPLE_SECONDS:
            load.chores.tidy()
            asked = time.monotonic()
    return _told(
        [
            *rows_audit.judge(scene.engine, load.chores.kept, load.chores.live),
            *backups(scene, load.pushes.written.batches).problems,
            *gateway(scene, load.gateways if plan.files else load.gateways[:1]),
        ]
    )


def unasked(ends: Mapping[str, int], clients: Sequence[Client]) -> list[Problem]:
    """Return which processes ended and which of the API's statements were refused: nothing was broken, so none may."""
    return [
        *(Problem(Sort.WRONG, f"a process has ended, which nobody asked it to: {what}") for what in sorted(ends)),
        *(
            Problem(Sort.WRONG, f"the API's own statements were refused: {client.failed} of its {client.name}")
            for client in clients
            if client.failed
        ),
    ]


def _told(problems: list[Problem]) -> list[str]:
    return [f"{each.sort}: {each.what}" for each in problems]


def _pace(load: Load, inserted: float, seconds: float) -> dict[str, Any]:
    return {
        "inserted_in_seconds": round(inserted),
        "done_after_seconds": round(seconds),
        "rows_a_second": round(load.pushes.written.rows / seconds),
    }


def _summary(scene: Scene, load: Load, plan: Plan, samples: list[Sample], problems: list[str]) -> dict[str, Any]:
    """Return what was found, with an audit: no fault excuses anything."""
    pushes = pushes_audit.judge(pushes_audit.read_rows(scene.engine), scene.emulator.accepted(), load.pushes.written, [])
    files = files_audit.judge(scene.engine, load.files.uploads, scene.quarantine)
    ended = unasked(scene.fleet.ends, load.clients)
    problems = [*problems, *_told([*pushes.problems, *pushes_audit.left_over(scene.engine), *files.problems, *ended])]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": plan.commit,
        "rows": load.pushes.written.rows,
        "devices": pushes.devices,
        "accepted": pushes.accepted,
        "repeated": pushes.repeated,
        "attachments": load.files.answered,
        "rows_deleted": load.chores.doomed,
        "gateway_calls_taken": sum(each.started for each in load.gateways),
        "gateway_calls_missed": sum(each.missed for each in load.gateways),
        "most_waiting": max((each.waiting for each in samples), default=0),
        "most_worker_mb": max((each.worker_mb for each in samples), default=0),
        "found": len(problems),
        "problems": problems[:SHOWN_PROBLEMS],
        "samples": [asdict(each) for each in samples[:: math.ceil(len(samples) / SHOWN_SAMPLES) or 1]],
    }


def _quantile(values: list[float], share: float) -> float:
    return values[max(math.ceil(len(values) * share) - 1, 0)] if values else 0.0
