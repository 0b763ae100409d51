"""What the run found, as text: the table of ratios, the goals beside what was reached, and plots made of characters."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.notifications import contestants as c
from bench.notifications import limits
from bench.notifications.field import Run
from bench.notifications.growth import Cost
from bench.notifications.latency import Latency
from bench.notifications.transports import Carried

BAR = 44


@dataclass(slots=True)
class Results:
    """All that one run of the benchmark measured; a part that was not asked for is empty."""

    place: str
    runs: list[Run] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    plans: str = ""
    sizes: tuple[int, int] = (0, 0)
    memory: list[tuple[int, float]] = field(default_factory=list)
    transports: list[Carried] = field(default_factory=list)

    def best(self, *names: str) -> Run | None:
        """Return the fastest run of these contestants, whatever its number of processes."""
        return max((run for run in self.runs if run.name in names), key=lambda run: run.rate, default=None)

    def as_json(self) -> dict[str, Any]:
        """Return all of it, less the plots' single samples."""
        found = asdict(self)
        for latency in found["latencies"]:
            latency["samples"] = latency["samples"][:: max(1, len(latency["samples"]) // 100)]
        found["goals"] = [asdict(goal) for goal in goals(self)]
        return found


@dataclass(frozen=True, slots=True)
class Goal:
    """What was aimed at and what was reached, in words."""

    what: str
    aim: str
    reached: str
    met: bool


def goals(found: Results) -> list[Goal]:
    """Return each goal that this run can answer."""
    ours = found.best(c.OURS)
    reached = []
    if ours:
        for what, aim, other in (
            ("end to end vs. the obvious Celery app", 16, found.best(c.OBVIOUS)),
            ("vs. send_each batches with our own SQL", 8, found.best(c.BATCHES)),
            ("vs. fcm-django", 6, found.best(c.DJANGO)),
            ("vs. Node with a job a row", 4, found.best(c.NODE_ROWS)),
            ("vs. Node with sendEach x500", 1, found.best(c.NODE)),
            ("  the same, sending what we send", 1, found.best(c.NODE_OURS)),
        ):
            if other:
                ratio = ours.rate / other.rate
                reached.append(Goal(what, f">= {aim:g}x", f"{ratio:.2f}x", ratio >= aim))
    for latency in found.latencies:
        text = f"{latency.p50:.1f} / {latency.p99:.1f} ms"
        if latency.name.startswith("idle"):
            met = latency.p50 <= 9 and latency.p99 <= 15
            reached.append(Goal("commit and nudge to provider, idle, p50 / p99", "<= 9 / 15 ms", text, met))
        elif "500 rows/s" in latency.name:
            reached.append(Goal("  the same at 500 rows a second, p99", "<= 30 ms", text, latency.p99 <= 30))
    if found.costs:
        worst = max(found.costs, key=lambda cost: cost.ratio)
        reads = max(cost.big_reads / max(cost.small_reads, 1) for cost in found.costs)
        small, big = found.sizes
        goal = Goal(
            f"cost at {big:,} rows vs. {small:,}, the worst",
            "<= 1.3x",
            f"{worst.ratio:.2f}x ({worst.what}); rows read: {reads:.2f}x",
            worst.ratio <= 1.3,
        )
        reached.append(goal)
    if found.memory:
        first, last = memory_ends(found.memory)
        met = max(rss for _, rss in found.memory) < 150 and last < first * 1.1
        text = f"{first:.0f} -> {last:.0f} MiB over {found.memory[-1][0]:,} rows"
        reached.append(Goal("memory of a worker process", "flat, < 150 MiB", text, met))
    return reached


def memory_ends(samples: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the memory after a tenth of the rows, when all is imported and connected, and at the end."""
    whole = samples[-1][0]
    return next(rss for rows, rss in samples if rows >= whole / 10), samples[-1][1]


def text(found: Results) -> str:
    """Return the whole report."""
    parts = [f"measured: {found.place}"]
    if found.runs:
        parts += [_throughput(found), _bars("rows a second", [(_name(run), run.rate) for run in found.runs]), _endpoint(found)]
    if found.latencies:
        parts += [_latency(found.latencies)]
    if found.costs:
        parts += [_growth(found), found.plans]
    if found.memory:
        step = max(1, len(found.memory) // 15)
        rows = [(f"{sent:,} rows", rss) for sent, rss in found.memory[::step]]
        parts += [_bars("memory of one worker process, MiB", rows)]
    if found.transports:
        parts += [_transports(found.transports)]
    parts += [_goals(goals(found))]
    return "\n\n".join(parts) + "\n"


def _name(run: Run) -> str:
    return f"{run.name}, {run.processes}p"


def _throughput(found: Results) -> str:
    ours = found.best(c.OURS)
    lines = [f"{'':40}{'rows':>9}{'rows/s':>9}{'ours is':>9}{'CPU ms':>9}{'DB ms':>8}{'endpoint':>10}{'MiB':>6}"]
    for run in found.runs:
        ratio = f"{ours.rate / run.rate:.2f}x" if ours else "-"
        lines.append(
            f"{_name(run):40}{run.rows:>9,}{run.rate:>9,.0f}{ratio:>9}{run.cpu_ms:>9.3f}{run.database_cpu_ms:>8.3f}"
            f"{run.endpoint_cpu:>10.0%}{run.memory_mb:>6.0f}"
        )
    notes = (
        "p: processes. CPU ms and DB ms: CPU a row of the contestant and of MariaDB. endpoint: its share of one core.",
        "From the first message's arrival at the endpoint to the last row's result in MySQL. One device a row, the same rows.",
    )
    return "\n".join([*lines, *notes])


def _endpoint(found: Results) -> str:
    fastest = max((run for run in found.runs if run.name != limits.H2LOAD), key=lambda run: run.rate)
    bound = found.best(limits.H2LOAD)
    if bound is None:
        return ""
    return (
        f"The endpoint is not the bottleneck: h2load has {bound.rate:,.0f} requests/s from it, the fastest above,"
        f" {_name(fastest)}, {fastest.rate:,.0f}/s, and it used {fastest.endpoint_cpu:.0%} of one core meanwhile."
    )


def _bars(title: str, rows: Iterable[tuple[str, float]]) -> str:
    listed = list(rows)
    most = max(value for _, value in listed) or 1
    width = max(len(name) for name, _ in listed)
    return "\n".join(
        [title, *(f"  {name:{width}} {'#' * max(1, round(value / most * BAR)):{BAR}} {value:,.0f}" for name, value in listed)]
    )


def _latency(latencies: list[Latency]) -> str:
    lines = [f"{'commit and nudge to provider, ms':34}{'rows':>6}{'lost':>6}{'p50':>8}{'p99':>9}{'worst':>9}"]
    lines += [f"{x.name:34}{x.rows:>6}{x.lost:>6}{x.p50:>8.1f}{x.p99:>9.1f}{x.worst:>9.1f}" for x in latencies]
    for x in latencies:
        lines.append(f"  {x.name}")
        for low, high in ((0, 5), (5, 10), (10, 20), (20, 50), (50, 100), (100, 1000), (1000, 1e9)):
            count = sum(low <= sample < high for sample in x.samples)
            label = f"{low}-{high} ms" if high < 1e9 else f">{low} ms"
            lines.append(f"    {label:12} {'#' * round(count / len(x.samples) * BAR):{BAR}} {count}")
    return "\n".join(lines)


def _growth(found: Results) -> str:
    small, big = found.sizes
    lines = [f"{'cost by rows in the table':40}{small:>10,}{big:>11,}{'ratio':>7}{'reads':>12}{'reads':>12}{'ratio':>7}"]
    for cost in found.costs:
        reads = cost.big_reads / max(cost.small_reads, 1)
        lines.append(
            f"{cost.what:40}{cost.small:>10.4f}{cost.big:>11.4f}{cost.ratio:>7.2f}"
            f"{cost.small_reads:>12,.1f}{cost.big_reads:>12,.1f}{reads:>7.2f}"
        )
    lines.append("reads: index entries and rows that the server read, which no other load on the machine can blur.")
    return "\n".join(lines)


def _transports(carried: list[Carried]) -> str:
    lines = [f"{'client, one process, 100 in flight':40}{'messages':>9}{'per s':>9}{'CPU ms':>9}"]
    lines += [f"{x.name:40}{x.messages:>9,}{x.rate:>9,.0f}{x.cpu_ms:>9.3f}" for x in carried]
    return "\n".join(lines)


def _goals(listed: list[Goal]) -> str:
    lines = [f"{'goal':48}{'aim':>16}  reached"]
    lines += [f"{goal.what:48}{goal.aim:>16}  {goal.reached} {'' if goal.met else '(not met)'}".rstrip() for goal in listed]
    return "\n".join(lines)
