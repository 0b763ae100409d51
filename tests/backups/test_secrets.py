"""The passphrase file is private and usable or refused in a sentence; any password reaches the clients unharmed."""

import os
from pathlib import Path

import pytest
from sqlalchemy import URL, make_url

from db.engine import get_engine
from devstack.stack import Stack
from settings import ConfigurationError
from tasks.backups.client import SHELLS, find_client, running, server_family
from tasks.backups.passphrases import read_passphrases


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.touch()
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_first_line_comes_first_and_empty_lines_are_none(tmp_path: Path) -> None:
    path = write(tmp_path / "p", b"the passphrase of this year\n\nthe one before that\n")
    assert read_passphrases(path) == [b"the passphrase of this year", b"the one before that"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "p", b"the passphrase of this year\n", mode)
    with pytest.raises(ConfigurationError, match="is open to others; run: chmod 600"):
        read_passphrases(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, or"),
        (b"short\n", "line 1: a passphrase has 16 to 1023 bytes"),
        (b"x" * 1024 + b"\n", "line 1: a passphrase has 16 to 1023 bytes"),
        (b"\nthe passphrase of this year\n", "begins with an empty line"),
        (b"the passphrase of this year\r\n", "line 1: .* no blanks at its ends"),
    ],
)
def test_what_is_no_passphrase_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_passphrases(write(tmp_path / "p", content))


def test_no_file_no_setting_and_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="BACKUP_PASSPHRASE_FILE is not set"):
        read_passphrases(None)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_passphrases(tmp_path / "p")
    os.mkfifo(tmp_path / "fifo", 0o600)
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    with pytest.raises(ConfigurationError, match="is no regular file"):
        read_passphrases(tmp_path / "fifo")
    os.close(writer)


@pytest.mark.parametrize("password", ["p@ss word#1 ;=", "back\\slash\\n", "quo\"te'd", "#hash", " blanks "])
def test_any_password_reaches_the_client(stack: Stack, environment: dict[str, str], password: str) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS odd@'127.0.0.1'")
        cursor.execute("ALTER USER odd@'127.0.0.1' IDENTIFIED BY %s", (password,))
    url: URL = make_url(environment["DATABASE_URL"]).set(username="odd", password=password, database="information_schema")
    client = find_client(SHELLS[server_family(get_engine())])
    with running(client, ("--batch", "--execute=SELECT 1"), url, writes=True) as child:
        assert (child.process.wait(10), child.complaint()) == (0, "")
