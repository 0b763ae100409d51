"""Events are delivered, signed and numbered, past those that a receiver chokes on; one that is away loses none."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.transactions import transact
from settings import ConfigurationError, get_settings
from tasks import outbox
from tasks.events import deliver as events
from tasks.events import queue
from tasks.events.deliver import MOST_MISSES, read_secrets
from tasks.events.task import deliver
from tests.events.conftest import rows
from tests.events.receiver import Receiver
from tests.trickle import trickling


def happen(engine: Engine, *names: str) -> None:
    """Have events of breakers happen, which differ in their provider."""
    transact(engine, lambda c: outbox.emit(c, "breaker.opened", *({"provider": name, "reason": "ü \u2028"} for name in names)))


def make_due(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE worker_events SET due_at = NOW(3) WHERE due_at IS NOT NULL"))


def providers(receiver: Receiver) -> list[str]:
    return [event["data"]["provider"] for event in receiver.taken if "provider" in event["data"]]


def test_events_are_signed_by_each_secret_and_their_numbers_grow(chat: Engine, called: Receiver) -> None:
    happen(chat, *"abc")
    assert deliver() == "delivered: taken 3"
    happen(chat, "d")
    deliver()
    assert called.unsigned == []
    assert sorted(providers(called)) == [*"abcd"]
    by_number = sorted(called.taken, key=lambda event: int(event["number"]))
    assert [event["data"]["provider"] for event in by_number] == [*"abcd"]
    first = by_number[0]
    assert first.keys() == {"type", "timestamp", "number", "data"}
    assert first["timestamp"].endswith("Z")
    assert first["number"] < 2**53
    assert called.asked == {f"evt_{event['number']}": 1 for event in by_number}
    assert deliver() == "nothing to do"


def test_a_receiver_that_is_down_loses_nothing_and_is_asked_ever_more_slowly(chat: Engine, called: Receiver) -> None:
    happen(chat, *"abcdefghijkl")
    called.status = 500
    assert deliver() == f"delivered: failed {MOST_MISSES}"
    tried = [row for row in rows(chat) if row["attempts"]]
    assert [row["reason"] for row in tried] == ["EVENTS_URL answered with status 500"] * MOST_MISSES
    assert all(row["due_at"] > row["happened_at"] for row in tried)
    for _ in range(3):
        make_due(chat)
        deliver()
    called.status = 200
    make_due(chat)
    deliver()
    assert sorted(providers(called)) == [*"abcdefghijkl"]
    assert all(row["due_at"] is None for row in rows(chat))


@pytest.mark.parametrize(("asked", "least"), [("300", 300), ("Fri, 31 Dec 2100 23:59:59 GMT", 3600), ("soon", 4), ("-5", 4)])
def test_a_receiver_that_asks_to_be_left_alone_is_for_an_hour_at_most(
    chat: Engine, called: Receiver, asked: str, least: int
) -> None:
    happen(chat, *"abcd")
    called.status, called.retry_after = 429, asked
    tries = 1 if least > 4 else MOST_MISSES
    assert deliver() == f"delivered: failed {tries}"
    assert len(called.requests) == tries
    (wait, *_) = (row["due_at"] - row["happened_at"] for row in rows(chat) if row["attempts"])
    assert timedelta(seconds=least) <= wait <= timedelta(seconds=least * 1.2 + 60)


def test_an_event_that_the_receiver_chokes_on_holds_no_other_up(chat: Engine, called: Receiver) -> None:
    happen(chat, "a")
    transact(chat, lambda c: outbox.emit(c, "device.dead", {"device_key": "fcm:1"}))
    happen(chat, "b")
    called.answers["device.dead"] = 400
    deliver()
    assert sorted(providers(called)) == ["a", "b"]
    assert [row["type"] for row in rows(chat) if row["due_at"]] == ["device.dead"]


def test_hundreds_of_events_that_the_receiver_chokes_on_hold_no_other_up(chat: Engine, called: Receiver) -> None:
    called.answers["device.dead"] = 400
    transact(chat, lambda c: outbox.emit(c, "device.dead", *({"device_key": f"fcm:{n}"} for n in range(30))))
    for _ in range(10):
        deliver()
    make_due(chat)
    happen(chat, *"abc")
    deliver()
    assert sorted(providers(called)) == ["a", "b", "c"]


def test_a_flood_of_dead_devices_holds_no_other_event_up(chat: Engine, called: Receiver) -> None:
    def flood() -> None:
        transact(chat, lambda c: outbox.emit(c, "device.dead", *({"device_key": f"fcm:{n}"} for n in range(6000))))

    flood()
    queue.number(chat)
    flood()
    happen(chat, *"abc")
    stopped = threading.Event()
    called.before = lambda event: stopped.set() if event["type"] == "device.dead" else None
    events.deliver(chat, events.Receiver(get_settings()).send, stopped.is_set)
    assert called.types()[:3] == ["breaker.opened"] * 3
    assert sorted(providers(called)[:3]) == [*"abc"]


def test_an_event_that_commits_late_has_the_greater_number(chat: Engine) -> None:
    """AUTO_INCREMENT gives its id first: a reader who goes on behind the greatest id would miss it."""
    with chat.connect() as late:
        outbox.emit(late, "breaker.opened", {"provider": "late"})
        happen(chat, "early")
        assert queue.number(chat) == 1
        (early,) = queue.after(chat, 0, 10)
        late.commit()
    assert queue.number(chat) == 1
    (found,) = queue.after(chat, early.number, 10)
    assert found.told()["data"] == {"provider": "late"}
    assert found.id < early.id


def test_numbers_go_on_where_the_table_was_emptied(chat: Engine) -> None:
    """By retention, TRUNCATE or a restore: a reader's place behind the last number stays one."""
    happen(chat, "a")
    queue.number(chat)
    (last,) = queue.after(chat, 0, 10)
    with chat.begin() as connection:
        connection.execute(text("TRUNCATE TABLE worker_events"))
    happen(chat, "b")
    queue.number(chat)
    assert [event.told()["data"]["provider"] for event in queue.after(chat, last.number, 10)] == ["b"]


def test_two_runs_at_once_call_nobody_twice(chat: Engine, called: Receiver) -> None:
    happen(chat, *"abcd")
    reached, go_on = threading.Event(), threading.Event()

    def before(_: object) -> None:
        reached.set()
        assert go_on.wait(30)

    called.before = before
    first = threading.Thread(target=deliver)
    first.start()
    assert reached.wait(30)
    assert deliver() == "left to the run that is at work"
    go_on.set()
    first.join()
    assert set(called.asked.values()) == {1}


@pytest.mark.timeout(60)
def test_a_receiver_that_answers_for_ever_is_given_up(chat: Engine, called: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.events.deliver.CALL_SECONDS", 0.5)
    happen(chat, "a")
    with trickling("a header") as server:
        monkeypatch.setenv("EVENTS_URL", f"http://127.0.0.1:{server.address[1]}/events")
        get_settings.cache_clear()
        assert deliver() == "delivered: failed 1"
    (row,) = rows(chat)
    assert row["reason"].startswith("EVENTS_URL gave no whole answer: it took longer")
    get_settings.cache_clear()


def test_a_redirect_is_not_followed_and_the_metadata_service_never_called(
    chat: Engine, called: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    called.status = 307
    happen(chat, "a")
    deliver()
    assert rows(chat)[0]["reason"] == "EVENTS_URL answered with status 307"
    monkeypatch.setenv("EVENTS_URL", "http://169.254.169.254/latest")
    get_settings.cache_clear()
    make_due(chat)
    deliver()
    assert rows(chat)[0]["reason"].endswith("169.254.169.254, which is never connected to")
    get_settings.cache_clear()


@pytest.mark.parametrize("content", ["", "secret", "whsec_c2hvcnQ=", "whsec_ä", f"whsec_{'a' * 44}!", f"{'a' * 44}"])
def test_a_secret_that_is_none_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ConfigurationError, match="must hold whsec_") as refused:
        read_secrets(tmp_path / "secret")
    assert content == "" or content not in str(refused.value)
