"""Scan many files at once in this process: threads scan, one thread claims, renews the leases and writes the results."""

import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache

import structlog
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from settings import ConfigurationError, get_settings
from tasks import counters, pause
from tasks.attachments import find_unqueued, formats, scannable
from tasks.attachments.clamd import Clamd, ClamdUnavailableError, Version
from tasks.attachments.facts import SCANS
from tasks.attachments.looks import StoppedError
from tasks.attachments.quarantine import open_quarantine
from tasks.attachments.queue import HEARTBEAT_SECONDS, Queue, is_unscanned
from tasks.attachments.scan import Scanner, scan
from tasks.attachments.scannable import UnfitError
from tasks.attachments.settlement import PENDING, Attachment, Settlement, settle
from tasks.attachments.storage import open_storage
from tasks.attachments.verdicts import Finding, Kind
from tasks.shutdown import stop_requested

log = structlog.get_logger(__name__)

# A sweep that finds work for longer than this ends and nudges the next one, so that no task nears its time limit.
RUN_SECONDS = 30
# Results that come within this time of each other are written in one transaction.
TOGETHER_SECONDS = 0.05
# Claimed ahead for each file that is being scanned, so that small files do not wait for the database.
AHEAD = 8


@dataclass(slots=True)
class Summary:
    """What a run did: attachments by the verdict they were settled with, and whether there is more to do now, or no row."""

    verdicts: Counter[str] = field(default_factory=Counter)
    given_back: int = 0
    more: bool = False
    absent: bool = False


@cache
def _process() -> Scanner:
    """Return what lives as long as the worker process: made at its first scan, after the fork."""
    settings = get_settings()
    for variable in ("ATTACHMENTS_ALLOWED_TYPES", "ATTACHMENTS_BLOCKED_TYPES"):
        for name in getattr(settings, variable.lower()):
            if name not in formats.NAMES and not name.startswith("zip "):
                raise ConfigurationError(f"{variable} names the type {name!r}; `chat-workers attachments check` lists all")
    clamd = Clamd(settings.clamd_url, scan_seconds=settings.clamd_scan_seconds)
    return Scanner(settings, get_engine(), open_storage(settings), open_quarantine(settings), clamd)


def scan_one(attachment_id: int) -> Summary:
    """Scan this attachment now, unless another worker is at it. The sweep tries again if this ends without a verdict, and what
    has had one is left to it at once.
    """
    unscanned = is_unscanned(get_engine(), attachment_id)
    if unscanned is None:
        return Summary(absent=True)
    run = _Run(connections=1)
    if not unscanned and run.queue.leave(attachment_id):
        run.summary.verdicts["left to the sweep"] += 1
    elif run.may_scan():
        run.work(lambda _room, _idle: run.queue.claim_one(attachment_id), once=True)
    return run.summary


def sweep() -> Summary:
    """Scan all attachments that are due: uploads that no one enqueued, next tries, rows whose worker died, and re-scans."""
    settings, engine = get_settings(), get_engine()
    run = _Run(connections=settings.attachments_connections)
    if pause.RESTORE in pause.paused(engine):  # records that are gone for a moment are not lost
        return run.summary
    failures = list[DBAPIError]()

    def look(find: Callable[..., int], *arguments: object, **more: int) -> None:
        try:
            find(*arguments, **more)
        except DBAPIError as error:  # raised in the end: it keeps nothing that is due from its scan
            failures.append(error)

    for find in (find_unqueued.find_recent, find_unqueued.find_served, find_unqueued.find_older):
        look(find, engine)
    if run.may_scan():
        if run.version:
            days, per_minute = settings.attachments_rescan_days, settings.attachments_rescans_per_minute
            look(find_unqueued.schedule_rescans, engine, run.version, days=days, per_minute=per_minute)
        run.work(run.queue.claim_due)
    if failures:
        raise failures[-1]
    return run.summary


class _Run:
    """One task's work. Threads scan; this thread claims, renews and settles."""

    def __init__(self, *, connections: int) -> None:
        self.queue = Queue(get_engine(), lease=uuid.uuid4().hex)
        self.summary = Summary()
        self._scanner = _process()
        self._connections = connections
        self._clamd_is_away = False
        self._not_asked = ""
        self._paused, self._looked_at = False, -math.inf
        self.version: Version | None = None
        """The version of clamd that was asked, and is fit."""

    def may_scan(self) -> bool:
        """Return False if the scans are paused or, with a log line, clamd's OK means nothing by its configuration.

        A clamd that is away is no reason: some attachments then have a try without a verdict. This run does not ask it again.
        """
        if self._is_paused():
            return False
        try:
            version = self._scanner.clamd.version()
            scannable.fitness(self._scanner.clamd, version, self._scanner.settings.attachments_largest_bytes)
            self.version = version
        except UnfitError:
            return False
        except ClamdUnavailableError as error:
            scannable.forget()
            self._not_asked = str(error)
        return True

    def work(self, claim: Callable[[int, bool], list[Attachment]], *, once: bool = False) -> None:
        """Scan what `claim` returns until it returns nothing, the time is up, a stop or pause is asked for, or clamd is away.

        `claim` takes how many, and whether one that must be alone may be claimed; with such a one nothing else is scanned.
        """
        ends_at = time.monotonic() + RUN_SECONDS
        renewed_at = time.monotonic()
        under_way: dict[Future[Settlement], Attachment] = {}
        claiming, alone = True, False
        with ThreadPoolExecutor(self._connections, thread_name_prefix="scan") as threads:
            while claiming or under_way:
                alone = alone and bool(under_way)
                if claiming and not alone and len(under_way) <= self._connections * AHEAD // 2:
                    idle = not under_way
                    claimed = claim(self._connections * AHEAD - len(under_way), idle)
                    alone = any(attachment.claims > 1 for attachment in claimed)
                    under_way |= {threads.submit(self._scan, attachment): attachment for attachment in claimed}
                    claiming = (bool(claimed) or not idle) and not once
                wait(under_way, timeout=pause.LOOK_SECONDS, return_when=FIRST_COMPLETED)
                done, _ = wait(under_way, timeout=TOGETHER_SECONDS)
                self._settle([(under_way.pop(future), future) for future in done])
                over = time.monotonic() > ends_at
                if over or stop_requested() or self._clamd_is_away or self._is_paused():
                    self.summary.more |= over and claiming
                    claiming = False
                    self._give_back([under_way.pop(future).id for future in list(under_way) if future.cancel()])
                if under_way and time.monotonic() - renewed_at > HEARTBEAT_SECONDS:
                    renewed_at = time.monotonic()
                    try:
                        self.queue.renew([attachment.id for attachment in under_way.values()])
                    except DBAPIError as error:
                        # The results are fenced: should a lease end, another worker's verdict stands.
                        log.warning("leases not renewed", reason=type(error.orig).__name__)

    def _is_paused(self) -> bool:
        """Return whether an operator or a restore has paused the scans, as MySQL said at the last look."""
        if time.monotonic() - self._looked_at > pause.LOOK_SECONDS:
            self._looked_at = time.monotonic()
            try:
                self._paused = not {pause.SCANS, pause.RESTORE}.isdisjoint(pause.paused(get_engine()))
            except DBAPIError as error:
                log.warning("pauses cannot be read", reason=str(error.orig))
        return self._paused

    def _scan(self, attachment: Attachment) -> Settlement:
        if self._clamd_is_away:
            raise StoppedError  # not its fault: one attachment has found out, the others keep their tries
        if (quarantine := self._scanner.quarantine) and attachment.quarantine == PENDING:
            return quarantine.take(attachment, self._scanner.storage)
        finding = Finding(Kind.CLAMD, self._not_asked) if self._not_asked else scan(attachment, self._scanner)
        if finding.kind is Kind.CLAMD:
            scannable.forget()
            self._clamd_is_away = True
        return settle(attachment, finding, quarantine=quarantine is not None)

    def _settle(self, done: list[tuple[Attachment, Future[Settlement]]]) -> None:
        settlements, stopped = [], []
        for attachment, future in done:
            error = future.exception()
            if error is None:
                settlements.append(future.result())
            elif isinstance(error, StoppedError):
                stopped.append(attachment.id)
            elif isinstance(error, DBAPIError):
                log.warning("attachment left to its lease", attachment_id=attachment.id, reason=str(error.orig))
            else:
                # The row keeps its lease and comes back when that ends, alone, and is given up at last.
                log.error("attachment left to its lease", attachment_id=attachment.id, exc_info=error)
        if settlements:
            settled = self.queue.settle(settlements)
            self.summary.verdicts.update(settlement.verdict for settlement in settled)
            for each in settled:
                if each.finding or each.verdict != each.attachment.verdict:  # not only written once more
                    counters.add(SCANS, each.verdict)
            counters.flush()
        self._give_back(stopped)

    def _give_back(self, ids: list[int]) -> None:
        if ids:
            self.queue.release(ids)
            self.summary.given_back += len(ids)
