"""The contract with the API, through real processes: the row is the order, the nudge only makes it sooner."""

import time
from types import ModuleType

import pytest
from sqlalchemy import text

from devstack.emulators.client import Emulator
from devstack.stack import Stack
from tests.attachments.conftest import Uploads, folder, uploads
from tests.attachments.samples import PNG
from tests.processes import Start, wait_until

from .conftest import Gateway
from .test_clients import chat_jobs
from .test_documentation import EXAMPLES

__all__ = ["chat_jobs", "folder", "uploads"]


@pytest.fixture
def worker(uploads: Uploads, gateway: Gateway, start: Start) -> None:
    """A worker of both queues, on a Redis that was emptied before it came."""
    start("celery -A workers.app worker -Q notifications,attachments -c 2 --without-gossip --without-mingle", "worker")


def insert(uploads: Uploads, **columns: int) -> int:
    """Insert what docs/api.md says, with what it refers to; return the attachment's id."""
    for statement in (
        "INSERT INTO users (id) VALUES (2), (5)",
        "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'c', 2, 5)",
        "INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (450, 'm', 1, 2)",
        EXAMPLES["insert"],
    ):
        with uploads.engine.begin() as connection:
            connection.exec_driver_sql(statement)
    return uploads.add(PNG, message_id=450, uploaded_by_id=2, **columns)


def is_done(uploads: Uploads, attachment: int) -> bool:
    with uploads.engine.connect() as connection:
        sent = connection.execute(text("SELECT delivery_status = 'SENT' FROM chat_notifications")).scalar_one()
        served = connection.exec_driver_sql(EXAMPLES["serve"].replace("12", str(attachment))).scalar_one()
    return bool(sent and served)


@pytest.mark.parametrize("way", ["gateway", "celery"])
def test_a_nudge_before_the_commit_is_not_lost(
    gateway: Gateway,
    token: str,
    worker: None,
    uploads: Uploads,
    emulator: Emulator,
    chat_jobs: ModuleType,
    way: str,
) -> None:
    """There is no beat here: nothing else brings these rows."""
    broker = gateway.environment["CELERY_BROKER_URL"]
    jobs = chat_jobs.HttpJobs(gateway.url, token) if way == "gateway" else chat_jobs.CeleryJobs(broker)
    jobs.notifications()
    jobs.attachments([77, 78])
    time.sleep(1)
    assert insert(uploads, id=77) == 77
    wait_until(lambda: is_done(uploads, 77), "the rows were done")
    assert sorted(message.token for message in emulator.accepted()) == ["another-fcm-token", "fcm-token"]


def test_rows_that_are_nudged_are_done(
    gateway: Gateway, token: str, worker: None, uploads: Uploads, emulator: Emulator
) -> None:
    attachment = insert(uploads)
    assert gateway.post("notifications", token).status_code == 202
    trigger = {"event": "message_attachments.items.create", "collection": "message_attachments", "key": attachment}
    assert gateway.post("attachments", token, trigger).status_code == 202
    wait_until(lambda: is_done(uploads, attachment), "the rows were done")
    assert sorted(message.token for message in emulator.accepted()) == ["another-fcm-token", "fcm-token"]


def test_rows_whose_nudge_was_refused_or_lost_are_done_by_the_sweep(
    gateway: Gateway, token: str, worker: None, start: Start, uploads: Uploads, emulator: Emulator, stack: Stack
) -> None:
    """Redis dies, so that the nudge is refused, and comes back as empty as if it had lost one that it took."""
    attachment = insert(uploads)
    stack.redis.kill()
    assert gateway.post("notifications", token).status_code == 503
    assert gateway.post("attachments", token, {"attachment_id": attachment}).status_code == 503
    stack.redis.start()
    start("celery -A workers.app beat", "beat")
    wait_until(lambda: is_done(uploads, attachment), "the sweep had done the rows")
    assert sorted(message.token for message in emulator.accepted()) == ["another-fcm-token", "fcm-token"]
