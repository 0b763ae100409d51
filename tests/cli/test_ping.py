"""`chat-workers ping`: the liveness of one process, by its heartbeat."""

import subprocess
import sys
from collections.abc import Iterator
from socket import gethostname

import pytest
from click.testing import CliRunner
from redis import Redis

from devstack.ports import free_port
from settings import get_settings
from workers.cli.ping import group
from workers.operations.fleet import announce, leave

NAME = f"notifications@{gethostname()}"


def ping(process: str = "notifications") -> int:
    return CliRunner().invoke(group, [process]).exit_code


def test_a_worker_lives_from_its_heartbeat_to_its_end(environment: dict[str, str], redis: Redis) -> None:
    assert ping() == 1
    announce(redis, NAME, {})
    assert (ping(), ping("backups")) == (0, 1)
    leave(redis, NAME)
    assert ping() == 1


@pytest.fixture
def nobody_listens(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CELERY_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    get_settings.cache_clear()
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


def test_no_worker_is_restarted_while_redis_is_away(nobody_listens: None) -> None:
    assert ping() == 0


def test_it_does_not_import_celery() -> None:
    """A second of CPU, each minute, for each container."""
    code = "import sys, workers.cli.ping; sys.exit('celery' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
