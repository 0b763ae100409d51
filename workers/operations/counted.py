"""Counters and histograms of the processes: their sums for Prometheus, their increase within alerts' windows and by minutes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from redis import Redis

from tasks import counters
from tasks.counters import Sums
from tasks.facts import PREFIX, Counter, Histogram, Row
from tasks.notifications.facts import DELIVERED_SECONDS

Facts = Sequence[Counter | Histogram]
SHARE = 0.95
WAITING = ("waiting",)


@dataclass(frozen=True, slots=True)
class Counted:
    """The sums since counting began, and for each fact that has an alert its rows within that alert's window."""

    sums: Sums
    windows: dict[str, list[Row]]
    hour: list[Row]
    """Push delivery in each minute, oldest first; {} where no worker made a sample, the last one still under way."""


def read(client: Redis, facts: Facts) -> Counted:
    """Return the sums over all processes, the known ones at 0 at least. Raise RedisError."""
    known = {(fact.name, *labels): 0.0 for fact in facts if isinstance(fact, Counter) for labels in fact.known}
    sums = known | counters.read(client, facts)
    watched = {fact.name for fact in facts if fact.alert}
    samples = counters.minutes(client, [WAITING, *(field for field in sums if field[0] in watched)])
    windows = {fact.name: list(_rows(fact, _window(samples, sums, fact.alert.window))) for fact in facts if fact.alert}
    return Counted(sums, windows, list(_hour(samples, sums))[::-1])


def _window(samples: list[Sums | None], now: Sums, minutes: int) -> Sums:
    """Return by how much each sum has grown in so many minutes, or since the oldest sample if none is so old.

    Where no worker made samples for a while, nothing was counted either, so the next older one will do.
    """
    before = next((sample for sample in [*samples[minutes:], *samples[minutes::-1]] if sample is not None), None)
    return {} if before is None else _grown(before, now)


def _hour(samples: list[Sums | None], later: Sums) -> Iterator[Row]:
    for sample in samples:
        row: Row = {}
        if sample is not None:
            grown = _by_labels(DELIVERED_SECONDS, _grown(sample, later)).values()
            by_bound = {bound: sum(own.get(bound, 0) for own in grown) for bound in DELIVERED_SECONDS.bounds}
            within = quantile(DELIVERED_SECONDS, by_bound)
            row = {"pushes": sum(by_bound.values()), "waiting": sample.get(WAITING), "within_seconds": within}
            later = sample
        yield row


def _grown(before: Sums, now: Sums) -> Sums:
    """Return by how much each sum has grown; what is less than it was has begun anew."""
    return {field: amount - (was if (was := before.get(field, 0)) <= amount else 0) for field, amount in now.items()}


def _rows(fact: Counter | Histogram, sums: Sums) -> Iterator[Row]:
    """Yield a row for each set of label values: a counter's increase, a histogram's quantile."""
    for labels, own in _by_labels(fact, sums).items():
        value = quantile(fact, own) if isinstance(fact, Histogram) else own[""]
        yield {**dict(zip(fact.labels, labels, strict=True)), fact.name: value}


def _by_labels(fact: Counter | Histogram, sums: Sums) -> dict[tuple[str, ...], dict[str, float]]:
    """Return a fact's sums by label values, and by bound for a histogram."""
    found: dict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
    for (name, *labels), amount in sorted(sums.items()):
        if name == fact.name:
            bound = labels.pop() if isinstance(fact, Histogram) else ""
            found[tuple(labels)][bound] = amount
    return found


def quantile(fact: Histogram, counts: dict[str, float]) -> float | None:
    """Return the 95th percentile as Prometheus estimates it, None of nothing."""
    rank = SHARE * sum(counts.get(bound, 0) for bound in fact.bounds)
    lower = 0.0
    for upper, bound in zip(fact.buckets, fact.bounds, strict=False):
        inside = counts.get(bound, 0)
        if 0 < rank <= inside:
            return lower + (upper - lower) * rank / inside
        rank -= inside
        lower = upper
    return lower if rank > 0 else None


def families(counted: Counted, facts: Facts) -> Iterator[Metric]:
    """Yield the metrics; what is not known beforehand is missing until it was counted."""
    for fact in facts:
        found = _by_labels(fact, counted.sums)
        if isinstance(fact, Histogram):
            histogram = HistogramMetricFamily(PREFIX + fact.name, fact.help, labels=fact.labels)
            for labels, counts in found.items():
                totals = accumulate(counts.get(bound, 0) for bound in fact.bounds)
                histogram.add_metric(labels, list(zip(fact.bounds, totals, strict=True)), counts.get("sum", 0))
            yield histogram
        else:
            counter = CounterMetricFamily(PREFIX + fact.name, fact.help, labels=fact.labels)
            for labels, counts in found.items():
                counter.add_metric(labels, counts[""])
            yield counter
