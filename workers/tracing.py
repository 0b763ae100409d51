"""OpenTelemetry traces, if OTEL_EXPORTER_OTLP_ENDPOINT is set: a span for each task, statement and Redis command.

Statements are recorded with their placeholders, Redis commands without their arguments. Sends are not traced one by one: a
drain's claims and results show as its statements.
"""

import os
import threading
from typing import Any

from db.engine import get_engine
from settings import ConfigurationError, Settings
from tasks.deadline import Deadline
from tasks.http import MOST_ANSWER_BYTES, POOLS

SERVICE = "chat-workers"
# At most this much of a child's start and end: celery gives up on one that takes longer than 4 s to start.
FLUSH_SECONDS = 2.0
EXPORT_SECONDS = 4

_provider: list[Any] = []


def check(settings: Settings) -> None:
    """Raise ConfigurationError where traces are wanted and what makes them is not installed. Imports it, before the fork."""
    if settings.otel_exporter_otlp_endpoint is None:
        return
    try:
        _modules()
    except ImportError:
        raise ConfigurationError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed:"
            " pip install --require-hashes -r requirements/telemetry.txt"
        ) from None


def start(settings: Settings) -> None:
    """Begin to trace in this process. Its exporter has a thread, which no fork survives: so in each child, after it is made."""
    if settings.otel_exporter_otlp_endpoint is None:
        return
    sdk, export, exporter, resources, celery, redis, sqlalchemy = _modules()
    os.environ.setdefault("OTEL_SERVICE_NAME", SERVICE)
    provider = sdk.TracerProvider(resource=resources.Resource.create(), shutdown_on_exit=False)
    sending = exporter.OTLPSpanExporter(timeout=EXPORT_SECONDS, session=_bounded_session())
    provider.add_span_processor(export.BatchSpanProcessor(sending))
    celery.CeleryInstrumentor().instrument(tracer_provider=provider)
    redis.RedisInstrumentor().instrument(tracer_provider=provider)
    sqlalchemy.SQLAlchemyInstrumentor().instrument(tracer_provider=provider, engine=get_engine())
    _provider.append(provider)


def flush() -> None:
    """Send what has gathered: a child that ends would take it along. A collector that does not end its answer is left."""
    for provider in _provider:
        # force_flush has no end of its own: https://github.com/open-telemetry/opentelemetry-python/issues/4568
        flushing = threading.Thread(target=provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def _bounded_session() -> Any:
    import requests

    class Adapter(requests.adapters.HTTPAdapter):
        """Reads an answer for so long, and so much of it: requests would keep one without end."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options)
            self.poolmanager.pool_classes_by_scheme = POOLS

        def send(self, *arguments: Any, **options: Any) -> Any:
            with Deadline(EXPORT_SECONDS):
                answer = super().send(*arguments, **options)
                answer._content = answer.raw.read(MOST_ANSWER_BYTES)
                answer.headers.pop("location", None)  # which would be followed, to any host
                answer.close()
            return answer

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter())
    return session


def _modules() -> tuple[Any, ...]:
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.instrumentation import celery, redis, sqlalchemy
    from opentelemetry.sdk import resources, trace
    from opentelemetry.sdk.trace import export

    return trace, export, trace_exporter, resources, celery, redis, sqlalchemy
