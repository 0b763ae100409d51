"""Scan many files at once in this process: threads scan, one thread claims, renews the leases and writes the results."""

import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import cache, partial

import structlog
from sqlalchemy.exc import DBAPIError

from db.engine import get_engine
from settings import ConfigurationError, get_settings
from tasks import counters, pause
from tasks.attachments import find_unqueued, formats, queue, scannable
from tasks.attachments.attachment import PENDING, Attachment
from tasks.attachments.clamd import Clamd, ClamdUnavailableError, Version
from tasks.attachments.facts import SCANS
from tasks.attachments.quarantine import Quarantine, open_quarantine
from tasks.attachments.queue import HEARTBEAT_SECONDS, Queue
from tasks.attachments.scan import Scanner, StoppedError, scan
from tasks.attachments.scannable import Fitness, UnfitError
from tasks.attachments.settlement import AT_ONCE, Settlement, settle
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
    """What a run did: attachments by the verdict they were settled with, and whether there is more to do now."""

    verdicts: Counter[str] = field(default_factory=Counter)
    given_back: int = 0
    more: bool = False


# The versions that have passed the tests of `scannable` in this process; several may answer at one address. A failure forgets
# them: clamd may come back with another configuration.
_tested: dict[Version, Fitness] = {}
_testing = threading.Lock()
TESTED_SECONDS = 3600


@cache
def _process() -> tuple[Scanner, Quarantine | None]:
    """Return what lives as long as the worker process: made at its first scan, after the fork."""
    settings, engine = get_settings(), get_engine()
    scanner = Scanner(
        storage=open_storage(settings),
        clamd=Clamd(settings.clamd_url, scan_seconds=settings.clamd_scan_seconds),
        largest_bytes=settings.attachments_largest_bytes,
        transfer_seconds=settings.attachments_transfer_seconds,
        known=partial(queue.known, engine),
        released=partial(queue.released, engine),
        moved=partial(queue.moved, engine),
        fitness=_fitness,
        allowed=known_types("ATTACHMENTS_ALLOWED_TYPES", settings.attachments_allowed_types),
        blocked=known_types("ATTACHMENTS_BLOCKED_TYPES", settings.attachments_blocked_types),
        stop=stop_requested,
    )
    return scanner, open_quarantine(settings)


def known_types(variable: str, names: tuple[str, ...]) -> frozenset[str]:
    """Return the types that a setting names. Raise ConfigurationError if there is none of a name."""
    for name in names:
        if name not in formats.NAMES and not name.startswith("zip "):
            raise ConfigurationError(f"{variable} names the type {name!r}; `chat-workers attachments check` lists all")
    return frozenset(names)


def _fitness(version: Version) -> Fitness:
    """Return what this version of clamd opens, tested within the hour. Raise UnfitError, ClamdUnavailableError.

    UnfitError, with a log line, says that its OK means nothing by its configuration.
    """
    with _testing:
        now, earlier = time.monotonic(), _tested.get(version)
        if earlier and now < earlier.until:
            return earlier
        scanner, _ = _process()
        faults = scannable.faults(scanner.clamd, scanner.largest_bytes)
        for fault in faults:
            (log.error if fault.fatal else log.warning)(fault.sentence)
        if fatal := [fault.sentence for fault in faults if fault.fatal]:
            raise UnfitError(fatal[0])
        opens = frozenset(name for name, found in scannable.opened(scanner.clamd).items() if found)
        same = earlier is not None and earlier.opens == opens
        _tested[version] = Fitness(opens, earlier.since if earlier and same else now, now + TESTED_SECONDS)
        return _tested[version]


def scan_one(attachment_id: int) -> Summary:
    """Scan this attachment now, unless another worker is at it. The sweep tries again if this ends without a verdict."""
    run = _Run(connections=1)
    if run.may_scan():
        run.work(lambda _room, _idle: run.queue.claim_one(attachment_id), once=True)
    return run.summary


def sweep() -> Summary:
    """Scan all attachments that are due: uploads that no one enqueued, next tries, rows whose worker died, and re-scans."""
    settings, engine = get_settings(), get_engine()
    run = _Run(connections=settings.attachments_connections)
    if pause.RESTORE in pause.paused(engine):  # records that are gone for a moment are not lost
        return run.summary
    find_unqueued.find_recent(engine)
    find_unqueued.find_older(engine)
    if run.may_scan():
        if run.version:
            days, per_minute = settings.attachments_rescan_days, settings.attachments_rescans_per_minute
            find_unqueued.schedule_rescans(engine, run.version, days=days, per_minute=per_minute)
        run.work(run.queue.claim_due)
    return run.summary


class _Run:
    """One task's work. Threads scan; this thread claims, renews and settles."""

    def __init__(self, *, connections: int) -> None:
        self.queue = Queue(get_engine(), lease=uuid.uuid4().hex)
        self.summary = Summary()
        self._scanner, self._quarantine = _process()
        self._connections = connections
        self._clamd_is_away = False
        self._not_asked = ""
        self._paused, self._looked_at = False, -math.inf
        self._more_at_once = False
        self.version: Version | None = None
        """The version of clamd that was asked, and is fit."""

    def may_scan(self) -> bool:
        """Return False if the scans are paused or, with a log line, clamd's OK means nothing by its configuration.

        A clamd that is away is no reason: some attachments then have a try without a verdict. But this run does not ask it
        again: it may come back at any moment, with a configuration that nobody has tested.
        """
        if self._is_paused():
            return False
        try:
            version = self._scanner.clamd.version()
            _fitness(version)
            self.version = version
        except UnfitError:
            return False
        except ClamdUnavailableError as error:
            _tested.clear()
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
                    self._more_at_once = False
                    idle = not under_way
                    claimed = claim(self._connections * AHEAD - len(under_way), idle)
                    alone = any(attachment.claims > 1 for attachment in claimed)
                    under_way |= {threads.submit(self._scan, attachment): attachment for attachment in claimed}
                    claiming = (bool(claimed) or not idle) and not once
                wait(under_way, timeout=pause.LOOK_SECONDS, return_when=FIRST_COMPLETED)
                done, _ = wait(under_way, timeout=TOGETHER_SECONDS)
                self._settle([(under_way.pop(future), future) for future in done])
                # What was settled may have more to be done at once, after the queue seemed empty.
                claiming = claiming or self._more_at_once
                over = time.monotonic() > ends_at
                if over or stop_requested() or self._clamd_is_away or self._is_paused():
                    self.summary.more |= over and claiming
                    claiming = False
                    self._give_back(under_way)
                if under_way and time.monotonic() - renewed_at > HEARTBEAT_SECONDS:
                    self._renew(under_way)
                    renewed_at = time.monotonic()

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
        if self._quarantine and attachment.quarantine == PENDING:
            return self._quarantine.take(attachment, self._scanner.storage)
        finding = Finding(Kind.CLAMD, self._not_asked) if self._not_asked else scan(attachment, self._scanner)
        if finding.kind is Kind.CLAMD:
            _tested.clear()
            self._clamd_is_away = True
        return settle(attachment, finding, quarantine=self._quarantine is not None)

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
            for verdict, attachments in Counter(each.verdict for each in settled if each.is_new).items():
                counters.add(SCANS, verdict, amount=attachments)
            counters.flush()
            self._more_at_once |= any(settlement.wait == AT_ONCE for settlement in settlements)
        if stopped:
            self._release(stopped)

    def _give_back(self, under_way: dict[Future[Settlement], Attachment]) -> None:
        """Give back the attachments that no thread has begun."""
        ids = [under_way.pop(future).id for future in list(under_way) if future.cancel()]
        if ids:
            self._release(ids)

    def _release(self, ids: list[int]) -> None:
        self.queue.release(ids)
        self.summary.given_back += len(ids)

    def _renew(self, under_way: dict[Future[Settlement], Attachment]) -> None:
        try:
            self.queue.renew([attachment.id for attachment in under_way.values()])
        except DBAPIError as error:
            # The results are fenced: should a lease end, another worker's verdict stands.
            log.warning("leases not renewed", reason=type(error.orig).__name__)
