"""Set up log lines: structlog over the standard library, console or JSON, with the task's name and id bound."""

import logging
import os
import sys
import traceback
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from settings import Settings
from tasks.words import LONGEST_LINE, printable

# Celery logs three lines of INFO for each beat tick, several ticks a second over all jobs. The tasks themselves log what they
# did, if anything; failures are louder than INFO.
_TICKING = ("celery.beat", "celery.worker.strategy", "celery.app.trace")
# Alembic logs each step of a migration, botocore where each client found its credentials, hpack each token, and Flower all its
# settings, the key of its logins and the secret of its OAuth client among them.
_TALKATIVE = ("alembic", "botocore", "flower.command", "hpack")
_LONGEST_BYTES = 4 * LONGEST_LINE
_LONGEST_VALUE = 300
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}


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
    rendering: list[Processor]
    if settings.log_format == "json":
        exceptions = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendering = [structlog.processors.ExceptionRenderer(exceptions), _write_json]
    else:
        colours = sys.stderr.isatty()
        rendering = [_printable, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=_write_traceback)]
    if _is_journal(sys.stderr):
        rendering.append(_prioritise)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.captureWarnings(True)
    for name in (*_TICKING, *_TALKATIVE):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # It warns of an answer's headers and, at DEBUG, tells of each request, with the path: of BACKUP_PING_URL that is its key.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape the control signs of texts: a message's id with a line break in it would forge a whole line of the log."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in event.items()}


def _write_json(logger: Any, method: str, event: EventDict) -> str:
    """Return the event in ASCII, as one line; of one that is too long its values are cut, not the line."""
    write = structlog.processors.JSONRenderer()
    line = str(write(logger, method, event))
    if len(line) <= _LONGEST_BYTES:
        return line
    return str(write(logger, method, {key: str(value)[:_LONGEST_VALUE] for key, value in event.items()}))


def _write_traceback(out: TextIO, error: ExcInfo) -> None:
    """Write a traceback whose lines, an exception's own text among them, are indented and so cannot be taken for events."""
    for line in "".join(traceback.format_exception(*error)).splitlines():
        out.write(f"\n    {printable(line)}")


def _is_journal(stream: TextIO) -> bool:
    """Return whether systemd's journal reads the stream (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM")
    return bool(named) and named == "{0.st_dev}:{0.st_ino}".format(os.fstat(stream.fileno()))


def _prioritise(_logger: Any, method: str, text: Any) -> Any:
    """Begin each line with its priority for the journal (sd-daemon(3)), and cut it before the journal does."""
    lines = (line.encode(errors="replace")[:_LONGEST_BYTES].decode(errors="ignore") for line in text.split("\n"))
    return "\n".join(f"<{_PRIORITIES.get(method, 6)}>{line}" for line in lines)
