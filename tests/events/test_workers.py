"""An event of each kind, from real workers to a real receiver, which is away, or whose deliverer is killed, in the middle."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy import Engine

from devstack.emulators.client import Emulator, Fault
from devstack.stack import Stack
from settings import get_settings
from tasks import outbox
from tasks.attachments.scannable import EICAR
from tests.attachments.samples import PNG
from tests.events.conftest import rows
from tests.events.receiver import Receiver
from tests.notifications.conftest import Chat, api
from tests.processes import Process, Start, wait_until

__all__ = ["api"]

QUEUES = {"notifications": "notifications", "attachments": "attachments", "retention": "housekeeping", "backups": "backups"}
Send = Callable[..., None]


@pytest.fixture
def send(environment: dict[str, str]) -> Send:
    """Send a task as beat does."""
    producer = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False)

    def by_name(job: str, task: str, *arguments: object) -> None:
        name = f"tasks.{job}.{task}"
        producer.send_task(name, arguments, queue=QUEUES.get(job, job), headers={"started_by": "x"}, ignore_result=True)

    return by_name


@pytest.fixture
def deliverer(called: Receiver, redis: Redis, start: Start) -> Process:
    """The Procfile's process `events`."""
    return start("celery -A workers.app worker -Q events -c 1 --without-gossip --without-mingle", "events").wait_ready()


@pytest.fixture
def workers(
    called: Receiver, redis: Redis, start: Start, scanners: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A worker of every queue; the folder of uploads."""
    for name in ("uploads", "backups"):
        (tmp_path / name).mkdir(mode=0o700)
    own = {**scanners.environment, "ATTACHMENTS_URL": f"file://{tmp_path / 'uploads'}", "BACKUP_DIR": f"{tmp_path / 'backups'}"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    start(f"celery -A workers.app worker -Q events,{','.join(QUEUES.values())} -c 2", "all").wait_ready()
    yield tmp_path / "uploads"
    get_settings.cache_clear()


def test_an_event_of_each_kind_reaches_the_receiver(
    api: Chat, called: Receiver, workers: Path, send: Send, emulator: Emulator
) -> None:
    def deliver(*types: str) -> None:
        """Deliver until these have arrived."""

        def arrived() -> bool:
            send("events", "deliver")
            return set(types) <= set(called.types())

        wait_until(arrived, f"{types} had arrived", every=0.3)

    emulator.inject(Fault(kind="unregistered", token="gone"))
    api.notify("gone", "here")
    api.notify("gone")
    send("notifications", "drain")
    for name, content in (("a", PNG), ("b", EICAR)):
        (workers / name).write_bytes(content)
        (message, *_) = api.rows("SELECT id FROM messages")
        row = api.insert("message_attachments", message_id=message["id"], uploaded_by_id=1, file_name=name, file_url=f"/{name}")
        send("attachments", "scan", row)
    send("retention", "purge_notifications")
    send("backups", "daily")
    deliver("device.dead", "attachment.freed", "attachment.blocked", "retention.done", "backup.done")
    assert called.types().count("device.dead") == 1

    (workers.parent / "backups").rename(workers.parent / "not mounted")
    api.execute("RENAME TABLE typing_indicators TO away")
    try:
        send("retention", "purge_typing_indicators")
        send("backups", "daily")
        emulator.inject(Fault(kind="unavailable"))
        for recipient in range(10, 40):  # each counts once for the breaker
            api.insert("users", id=recipient, first_name="Ana", last_name="Silva")
            api.insert("chat_participants", conversation_id=1, user_id=recipient)
            api.notify(recipient_id=recipient)
        send("notifications", "drain")
        deliver("breaker.opened", "retention.failed", "backup.failed")
    finally:
        api.execute("RENAME TABLE away TO typing_indicators")
    emulator.reset()

    def closed() -> bool:
        api.let_pass(60)
        send("notifications", "retry_failed")
        return api.rows("SELECT opened_at FROM worker_providers")[0]["opened_at"] is None

    wait_until(closed, "the breaker was closed", every=0.5)
    api.execute("UPDATE worker_providers SET recovered_at = recovered_at - INTERVAL 1 HOUR")
    send("notifications", "retry_failed")
    deliver("breaker.closed")
    assert called.types().count("breaker.opened") == called.types().count("breaker.closed") == 1
    assert called.unsigned == []
    assert "gone" not in {value for event in called.taken for value in event["data"].values()}


def happen(engine: Engine, amount: int) -> None:
    with engine.begin() as connection:
        outbox.emit(connection, "breaker.opened", *({"provider": str(number)} for number in range(amount)))


def test_a_deliverer_killed_between_answer_and_commit_repeats_with_the_same_id(
    chat: Engine, called: Receiver, deliverer: Process, send: Send
) -> None:
    happen(chat, 1)
    called.before = lambda _: deliverer.kill()
    send("events", "deliver")
    wait_until(lambda: not deliverer.runs, "it was killed")
    assert (len(called.taken), rows(chat)[0]["attempts"]) == (1, 0)
    called.before = lambda _: None
    deliverer.start().wait_ready()
    send("events", "deliver")
    wait_until(lambda: rows(chat)[0]["attempts"] == 1, "it was delivered")
    assert [*called.asked.values()] == [2]


def test_a_receiver_that_is_away_in_the_middle_gets_all_and_holds_no_push_up(
    api: Chat, receiver: Receiver, called: Receiver, deliverer: Process, send: Send
) -> None:
    happen(api.engine, 40)
    receiver.before = lambda _: setattr(receiver, "status", 500 if len(receiver.taken) > 15 else 200)
    send("events", "deliver")
    wait_until(lambda: any(row["reason"] for row in rows(api.engine)), "the receiver began to fail")
    happen(api.engine, 10)
    receiver.before, receiver.status = lambda _: None, 200

    def all_taken() -> bool:
        api.execute("UPDATE worker_events SET due_at = NOW(3) WHERE due_at IS NOT NULL")
        send("events", "deliver")
        return not any(row["due_at"] for row in rows(api.engine))

    wait_until(all_taken, "all were taken", every=0.3)
    assert len(receiver.taken) == 50
