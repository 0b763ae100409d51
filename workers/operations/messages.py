"""Messages that no worker can run: how many were refused and why, and how many are kept for an operator."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from redis import Redis

from workers.messages import rejected
from workers.operations.report import PREFIX, Section, Table, Trouble, gauge


@dataclass(frozen=True, slots=True)
class Messages:
    """Refused messages since the counts began, by queue and defect, and those kept now."""

    refused: dict[tuple[str, str], int]
    kept: int


def read(client: Redis) -> Messages:
    """Return how it stands: two round trips."""
    return Messages(rejected.rejected_counts(client), rejected.kept_count(client))


def metrics(found: Messages) -> Iterator[Metric]:
    """Yield a counter and a gauge."""
    family = CounterMetricFamily(
        PREFIX + "messages_rejected", "Messages that no worker could run, by queue and defect.", labels=("queue", "defect")
    )
    for labels, amount in sorted(found.refused.items()):
        family.add_metric(labels, amount)
    yield family
    yield gauge("messages_kept", "Refused messages that wait for an operator.", [((), found.kept)])


def troubles(found: Messages) -> Iterator[Trouble]:
    """Yield what is wrong now."""
    if found.kept:
        what = "1 message was" if found.kept == 1 else f"{found.kept} messages were"
        yield Trouble("ChatWorkersMessagesRejected", "warning", f"{what} refused and kept: `chat-workers messages list`.")


def tables(found: Messages) -> Iterator[Table]:
    """Yield what a person wants to see."""
    rows = tuple((queue, defect, amount) for (queue, defect), amount in sorted(found.refused.items()))
    yield Table("Refused messages", ("queue", "defect", "so far"), rows)


SECTION = Section("messages", read, metrics, troubles, tables)
