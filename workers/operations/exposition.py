"""The snapshot as Prometheus reads it."""

from collections.abc import Iterable
from types import SimpleNamespace

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from tasks.facts import PREFIX, Fact, Row
from workers.operations.counted import families
from workers.operations.fleet import VERSION
from workers.operations.snapshot import COUNTED, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
    counted = snapshot.counted()
    found = [_family(fact, rows) for table, rows in snapshot.tables() for fact in table.facts]
    found += families(counted, COUNTED) if counted else ()
    build = InfoMetricFamily(f"{PREFIX}build", "The version of this gateway.", {"version": VERSION})
    return generate_latest(SimpleNamespace(collect=lambda: [build, *found]))
