"""Which requests an injected fault meets: by token, window, attempts and chance; and how each kind looks on the wire."""

import threading
import time
from itertools import count
from typing import Any

import pytest
from pyreqwest.exceptions import RequestError

from devstack.emulators.answers import TRANSPORT_FAULTS, Ending
from devstack.emulators.client import Emulator, EmulatorError, Fault
from devstack.emulators.faults import FaultBook
from devstack.emulators.fcm import Fcm

from .senders import Send, bearer, client_of, fcm_sender


def book_of(**options: Any) -> FaultBook:
    book = FaultBook("fcm", Fcm.faults, count(1))
    book.add("unregistered", **options)
    return book


def hits(book: FaultBook, *tokens: str) -> list[bool]:
    return [book.match(token) is not None for token in tokens]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", [True, True, True, True]),
        ("dead-1", [True, False, False, False]),
        ("dead-*", [True, True, False, False]),
    ],
)
def test_a_rule_meets_a_token_or_all_that_begin_alike(pattern: str, expected: list[bool]) -> None:
    assert hits(book_of(token=pattern), "dead-1", "dead-2", "live-1", "live-2") == expected


def test_times_counts_the_attempts_of_each_token_on_its_own() -> None:
    assert hits(book_of(times=2), "a", "a", "b", "a", "b", "b") == [True, True, True, False, True, False]


def test_probability_is_reproduced_by_its_seed_in_any_order_of_arrival() -> None:
    tokens = [f"device-{number}" for number in range(400)]
    forwards = dict(zip(tokens, hits(book_of(probability=0.25, seed=7), *tokens), strict=True))
    backwards = dict(zip(tokens[::-1], hits(book_of(probability=0.25, seed=7), *tokens[::-1]), strict=True))
    other_seed = dict(zip(tokens, hits(book_of(probability=0.25, seed=8), *tokens), strict=True))

    assert forwards == backwards != other_seed
    assert 60 <= sum(forwards.values()) <= 140


def test_the_newest_rule_wins_and_the_older_one_is_there_again_when_it_is_over() -> None:
    book = book_of()
    rule_id = book.add("quota", token="a*", times=1)

    outcomes = [rule.answer.outcome for rule in (book.match("ab"), book.match("ab")) if rule]
    assert outcomes == ["quota", "unregistered"]
    book.remove(rule_id)
    assert hits(book, "ab") == [True]


def test_an_unknown_kind_is_refused_with_the_list_of_known_ones(emulator: Emulator) -> None:
    with pytest.raises(EmulatorError, match=r"fcm has no fault 'sleepy'; it has: .*unregistered"):
        emulator.inject(Fault(kind="sleepy"))


ANSWERED = {kind: fault for kind, fault in Fcm.faults.items() if kind != "slow" and fault.ending is Ending.WHOLE}


@pytest.mark.parametrize("kind", ANSWERED)
def test_each_kind_is_answered_with_its_status_and_body_and_not_logged(send: Send, emulator: Emulator, kind: str) -> None:
    emulator.inject(Fault(kind=kind, token="bad"))

    reply = send({"token": "bad"})

    assert (reply.status, reply.body) == (ANSWERED[kind].status, ANSWERED[kind].body)
    assert send({"token": "good"}).status == 200
    assert [accepted.token for accepted in emulator.accepted()] == ["good"]


def test_retry_after_is_sent_where_the_rule_has_one(send: Send, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="quota", token="later", retry_after=30), Fault(kind="unavailable", token="at any time"))

    assert send({"token": "later"}).headers["retry-after"] == "30"
    assert "retry-after" not in send({"token": "at any time"}).headers


def test_a_slow_device_is_served_late_and_global_latency_adds_to_it(send: Send, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="slow", token="slow", latency=0.2))
    emulator.set(latency=0.1)

    started = time.monotonic()
    assert send({"token": "slow"}).status == 200
    assert time.monotonic() - started >= 0.3
    assert [accepted.token for accepted in emulator.accepted()] == ["slow"]


@pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])
@pytest.mark.parametrize("kind", [kind for kind, fault in TRANSPORT_FAULTS.items() if fault.ending is not Ending.WHOLE])
def test_a_cut_connection_is_a_transport_error_whether_or_not_the_message_was_accepted(
    emulator: Emulator, kind: str, http2: bool
) -> None:
    emulator.inject(Fault(kind=kind, token="cut"))
    with client_of(emulator, http2=http2) as client:
        send = fcm_sender(emulator, client, f"Bearer {bearer(emulator)}")

        with pytest.raises(RequestError):
            send({"token": "cut", "data": {"notification_id": "1"}})
        assert send({"token": "fine"}).status == 200

    tokens = [accepted.token for accepted in emulator.accepted()]
    assert tokens == (["cut", "fine"] if TRANSPORT_FAULTS[kind].accepts else ["fine"])
    assert emulator.stats().count(kind) == 1


def test_a_connection_that_was_reset_takes_nothing_more(emulator: Emulator) -> None:
    """What was under way on it is not accepted either, though its fault is over by then."""
    emulator.inject(Fault(kind="slow", token="late", latency=1.0), Fault(kind="reset", token="cut"))
    with client_of(emulator) as client:
        send = fcm_sender(emulator, client, f"Bearer {bearer(emulator)}")
        send({"token": "first"})
        results: list[object] = []

        def late() -> None:
            try:
                results.append(send({"token": "late"}).status)
            except RequestError:
                results.append("no answer")

        thread = threading.Thread(target=late)
        thread.start()
        while not emulator.stats().in_flight:
            time.sleep(0.01)
        with pytest.raises(RequestError):
            send({"token": "cut"})
        emulator.clear()
        thread.join()
        while emulator.stats().in_flight:
            time.sleep(0.01)

    assert results == ["no answer"]
    assert [accepted.token for accepted in emulator.accepted()] == ["first"]
    assert (emulator.stats().count("reset"), emulator.stats().count("gone")) == (1, 1)


def test_hits_are_counted_and_a_rule_can_be_cleared_by_its_id(send: Send, emulator: Emulator) -> None:
    first, second = emulator.inject(Fault(kind="internal", token="a"), Fault(kind="internal", token="b"))
    send({"token": "a"})

    assert emulator.hits() == {first: 1, second: 0}
    emulator.clear(first)
    assert (send({"token": "a"}).status, send({"token": "b"}).status) == (200, 500)
    emulator.clear()
    assert send({"token": "b"}).status == 200
