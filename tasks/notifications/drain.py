"""The drain: a pipeline in which claiming, sending and settling overlap, with a bounded number of rows under way."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from tasks.notifications.delivery import Delivery, Job, begin
from tasks.notifications.gate import Gate
from tasks.notifications.journal import Attempt
from tasks.notifications.notification import Notification
from tasks.notifications.providers import Provider
from tasks.notifications.queue import START_SECONDS, Queue
from tasks.notifications.senders import Senders

log = structlog.get_logger(__name__)

Claim = Callable[[int, tuple[str, ...]], tuple[Sequence[Job | int], bool]]

# A run that finds work for longer than this ends and nudges the next one, so that no task nears its time limit.
RUN_SECONDS = 30
# What was sent before is waited for this long, then others' rows are looked for beside it.
PATIENCE_SECONDS = 1.0
# While more rows are under way, results gather for so long before they are written; no longer than until the last is in.
GATHER_SECONDS = 0.02


@dataclass(slots=True)
class Summary:
    """The result of a run: rows by the status they were settled with, and whether it left work behind that can be done now."""

    rows: Counter[str] = field(default_factory=Counter)
    given_back: int = 0
    more: bool = False


@dataclass(eq=False)
class Drain:
    """One run. `in_flight` bounds the requests under way to each provider, `batch_rows` a claim; three batches are its most."""

    queue: Queue
    providers: Mapping[str, Provider]
    gate: Gate
    _: KW_ONLY
    batch_rows: int
    in_flight: int
    stop: Callable[[], bool] = lambda: False
    run_seconds: float = RUN_SECONDS

    def __post_init__(self) -> None:
        self._under_way = 0
        self._progress = asyncio.Event()
        self._results: list[Attempt | int | None] = []
        self._arrived = asyncio.Event()
        self._last_is_in = asyncio.Event()
        self._summary = Summary()

    async def run(self, claim: Claim) -> Summary:
        """Work until there is nothing to claim, the time is up, or the worker is asked to stop; return the summary.

        `claim` claims up to so many rows, those that are due from these lanes among them, and says whether there may be more. A
        row of which it returns no more than the id is given back.
        """
        failure: Exception | None = None
        async with asyncio.TaskGroup() as stages:
            stages.create_task(self._settle())
            async with asyncio.TaskGroup() as sending:
                senders = Senders(self.providers, self.gate, sending, self.in_flight, self._conclude)
                watching = stages.create_task(self.gate.watch())
                try:
                    await self._claim(claim, senders)
                except Exception as error:  # noqa: BLE001 - raised below, once what is under way has its results
                    failure = error
            watching.cancel()
            self._enter(None)
        if failure:
            raise failure
        await asyncio.to_thread(self.gate.leave)
        return self._summary

    async def _claim(self, claim: Claim, senders: Senders) -> None:
        ends_at, beside = time.monotonic() + self.run_seconds, False
        while not self.stop():
            if time.monotonic() > ends_at:
                self._summary.more = True
                return
            await self._room(2 * self.batch_rows)
            lanes, most = await self.gate.ask(beside=self._under_way > 0)
            if not most:
                return  # every breaker is open: the beat sweep asks again, nobody waits here
            in_time = partial(self._in_time, time.monotonic() + START_SECONDS)
            try:
                jobs, more = await asyncio.to_thread(claim, min(most, self.batch_rows), lanes)
            except SQLAlchemyError as error:
                if not beside:
                    raise
                log.warning("no look for others' rows", error=type(error).__name__)
                return
            self._under_way += len(jobs)
            for job in jobs:
                if isinstance(job, Job):
                    self._begin(job, senders, in_time)
                else:
                    self._enter(job)
            if not jobs or not more:
                if await self._room(0, PATIENCE_SECONDS):
                    return
                beside = True
                continue
            if most == 1 or any(isinstance(job, Job) and job.notification.claims > 1 for job in jobs):
                await self._room(0)  # a probe's result decides what follows; a suspect row works alone

    async def _room(self, rows: int, seconds: float | None = None) -> bool:
        """Wait until no more than `rows` rows are under way, or `seconds` have passed; return whether they are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._under_way > rows:
                    self._progress.clear()
                    await self._progress.wait()
        return self._under_way <= rows

    def _in_time(self, start_by: float) -> bool:
        return time.monotonic() < start_by and not self.stop()

    def _begin(self, job: Job, senders: Senders, in_time: Callable[[], bool]) -> None:
        try:
            begun = begin(job, self.gate.now())
        except Exception:  # noqa: BLE001 - one row's fault, logged there
            self._leave(job.notification)
            return
        if isinstance(begun, Delivery):
            senders.put(begun, in_time)
        else:
            self._enter(begun)

    def _conclude(self, delivery: Delivery) -> None:
        try:
            attempt = delivery.conclude(self.gate.now())
        except Exception:  # noqa: BLE001 - one row's fault, logged there
            self._leave(delivery.notification)
        else:
            self._enter(attempt or delivery.notification.id)

    def _enter(self, result: Attempt | int | None) -> None:
        self._results.append(result)
        self._arrived.set()
        if len(self._results) >= self._under_way:
            self._last_is_in.set()

    def _leave(self, notification: Notification) -> None:
        """Leave a row to its lease: it comes back when that ends, in ever smaller batches, and is given up at last."""
        log.exception("row left to its lease", notification_id=notification.id)
        self._under_way -= 1
        self._progress.set()

    async def _settle(self) -> None:
        """Write results as they come: those that gather during one write go into the next."""
        ended = False
        while not ended:
            await self._arrived.wait()
            if self._under_way > len(self._results):
                self._last_is_in.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._last_is_in.wait(), GATHER_SECONDS)
            results, self._results = self._results, []
            self._arrived.clear()
            ended = None in results
            attempts = [result for result in results if isinstance(result, Attempt)]
            given_back = [result for result in results if isinstance(result, int)]
            if attempts:
                self._summary.rows.update(await asyncio.to_thread(self.queue.settle, attempts))
            if given_back:
                await asyncio.to_thread(self.queue.release, given_back)
                self._summary.given_back += len(given_back)
                self._summary.more = True
            self._under_way -= len(attempts) + len(given_back)
            self._progress.set()
