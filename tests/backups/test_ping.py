"""BACKUP_PING_URL hears when a backup begins, is done or fails, and a backup minds nothing of it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import Engine

from devstack.ports import free_port
from settings import ConfigurationError, get_settings
from tasks.backups import ledger
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tests.trickle import trickling

from .conftest import FEW_ITERATIONS, quiet

Heard = list[tuple[str, str]]


@pytest.fixture
def switch() -> Iterator[tuple[str, Heard]]:
    """The URL of a dead man's switch, and what it has heard: path and body."""
    heard: Heard = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/key/chat-{{job}}", heard
    server.shutdown()
    server.server_close()


def pinging(engine: Engine, folder: Path, url: str) -> Backups:
    settings = get_settings().model_copy(update={"backup_dir": folder, "backup_ping_url": url, "backup_s3_uri": None})
    return Backups(engine, settings, FEW_ITERATIONS)


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    (tmp_path / "vault").mkdir(mode=0o700)
    return tmp_path / "vault"


def test_a_backup_pings_when_it_begins_and_when_it_is_done(chat: Engine, vault: Path, switch: tuple[str, Heard]) -> None:
    url, heard = switch
    backups = pinging(chat, vault, url)
    assert backups.daily(quiet).artefact
    assert heard == [("/key/chat-daily/start", ""), ("/key/chat-daily", "")]
    assert not backups.daily(quiet).artefact
    assert len(heard) == 2  # nothing was due


def test_one_that_fails_says_why(chat: Engine, vault: Path, switch: tuple[str, Heard]) -> None:
    url, heard = switch
    with pytest.raises(BackupError, match="no daily backup"):
        pinging(chat, vault, url).drill(quiet, tier="daily")
    vault.rename(vault.parent / "not mounted")
    with pytest.raises(ConfigurationError):
        pinging(chat, vault, url).daily(quiet)
    assert [path for path, _ in heard] == ["/key/chat-drill/start", "/key/chat-drill/fail", "/key/chat-daily/fail"]
    assert heard[1][1].startswith("there is no daily backup in")


def test_nobody_who_hears_it_fails_no_backup_and_shows_no_url(
    chat: Engine,
    vault: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ledger, "PING_SECONDS", 0.3)
    assert pinging(chat, vault, f"http://127.0.0.1:{free_port()}/secret").daily(quiet, force=True).artefact
    with trickling("a header") as server:
        assert pinging(chat, vault, f"http://127.0.0.1:{server.address[1]}/secret").daily(quiet, force=True).artefact
    said = "".join(capsys.readouterr()) + caplog.text  # in the one or the other, by what an earlier test has set up
    assert said.count("not pinged") == 4
    assert "secret" not in said
