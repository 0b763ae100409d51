"""The Flow of events.json takes what the workers tell, and nothing that they did not sign."""

from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from settings import Settings
from tasks import outbox
from tasks.events.deliver import Receiver, deliver
from tasks.events.queue import Event
from tests.processes import wait_until

from .api import Api
from .conftest import DEPLOY, EVENTS_SECRET

URL = "/flows/trigger/7b0f3c1e-5a2d-4f0e-9c55-1f6f0a1c9d02"


def receiver(api: Api, folder: Path, secret: str) -> Receiver:
    (folder / "events-secret").write_text(secret)
    return Receiver(Settings.model_construct(events_url=api.url + URL, events_secret_file=folder / "events-secret"))


def test_what_is_signed_is_taken_and_said_in_the_log(api: Api, database: Engine, folder: Path) -> None:
    with database.begin() as connection:
        outbox.emit(connection, "breaker.opened", {"provider": "fcm", "app": "default", "reason": "für \u2028 'immer'"})
        outbox.emit(connection, "device.dead", {"device_key": "fcm:0123", "recipient_id": 5})
    assert deliver(database, receiver(api, folder, EVENTS_SECRET).send) == (2, [])
    log = folder / "directus" / "directus.log"
    wait_until(lambda: "chat-workers: device.dead" in log.read_text(), "the Flow said what it took")
    assert "fcm:0123" in log.read_text()
    with database.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM worker_events WHERE due_at IS NOT NULL")).scalar_one() == 0


@pytest.mark.parametrize("secret", ["whsec_" + "a" * 44, "whsec_" + "b" * 64])
def test_what_another_signed_is_refused(api: Api, folder: Path, secret: str) -> None:
    forged = Event(1, 1, "backup.failed", '{"detail": "forged"}', datetime(2026, 1, 1), 0)  # noqa: DTZ001
    refusal = receiver(api, folder, secret).send(forged)
    assert refusal
    assert refusal.why.startswith("EVENTS_URL answered with status 5")
    assert "forged" not in (folder / "directus" / "directus.log").read_text()


def test_the_page_says_where_the_flow_listens() -> None:
    assert URL in (DEPLOY / "README.md").read_text()
