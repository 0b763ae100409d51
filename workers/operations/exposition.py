"""The picture as Prometheus reads it."""

from collections.abc import Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from workers.operations.picture import SECTIONS, Picture
from workers.operations.report import gauge

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Collector(Collector):
    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def collect(self) -> Iterator[Metric]:
        readings = [((reading.name,), reading) for reading in self._picture.readings]
        yield gauge(
            "collector_up", "1 if this part could be read for this scrape.", [(k, r.ok) for k, r in readings], "collector"
        )
        yield gauge("collector_seconds", "How long its reading took.", [(k, r.seconds) for k, r in readings], "collector")
        for reading in self._picture.readings:
            if reading.ok:
                yield from SECTIONS[reading.name].metrics(reading.value)


def exposition(picture: Picture) -> bytes:
    """Return the metrics of a picture; a part that could not be read has its collector_up at 0 and no others."""
    return generate_latest(_Collector(picture))
