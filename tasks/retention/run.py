"""Run one policy: ask whether it may run, walk within its limits, and keep the ledger."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from db.batches.throttle import CHECK_SECONDS, Throttle
from db.batches.walk import Limits, Progress, walk
from db.locks import Lock, LockedError, LockLostError, hold
from db.transactions import transact
from settings import ConfigurationError, get_settings
from tasks.retention import files, ledger, rules
from tasks.retention.archive import Archive, ArchiveError, destination
from tasks.retention.files import Files
from tasks.retention.policies import Policy
from tasks.retention.rules import RuleError, Rules

NOT_DUE = "not due: today's run was made"
FIRST_HOUR = 1
"""Of the day in UTC, of policies that may run at any."""


class RunFailedError(Exception):
    """A run could not begin or go on; its batches until then are done and in the ledger. The text is one sentence."""


# What one policy's run may raise, and the next policy's run need not mind.
FAILURES = (RunFailedError, RuleError, ConfigurationError)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a run. `started` is False if it did not begin; `why` says why it ended or did not begin. `skipped` rows
    were locked or referred to by others and wait for the next run.
    """

    policy: str
    started: bool
    why: str
    finished: bool = False
    run: int | None = None
    rows: int = 0
    skipped: int = 0
    batches: int = 0
    seconds: float = 0.0
    held_seconds: float = 0.0
    cutoff: object = None


def run_policy(
    engine: Engine,
    policy: Policy,
    *,
    by: str,
    any_hour: bool = False,
    if_due: bool = False,
    seconds: float = math.inf,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Report:
    """Run one policy within its limits, and for `seconds` at most; return what was done. Raise one of FAILURES.

    `if_due`: not if this day's run, which is due from the first of the policy's hours on, was made.

    Of two runs at once the second returns at once. Each begins at the first row, so one that is "finished" has looked at all.
    """
    try:
        with engine.connect() as connection:
            now = rules.read(connection, policy)
            why = now.why_not(any_hour=any_hour)
            if if_due and not why and not ledger.is_due(connection, policy, now.hours[0] if now.hours else FIRST_HOUR):
                why = NOT_DUE
        if why:
            return Report(policy.name, False, why)
        if now.archive:
            destination(policy)  # a run that has no place for its archive does not begin
        if isinstance(policy.target, Files):
            policy.target.folder  # noqa: B018 - nor one without a folder
        with Throttle.of(get_settings()) as throttle, hold(engine, ledger.lock_of(policy.name)) as lock:
            return _Run(engine, policy, now, lock, throttle, by, any_hour, seconds, stop, progress).run()
    except LockedError:
        return Report(policy.name, False, "already running; see: chat-workers retention history")
    except SQLAlchemyError as error:
        raise RunFailedError(f"{policy.name} failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error)


@dataclass(slots=True)
class _Run:
    engine: Engine
    policy: Policy
    rules: Rules
    lock: Lock
    throttle: Throttle
    by: str
    any_hour: bool
    seconds: float
    stop: Callable[[], bool]
    progress: Callable[[Progress], None]
    _asked_at: float = -1e9
    _answer: str | None = None
    _held: float = 0.0

    def run(self) -> Report:
        began = time.monotonic()
        transact(self.engine, lambda c: ledger.bury(c, self.policy))
        entry = transact(self.engine, lambda c: ledger.Entry(c, self.policy, self.by, self.rules.age))
        try:
            walked = self._walk(entry)
        except (SQLAlchemyError, LockLostError, ArchiveError, RuleError, OSError) as error:
            reason = f"failed: {_reason(error)}"
            self._close(entry, reason, failed=True)
            raise RunFailedError(f"{self.policy.name} {reason}") from error
        except Exception as error:
            self._close(entry, f"failed: {type(error).__name__}; the log says where", failed=True)
            raise
        why = walked.why
        if walked.skipped:
            why += f"; locked or referred to, left for the next run: {walked.skipped:,}"
        return Report(
            policy=self.policy.name,
            started=True,
            why=why,
            finished=walked.why == "finished",
            run=entry.run,
            rows=self._close(entry, why),
            skipped=walked.skipped,
            batches=walked.batches,
            seconds=time.monotonic() - began,
            held_seconds=self._held,
            cutoff=entry.cutoff,
        )

    def _walk(self, entry: ledger.Entry) -> Progress:
        settings, target = get_settings(), self.policy.target
        limits = Limits(
            rows=self.rules.rows_per_run,
            seconds=min(self.rules.minutes_per_run * 60, self.seconds),
            batch_rows=self.rules.batch_rows,
            batch_seconds=settings.batches_seconds,
            rest=settings.batches_rest,
        )
        if isinstance(target, Files):
            return files.delete(
                self.engine, target, entry.cutoff, limits, record=entry.record, halt=self._halt, progress=self.progress
            )
        keeper = Archive(self.engine, self.policy, entry.run) if self.rules.archive else None

        def progress(now: Progress) -> None:
            self._held = now.held_seconds
            self.progress(now)

        return walk(
            self.engine,
            target,
            entry.cutoff,
            limits,
            self.lock,
            self.throttle,
            record=entry.record,
            keeper=keeper,
            halt=self._halt,
            progress=progress,
        )

    def _halt(self) -> str | None:
        """Return why to end now: the worker's shutdown at once, an operator's word within CHECK_SECONDS."""
        if self.stop():
            return "asked to stop"
        if time.monotonic() - self._asked_at >= CHECK_SECONDS:
            now = rules.read(self.lock.session, self.policy)
            self._answer = now.why_not(any_hour=self.any_hour)
            if self._answer is None and now.texts != self.rules.texts:
                self._answer = "its rules were changed"
            self._asked_at = time.monotonic()
        return self._answer

    def _close(self, entry: ledger.Entry, why: str, *, failed: bool = False) -> int:
        """Write the end; return the ledger's rows. If the database is away the next run buries this one."""
        return transact(self.engine, lambda c: entry.close(c, why, self._held, failed=failed))
