"""One run: what is claimed, how much is under way, and what becomes of it when something fails or time is up."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tasks.notifications.breaker import BreakerState, Standing
from tasks.notifications.delivery import Job
from tasks.notifications.devices import Device
from tasks.notifications.drain import Claim, Drain, Summary
from tasks.notifications.gate import Gate
from tasks.notifications.journal import Attempt
from tasks.notifications.outcome import Kind, Outcome

from .fakes import MemoryProvider, MemoryQueue, a_gate, a_job
from .made import NOW

CLOSED, HALF_OPEN, OPEN = BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN


def batches(*claimed: Sequence[Job | int] | Exception) -> Claim:
    """Claims that return these, one after the other, and then nothing."""
    waiting = list(claimed)

    def claim(_rows: int, _lanes: tuple[str, ...]) -> tuple[Sequence[Job | int], bool]:
        batch = waiting.pop(0) if waiting else []
        if isinstance(batch, Exception):
            raise batch
        return batch, True

    return claim


def jobs(*numbers: int) -> list[Job]:
    return [a_job(number) for number in numbers]


def run(
    queue: MemoryQueue,
    provider: MemoryProvider,
    claim: Claim,
    *,
    gate: Gate | None = None,
    stop: Callable[[], bool] = lambda: False,
    run_seconds: float = 10,
    batch_rows: int = 10,
) -> Summary:
    gate = gate or a_gate(fcm=CLOSED)
    drain = Drain(queue, {"fcm": provider}, gate, batch_rows=batch_rows, in_flight=100, stop=stop, run_seconds=run_seconds)
    return asyncio.run(drain.run(claim))


def test_a_run_goes_on_until_nothing_is_left_to_claim_and_settles_all() -> None:
    queue = MemoryQueue()
    summary = run(queue, MemoryProvider(), batches(jobs(1, 2), jobs(3)))
    assert queue.settled.keys() == {1, 2, 3}
    assert (summary.rows, summary.more) == ({"SENT": 3}, False)


def test_a_recipient_with_many_devices_holds_no_other_up() -> None:
    provider = MemoryProvider(seconds=0.001)
    crowd = a_job(1, *(f"phone-{number}" for number in range(1000)), recipient_id=1)
    run(MemoryQueue(), provider, batches([crowd, a_job(2, "victim", recipient_id=2)]))
    assert len(provider.sent) == 1001
    assert provider.sent.index("victim") <= 101  # in_flight, and whoever's turn it is


def test_behind_a_claim_that_may_have_no_more_neither_breakers_nor_rows_are_asked_again() -> None:
    asked: list[object] = []
    gate = Gate(["fcm"], lambda tallies: asked.append(tallies) or {"fcm": Standing(CLOSED, NOW)})  # type: ignore[func-returns-value]
    run(MemoryQueue(), MemoryProvider(), lambda _rows, _lanes: (jobs(1), False), gate=gate)
    assert len(asked) == 2  # before the claim, and when it leaves


def test_a_claimed_row_that_was_not_read_is_given_back_for_the_next_run() -> None:
    queue = MemoryQueue()
    summary = run(queue, MemoryProvider(), batches([a_job(1), 2, a_job(3)]))
    assert ({*queue.settled}, queue.given_back) == ({1, 3}, [2])
    assert (summary.rows, summary.given_back, summary.more) == ({"SENT": 2}, 1, True)


def test_a_run_claims_from_the_lanes_of_the_providers_that_may_be_used() -> None:
    asked: list[tuple[int, tuple[str, ...]]] = []

    def claim(rows: int, lanes: tuple[str, ...]) -> tuple[list[Job], bool]:
        asked.append((rows, lanes))
        return [], True

    run(MemoryQueue(), MemoryProvider(), claim, gate=a_gate(fcm=CLOSED, apns=OPEN))
    assert asked == [(10, ("", "fcm"))]


def test_while_every_provider_is_held_nothing_is_claimed() -> None:
    summary = run(MemoryQueue(), MemoryProvider(), batches(AssertionError("claimed")), gate=a_gate(fcm=OPEN))
    assert summary == Summary()


def test_a_probe_is_one_row() -> None:
    asked: list[int] = []

    def claim(rows: int, _lanes: tuple[str, ...]) -> tuple[list[Job], bool]:
        asked.append(rows)
        return [], True

    run(MemoryQueue(), MemoryProvider(), claim, gate=a_gate(fcm=HALF_OPEN))
    assert asked == [1]


def test_what_a_probe_brought_is_settled_before_the_next_question() -> None:
    queue = MemoryQueue()
    settled_at_claim: list[int] = []
    rows = batches(jobs(1), jobs(2))

    def claim(most: int, lanes: tuple[str, ...]) -> tuple[Sequence[Job | int], bool]:
        settled_at_claim.append(len(queue.settled))
        return rows(most, lanes)

    run(queue, MemoryProvider(seconds=0.02), claim, gate=a_gate(fcm=HALF_OPEN))
    assert settled_at_claim == [0, 1, 2]


def test_a_row_that_a_worker_died_with_works_alone() -> None:
    provider = MemoryProvider(seconds=0.02)
    run(MemoryQueue(), provider, batches([a_job(1, claims=2)], jobs(2), jobs(3)))
    assert provider.sent[0] == "phone-1"
    assert provider.most_under_way == 2


def test_no_more_than_three_batches_are_under_way() -> None:
    provider = MemoryProvider(seconds=0.02)
    rows = [jobs(*range(n, n + 10)) for n in range(0, 100, 10)]
    run(MemoryQueue(), provider, batches(*rows))
    assert len(provider.sent) == 100
    assert provider.most_under_way <= 30


def test_a_slow_device_holds_no_other_row_up() -> None:
    settled: list[int] = []
    others_are = threading.Event()

    def note(attempts: list[Attempt]) -> None:
        settled.extend(attempt.settlement.notification_id for attempt in attempts)
        if {2, 3, 4} <= set(settled):
            others_are.set()

    class Slow(MemoryProvider):
        async def send(self, prepared: Any, device: Device, *, dry_run: bool = False) -> Outcome:
            if device.token == "phone-1":
                await asyncio.to_thread(others_are.wait, 20)
            return await super().send(prepared, device, dry_run=dry_run)

    run(MemoryQueue(note), Slow(), batches(jobs(1, 2, 3), jobs(4)))
    assert settled[-1] == 1


def test_results_that_gather_are_written_when_the_last_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.notifications.drain.GATHER_SECONDS", 3600)
    queue = MemoryQueue()
    drain = Drain(queue, {"fcm": MemoryProvider(slow={"phone-3": 0.05})}, a_gate(fcm=CLOSED), batch_rows=10, in_flight=2)
    asyncio.run(asyncio.wait_for(drain.run(batches(jobs(1, 2), jobs(3, 4))), 60))
    assert queue.settled.keys() == {1, 2, 3, 4}


def test_a_run_ends_when_its_time_is_up_and_says_that_there_is_more() -> None:
    endless = (jobs(number) for number in range(10**6))
    began = time.monotonic()
    summary = run(MemoryQueue(), MemoryProvider(), lambda _rows, _lanes: (next(endless), True), run_seconds=0.1)
    assert summary.more
    assert time.monotonic() - began < 2


def test_a_worker_that_is_asked_to_stop_gives_back_what_it_has_not_begun() -> None:
    stopped = threading.Event()
    provider = MemoryProvider(seconds=0.02)
    queue = MemoryQueue(lambda _attempts: stopped.set())
    drain = Drain(queue, {"fcm": provider}, a_gate(fcm=CLOSED), batch_rows=20, in_flight=1, stop=stopped.is_set)
    summary = asyncio.run(drain.run(batches(jobs(*range(20)))))
    assert queue.settled
    assert sorted([*queue.settled, *queue.given_back]) == list(range(20))
    assert (summary.given_back, summary.more) == (len(queue.given_back), True)
    assert len(provider.sent) == len(queue.settled)


def test_a_row_that_fails_in_our_own_code_is_left_to_its_lease_and_costs_the_others_nothing() -> None:
    queue = MemoryQueue()
    run(queue, MemoryProvider(), batches([a_job(1, ledger="no ledger"), *jobs(2, 3)]))
    assert queue.settled.keys() == {2, 3}


def test_what_is_under_way_is_settled_though_the_next_claim_fails() -> None:
    """A database that restarts between two claims must not cost the pushes that are out already their results."""
    queue, provider = MemoryQueue(), MemoryProvider(seconds=0.05)
    with pytest.raises((ExceptionGroup, ConnectionError)):
        run(queue, provider, batches(jobs(1, 2, 3), ConnectionError("server has gone away")))
    assert provider.sent == ["phone-1", "phone-2", "phone-3"]
    assert queue.settled.keys() == {1, 2, 3}


def test_a_run_counts_its_rows_by_what_became_of_them() -> None:
    provider = MemoryProvider({"phone-2": Outcome(Kind.DEAD, "gone"), "phone-3": Outcome(Kind.UNAVAILABLE, "503")})
    summary = run(MemoryQueue(), provider, batches(jobs(1, 2, 3, 4)))
    assert summary.rows == {"SENT": 2, "BOUNCED": 1, "FAILED": 1}


def test_a_pause_also_stops_what_was_claimed_before_it() -> None:
    """One message at a time, for far longer than a drain needs to look at the pauses."""
    paused: set[str] = set()

    def claim(_rows: int, _lanes: tuple[str, ...]) -> tuple[list[Job], bool]:
        paused.add("fcm")
        return [a_job(7, *(f"token-{n}" for n in range(1000)))], False

    queue, provider = MemoryQueue(), MemoryProvider(seconds=0.02)
    gate = Gate(["fcm"], lambda _tallies: {"fcm": Standing(CLOSED, NOW)}, lambda: paused)
    asyncio.run(Drain(queue, {"fcm": provider}, gate, batch_rows=10, in_flight=1).run(claim))
    held = [entry for entry in queue.settled[7].ledger.entries.values() if entry.kind is Kind.HELD]
    assert len(provider.sent) + len(held) == 1000
    assert held
    assert {entry.attempts for entry in held} == {0}
