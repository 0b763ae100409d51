"""What the worker processes have counted, as Prometheus's counters and histograms. Source: tasks/counters.py."""

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from redis import Redis

from tasks import counters
from tasks.counters import METRICS, Counter, Histogram
from workers.operations.report import PREFIX, Section

Sums = dict[tuple[str, ...], float]


def read(client: Redis) -> Sums:
    """Return the sums over all processes: one round trip."""
    return counters.read(client)


def metrics(sums: Sums) -> Iterator[Metric]:
    """Yield all that tasks/counters.py lists, empty where nothing was counted yet."""
    by_name: dict[str, Sums] = defaultdict(dict)
    for (name, *rest), amount in sorted(sums.items()):
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
