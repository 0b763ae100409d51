"""Scan many files at once in this process: threads scan, one thread claims, renews the leases and writes the results."""

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
from settings import get_settings
from tasks import counters
from tasks.attachments import find_unqueued, queue, scannable
from tasks.attachments.attachment import PENDING, Attachment
from tasks.attachments.clamd import Clamd, ClamdUnavailableError, Version
from tasks.attachments.facts import SCANS
from tasks.attachments.quarantine import Quarantine, open_quarantine
from tasks.attachments.queue import HEARTBEAT_SECONDS, Queue
from tasks.attachments.scan import Scanner, StoppedError, scan
from tasks.attachments.settlement import Settlement, settle
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


# CLAMD_URL to the version that has passed the tests of `scannable` in this process, and until when that holds (monotonic
# seconds). A failure forgets it: clamd may come back with another configuration.
_tested: dict[str, tuple[Version, float]] = {}
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
        stop=stop_requested,
    )
    return scanner, open_quarantine(settings)


def scan_one(attachment_id: int) -> Summary:
    """Scan this attachment now, unless another worker is at it. The sweep tries again if this ends without a verdict."""
    run = _Run(connections=1)
    if run.may_scan():
        run.work(lambda _room: run.queue.claim_one(attachment_id), once=True)
        if run.quarantine_is_pending:
            run.work(lambda _room: run.queue.claim_one(attachment_id), once=True)
    return run.summary


def sweep() -> Summary:
    """Scan all attachments that are due: uploads that no one enqueued, next tries, rows whose worker died, and re-scans."""
    settings, engine = get_settings(), get_engine()
    run = _Run(connections=settings.attachments_connections)
    find_unqueued.find_recent(engine)
    find_unqueued.find_older(engine)
    if run.may_scan():
        if settings.clamd_url in _tested:
            version, _ = _tested[settings.clamd_url]
            days, per_minute = settings.attachments_rescan_days, settings.attachments_rescans_per_minute
            find_unqueued.schedule_rescans(engine, version, days=days, per_minute=per_minute)
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
        self.quarantine_is_pending = False

    def may_scan(self) -> bool:
        """Return False, with a log line, if clamd's OK means nothing by its configuration.

        A clamd that is away is no reason: some attachments then have a try without a verdict. But this run does not ask it
        again: it may come back at any moment, with a configuration that nobody has tested.
        """
        url = get_settings().clamd_url
        try:
            version = self._scanner.clamd.version()
            tested, until = _tested.get(url, (None, 0.0))
            if version == tested and time.monotonic() < until:
                return True
            faults = scannable.faults(self._scanner.clamd, self._scanner.largest_bytes)
        except ClamdUnavailableError as error:
            _tested.pop(url, None)
            self._not_asked = str(error)
            return True
        for fault in faults:
            (log.error if fault.fatal else log.warning)(fault.sentence)
        if any(fault.fatal for fault in faults):
            return False
        _tested[url] = (version, time.monotonic() + TESTED_SECONDS)
        return True

    def work(self, claim: Callable[[int], list[Attachment]], *, once: bool = False) -> None:
        """Scan what `claim` returns until it returns nothing, the time is up, the worker is to stop or clamd is away."""
        ends_at = time.monotonic() + RUN_SECONDS
        renewed_at = time.monotonic()
        under_way: dict[Future[Settlement], Attachment] = {}
        claiming = True
        with ThreadPoolExecutor(self._connections, thread_name_prefix="scan") as threads:
            while claiming or under_way:
                if claiming and len(under_way) <= self._connections * AHEAD // 2:
                    self.quarantine_is_pending = False
                    claimed = claim(self._connections * AHEAD - len(under_way))
                    under_way |= {threads.submit(self._scan, attachment): attachment for attachment in claimed}
                    claiming = bool(claimed) and not once
                wait(under_way, timeout=HEARTBEAT_SECONDS, return_when=FIRST_COMPLETED)
                done, _ = wait(under_way, timeout=TOGETHER_SECONDS)
                self._settle([(under_way.pop(future), future) for future in done])
                # What was settled may have more to be done at once, after the queue seemed empty.
                claiming = claiming or (self.quarantine_is_pending and not once)
                over = time.monotonic() > ends_at and not once
                if over or stop_requested() or self._clamd_is_away:
                    self.summary.more |= over and claiming
                    claiming = False
                    self._give_back(under_way)
                if under_way and time.monotonic() - renewed_at > HEARTBEAT_SECONDS:
                    self._renew(under_way)
                    renewed_at = time.monotonic()

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
            self.summary.verdicts.update(settled)
            for verdict, attachments in settled.items():
                counters.add(SCANS, verdict, amount=attachments)
            counters.flush()
            self.quarantine_is_pending |= any(settlement.quarantine == PENDING for settlement in settlements)
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
