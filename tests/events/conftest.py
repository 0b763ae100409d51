"""A receiver of events, a secret that it knows, and the outbox of an empty chat."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.rows import dicts
from settings import get_settings
from tests.events.receiver import SECRETS, Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def called(chat: Engine, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """The receiver that EVENTS_URL names, in this process too."""
    secret = tmp_path / "events-secret"
    secret.write_text("".join(f"whsec_{each}\n" for each in SECRETS))
    secret.chmod(0o600)
    monkeypatch.setenv("EVENTS_URL", receiver.url)
    monkeypatch.setenv("EVENTS_SECRET_FILE", str(secret))
    get_settings.cache_clear()
    yield receiver
    monkeypatch.undo()
    get_settings.cache_clear()


def rows(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return dicts(connection, text("SELECT * FROM worker_events ORDER BY id"))
