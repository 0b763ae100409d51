"""The snapshot as Prometheus reads it."""

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tasks.facts import PREFIX, Fact, Row
from workers.operations.counted import families
from workers.operations.snapshot import COUNTED, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for table, rows in self._snapshot.tables():
            for fact in table.facts:
                yield _family(fact, rows)
        if counted := self._snapshot.counted():
            yield from families(counted, COUNTED)


def _family(fact: Fact, rows: Iterable[Row]) -> Metric:
    """Return a fact with a value for each row that has one."""
    kind = CounterMetricFamily if fact.is_counter else GaugeMetricFamily
    bounded = f" At most {fact.most:,} are counted." if fact.most else ""
    family = kind(PREFIX + fact.name, fact.help + bounded, labels=fact.labels)
    for row in rows:
        if row.get(fact.name) is not None:
            family.add_metric([str(row[label]) for label in fact.labels or ()], row[fact.name])
    return family


def exposition(snapshot: Snapshot) -> bytes:
    """Return the metrics of a snapshot; a part that could not be read has its collector_up at 0 and no others."""
    return generate_latest(_Collector(snapshot))
