"""How log lines look: structlog over the standard library, console or JSON, with the task's name and id bound."""

import logging
import sys

import structlog
from structlog.typing import Processor

from settings import Settings

# Celery says three lines of INFO for each beat tick, several ticks a second over all jobs. The tasks log what they did when
# they did something; failures are louder than INFO.
_TICKING = ("celery.beat", "celery.worker.strategy", "celery.app.trace")
# Each step of a migration, and for each S3 client made where it found its endpoint and credentials.
_TALKATIVE = ("alembic", "botocore")


def configure(settings: Settings) -> None:
    """Send this process's log lines, ours and the libraries', to stderr in the format of LOG_FORMAT."""
    # No traceback shows local variables: they hold tokens, messages and passwords.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
        exceptions: list[Processor] = [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        ]
    else:
        plain = structlog.dev.RichTracebackFormatter(show_locals=False)
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        exceptions = []
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *exceptions, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in (*_TICKING, *_TALKATIVE):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
