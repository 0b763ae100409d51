"""Load without faults: a steady state with everything flat, a burst, a backlog; sampled each ten seconds."""

import math
import signal
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from tests.chaos.campaign import UNSETTLED, Load, Plan
from tests.chaos.scene import Scene, one

SAMPLE_SECONDS = 10
# A million rows at a few hundred a second.
PATIENCE_SECONDS = 2 * 3600
BURST_SECONDS = 60
BACKLOG_STATEMENT_ROWS = 5000
TABLES = ("worker_deliveries", "worker_delivery_history", "worker_dead_devices", "worker_scans")


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
            keys, memory = int(redis.dbsize()), int(redis.info("memory")["used_memory"])
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


def steady(scene: Scene, minutes: int, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
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
    samples += _until_done(scene, sampler, say)
    return {"rows": load.pushes.written.rows, "drift": drift(samples), "samples": [asdict(each) for each in samples]}


def burst(scene: Scene, rows: int, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Insert the rows within a minute; return how long it took until all were settled."""
    load = Load(scene, Plan(plan.seed, 0, rate=rows / BURST_SECONDS, files=plan.files))
    sampler = Sampler(scene, load)
    began = time.monotonic()
    load.start()
    samples: list[Sample] = []
    while load.pushes.written.rows < rows:
        time.sleep(1)
        if time.monotonic() - began > (len(samples) + 1) * SAMPLE_SECONDS:
            samples.append(sampler.take())
            say(line(samples[-1]))
    inserted = time.monotonic() - began
    load.end()
    samples += _until_done(scene, sampler, say)
    return _summary(load, inserted, time.monotonic() - began, samples)


def backlog(scene: Scene, rows: int, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Insert the rows while the notifications workers are stopped, then let them go; return how long it took them."""
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
    samples = _until_done(scene, sampler, say)
    return _summary(load, inserted, time.monotonic() - began, samples)


def line(sample: Sample) -> str:
    """Return a sample for people."""
    tables = ", ".join(f"{name.removeprefix('worker_')} {rows:,}" for name, rows in sample.tables.items())
    rate = sample.pushes / SAMPLE_SECONDS
    return (
        f"waiting {sample.waiting:,}  {rate:,.0f} pushes/s  p50 {sample.p50:.2f} s  p99 {sample.p99:.2f} s"
        f"  workers {sample.worker_mb:,.0f} MB  Redis {sample.redis_keys} keys, {sample.redis_mb:.1f} MB  {tables}"
    )


def drift(samples: list[Sample]) -> dict[str, float]:
    """Return, for what has to stay flat, the last third's median over the second third's; 1 is perfectly flat."""
    third = len(samples) // 3
    if not third:
        return {}
    found = {}
    for name in ("p50", "p99", "worker_mb", "redis_keys", "redis_mb"):
        values = [getattr(each, name) for each in samples]
        before, after = statistics.median(values[third : 2 * third]), statistics.median(values[2 * third :])
        found[name] = round(after / before, 2) if before else 1.0
    return found


def _until_done(scene: Scene, sampler: Sampler, say: Callable[[str], None]) -> list[Sample]:
    samples: list[Sample] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while one(scene.engine, UNSETTLED) and time.monotonic() < deadline:
        time.sleep(SAMPLE_SECONDS)
        samples.append(sampler.take())
        say(line(samples[-1]))
    return samples


def _summary(load: Load, inserted: float, seconds: float, samples: list[Sample]) -> dict[str, Any]:
    return {
        "rows": load.pushes.written.rows,
        "inserted_in_seconds": round(inserted),
        "done_after_seconds": round(seconds),
        "rows_a_second": round(load.pushes.written.rows / seconds),
        "samples": [asdict(each) for each in samples],
    }


def _quantile(values: list[float], share: float) -> float:
    return values[max(math.ceil(len(values) * share) - 1, 0)] if values else 0.0
