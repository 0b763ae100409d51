"""What each section of the picture can say: troubles in sentences, tables for people, metrics for Prometheus."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

Cell = str | int | float | None
Severity = Literal["critical", "warning"]

PREFIX = "chat_workers_"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong now; `alert` names the rule in deploy/prometheus/alerts.yml and its section in docs/runbook.md."""

    alert: str
    severity: Severity
    sentence: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header, the same for the terminal and the browser. `empty` is said where there are no rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    empty: str = "none"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the picture: how it is read from its source, and what it says. `read` raises what its source raises."""

    name: str
    read: Callable[..., Any]
    metrics: Callable[[Any], Iterable[Metric]]
    troubles: Callable[[Any], Iterable[Trouble]] = lambda _value: ()
    tables: Callable[[Any], Iterable[Table]] = lambda _value: ()


def gauge(name: str, help_text: str, rows: Iterable[tuple[tuple[str, ...], float | None]], *labels: str) -> Metric:
    """Return a gauge with a value for each row of label values; a row without a value is left out."""
    family = GaugeMetricFamily(PREFIX + name, help_text, labels=labels)
    for values, number in rows:
        if number is not None:
            family.add_metric(values, number)
    return family
