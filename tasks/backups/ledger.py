"""The record of what was run, in `worker_backup_runs` and told to BACKUP_PING_URL: what monitoring asks for the last good one.

A ping is that of a dead man's switch of healthchecks.io's form, when a backup begins and when it has ended.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from db.transactions import transact
from settings import ConfigurationError, Settings
from tasks import outbox
from tasks.backups.errors import BackupError, BusyError, StoppedError
from tasks.http import NoAnswerError, Server
from tasks.words import moment

log = structlog.get_logger(__name__)

RECORD = text("""
    INSERT INTO worker_backup_runs
      (job, tier, outcome, artefact, bytes, row_count, milliseconds, detail, restore_milliseconds, newest_row_at)
    VALUES
      (:job, :tier, :outcome, :artefact, :bytes, :rows, :milliseconds, :detail, :restore_milliseconds, :newest_row_at)
""")
# By idx_ended_at; a handful of rows a day.
FORGET = text("DELETE FROM worker_backup_runs WHERE ended_at < NOW(3) - INTERVAL 400 DAY LIMIT 1000")
# By idx_job alone. A run dated after now, when a clock was wrong, counts as none.
LAST = text("""
    SELECT job, tier, MAX(ended_at) AS tried, MAX(IF(outcome = 'done', ended_at, NULL)) AS done
    FROM worker_backup_runs WHERE ended_at <= NOW(3) GROUP BY job, tier
""")
# By idx_job: a drill a day.
LAST_DRILL = text("""
    SELECT tier, artefact, bytes, row_count, milliseconds, restore_milliseconds, newest_row_at FROM worker_backup_runs
    WHERE job = 'drill' AND outcome = 'done' AND restore_milliseconds > 0 AND ended_at <= NOW(3)
    ORDER BY ended_at DESC LIMIT 1
""")
# By idx_job: one an hour at most.
SHIPPED = text("""
    SELECT DISTINCT COALESCE(NULLIF(tier, ''), job), artefact FROM worker_backup_runs
    WHERE job IN ('monthly', 'ship') AND outcome = 'done'
""")
AHEAD = text("SELECT job, ended_at FROM worker_backup_runs WHERE ended_at > NOW(3) ORDER BY id LIMIT 100")

LONGEST_DETAIL = 1000
PING_SECONDS = 5.0
LONGEST_PING = 10_000
TOLD = ("job", "tier", "artefact", "bytes", "rows", "milliseconds", "detail")
DID = {"daily": "dumped", "weekly": "sealed", "monthly": "shipped", "ship": "shipped", "drill": "drilled"}


@dataclass(slots=True)
class Run:
    """One run of a job, filled in while it goes on. `bytes` and `rows` are of the artefact.

    `ignored` has a sentence about each artefact that was found and counts as nothing.
    """

    job: str
    tier: str = ""
    artefact: str = ""
    bytes: int = 0
    rows: int = 0
    milliseconds: int = 0
    restore_milliseconds: int = 0
    """Of a drill, until the rows were there; the rest is the comparison."""
    newest_row_at: datetime | None = None
    """Of a drill: the newest message or notification that came back, in UTC."""
    ignored: list[str] = field(default_factory=list)

    @property
    def pace(self) -> str:
        """Of a drill: the rows that a restore brings back in a second."""
        return f"{self.rows * 1000 / max(self.restore_milliseconds, 1):,.0f} rows a second"


@contextmanager
def recorded(engine: Engine, settings: Settings, run: Run) -> Iterator[None]:
    """Time the block, record how it ended, and ping. A run that found no need to work names no artefact and is not.

    Errors of the database and the disk are raised as BackupError, with what failed.
    """
    started = time.monotonic()
    try:
        yield
    except (BusyError, StoppedError):
        raise
    except (BackupError, ConfigurationError, DBAPIError, OSError) as error:
        sentence = str(error)
        if isinstance(error, DBAPIError):
            sentence = f"the database {engine.url.host}/{engine.url.database} failed: {error.orig}"
        elif isinstance(error, OSError):
            sentence = f"{error.filename or 'the disk'}: {error.strerror or error}"
        _record(engine, run, started, "failed", sentence)
        ping(settings, run.job, "/fail", sentence)
        if isinstance(error, ConfigurationError):
            raise
        raise BackupError(sentence) from error
    if run.artefact:
        _record(engine, run, started, "done", "")
        ping(settings, run.job, "")


def ping(settings: Settings, job: str, event: str, body: str = "") -> None:
    """Say of a job that it begins (/start), is done (nothing) or failed (/fail) with this sentence. It fails no backup."""
    if settings.backup_ping_url is None or job not in DID:
        return
    server = Server("BACKUP_PING_URL", settings.backup_ping_url.replace("{job}", job), private_network=True, connections=1)
    try:
        status = server.post({}, body.encode()[:LONGEST_PING], PING_SECONDS, more=event).status
        if status >= 300:
            raise NoAnswerError(f"BACKUP_PING_URL answered with status {status}")
    except NoAnswerError as error:
        log.warning("not pinged", job=job, reason=str(error))


def last_runs(engine: Engine) -> dict[tuple[str, str], Row[Any]]:
    """Return when each (job, tier) was last `tried`, and last `done` if ever, in UTC."""
    with engine.connect() as connection:
        return {(row.job, row.tier): row for row in connection.execute(LAST)}


def last_drill(engine: Engine) -> Run | None:
    """Return the newest good drill that was timed, None if there is none."""
    with engine.connect() as connection:
        row = connection.execute(LAST_DRILL).one_or_none()
    return Run("drill", *row) if row else None


def shipped(engine: Engine) -> list[tuple[str, str]]:
    """Return tier and name of each archive that was shipped in the last 400 days, of each run the last."""
    with engine.connect() as connection:
        return [(tier, name) for tier, name in connection.execute(SHIPPED)]


def ahead(engine: Engine) -> list[str]:
    """Return a sentence about each run that is dated after now; deleting its row ends that."""
    with engine.connect() as connection:
        rows = connection.execute(AHEAD).all()
    return [
        f"the run of {row.job} in worker_backup_runs is dated after now, {moment(row.ended_at)}: not counted" for row in rows
    ]


def _record(engine: Engine, run: Run, started: float, outcome: str, detail: str) -> None:
    run.milliseconds = round((time.monotonic() - started) * 1000)
    values = {**asdict(run), "outcome": outcome, "detail": detail[:LONGEST_DETAIL]}

    def write(connection: Connection) -> None:
        connection.execute(RECORD, values)
        outbox.emit(connection, "backup.done" if outcome == "done" else "backup.failed", {name: values[name] for name in TOLD})
        connection.execute(FORGET)

    try:
        transact(engine, write)
    except DBAPIError as error:
        # The backup itself is none the worse for it, and what failed is raised by the caller.
        log.error("run not recorded", job=run.job, outcome=outcome, reason=str(error.orig))
