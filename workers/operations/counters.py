"""What the worker processes have counted, as Prometheus's counters and histograms. Source: tasks/counters.py."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import product

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from redis import Redis

from tasks import counters, jobs
from tasks.attachments.verdicts import WORDS
from tasks.counters import DELIVERIES, METRICS, SCANS, TASKS, Counter, Histogram
from tasks.notifications.outcome import Kind
from tasks.notifications.providers import PROVIDERS
from workers.operations.report import PREFIX, Section
from workers.operations.telling import OUTCOMES

Sums = dict[tuple[str, ...], float]


def read(client: Redis) -> Sums:
    """Return the sums over all processes: one round trip."""
    return counters.read(client)


def _zeros() -> Sums:
    """Return the series that alerts ask for, at 0.

    A series that first appears at 1 has increased by nothing, for all that Prometheus knows: so each is there before its first
    event, and again once Redis has lost its data. Reasons of deliveries are not known beforehand; an alert sums over them.
    """
    return {
        **{(SCANS.name, word): 0 for word in WORDS},
        **{(TASKS.name, *labels): 0 for labels in product(jobs.TASKS, OUTCOMES)},
        **{(DELIVERIES.name, provider, kind.value, ""): 0 for provider, kind in product(PROVIDERS, Kind)},
    }


def metrics(sums: Sums) -> Iterator[Metric]:
    """Yield all that tasks/counters.py lists; what is not known beforehand is missing until it was counted."""
    by_name: dict[str, Sums] = defaultdict(dict)
    for (name, *rest), amount in sorted((_zeros() | sums).items()):
        by_name[name][tuple(rest)] = amount
    for metric in METRICS:
        found = by_name[metric.name]
        yield _counter(metric, found) if isinstance(metric, Counter) else _histogram(metric, found)


def _counter(metric: Counter, sums: Sums) -> Metric:
    family = CounterMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    for labels, amount in sums.items():
        family.add_metric(labels, amount)
    return family


def _histogram(metric: Histogram, sums: Sums) -> Metric:
    family = HistogramMetricFamily(PREFIX + metric.name, metric.help, labels=metric.labels)
    for labels in sorted({key[:-1] for key in sums}):
        total, buckets = 0.0, []
        for bound in metric.bounds:
            total += sums.get((*labels, bound), 0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, sums.get((*labels, "sum"), 0))
    return family


SECTION = Section("counters", read, metrics)
