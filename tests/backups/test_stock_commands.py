"""The commands that docs/backups.md prints restore an archive without this project, and stop at one that was changed."""

import hashlib
import hmac
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from sqlalchemy import Engine, text

from devstack.programs import ensure
from tasks.backups import folder
from tasks.backups.client import SHELLS, server_family
from tasks.backups.run import Backups
from tests.backups.conftest import DOCS, PASSPHRASE, checksums, quiet


def blocks() -> list[str]:
    """Return the shell blocks of the chapter, without the first, which sets the names that the test sets itself."""
    chapter = DOCS.read_text().partition("## Restore without us")[2].partition("## To the second")[0]
    return re.findall(r"```sh\n(.*?)```", chapter, re.DOTALL)[1:]


def run(
    script: str, archive: str, target: Engine, work: Path, environment: dict[str, str] | None = None, *, typed: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script that ends at the first command that fails, or as if it was `typed`: then the next one comes all the same."""
    options = "" if typed else "set -euo pipefail"
    variables = (
        f"{options}\nARCHIVE={archive}\nPASSPHRASE_FILE={work.parent}/passphrase\nDATABASE={target.url.database}\n"
        f'CLIENT="{SHELLS[server_family(target)][0]} --defaults-extra-file={work.parent}/my.cnf"\n'
    )
    command = ["bash", "-c", variables + script]
    return subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def work(backups: Backups, tmp_path: Path) -> Path:
    """Another machine's folder, with an archive and its manifest; beside it the passphrase and the client's account."""
    backups.daily(quiet)
    archive = backups.weekly(quiet).artefact
    work = tmp_path / "work"
    work.mkdir()
    for name in (archive, f"{archive}.manifest"):
        shutil.copy(backups.folder / name, work)
    (tmp_path / "passphrase").write_bytes(PASSPHRASE + b"\n")
    url = backups.engine.url
    (tmp_path / "my.cnf").touch(mode=0o600)
    (tmp_path / "my.cnf").write_text(
        f"[client]\nhost={url.host}\nport={url.port}\nuser={url.username}\npassword={url.password}\n"
    )
    return work


def archive_in(work: Path) -> str:
    return next(work.glob("*.enc")).name


def test_the_printed_commands_restore_to_identical_checksums(backups: Backups, other: Engine, work: Path) -> None:
    """Whatever else lies in the folder: who may write to the bucket named it."""
    (work / "backup_chat_29991231.sql.zst").write_bytes(
        zstandard.compress(b"CREATE TABLE pwned (id INT);\n-- Dump completed\n")
    )
    for name in ("my.cnf", "passphrase"):
        (work / name).write_text("[client]\nhost=192.0.2.1\n")
    done = run("\n".join(blocks()), archive_in(work), other, work)
    assert done.returncode == 0, done.stderr
    assert "the manifest is genuine\nthe archive is whole\n" in done.stdout
    assert checksums(other) == checksums(backups.engine)


@pytest.fixture(scope="module")
def american(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale whose order ignores punctuation, made for this test alone."""
    ensure(["tests"])
    folder = tmp_path_factory.mktemp("locale")
    subprocess.run(["localedef", "-i", "en_US", "-f", "UTF-8", folder / "en_US.UTF-8"], check=True, capture_output=True)
    return {**os.environ, "LOCPATH": str(folder), "LC_ALL": "en_US.UTF-8"}


def test_the_newest_of_two_dumps_of_a_day_is_restored_in_any_locale(
    backups: Backups, other: Engine, work: Path, american: dict[str, str]
) -> None:
    with backups.engine.begin() as connection:
        connection.execute(text("UPDATE messages SET message_text = 'said since' WHERE id = 1"))
    backups.daily(quiet, force=True)
    both = backups.weekly(quiet, force=True).artefact
    for name in (both, f"{both}.manifest"):
        shutil.copy(backups.folder / name, work)
    done = run("\n".join(blocks()), both, other, work, american)
    assert done.returncode == 0, done.stderr
    assert checksums(other) == checksums(backups.engine)


def test_a_dump_straight_out_of_the_folder_is_checked_by_the_same_commands(backups: Backups, other: Engine, work: Path) -> None:
    name = folder.names(backups.folder, "daily")[-1]
    for each in (name, f"{name}.manifest"):
        shutil.copy(backups.folder / each, work)
    check, _, load = blocks()
    done = run(f"{check}\nDUMP=$ARCHIVE\n{load}", name, other, work)
    assert "the manifest is genuine\nthe archive is whole\n" in done.stdout
    assert checksums(other) == checksums(backups.engine)


@pytest.mark.parametrize("suffix", ["", ".manifest"], ids=["archive", "manifest"])
def test_the_printed_check_finds_a_changed_byte(other: Engine, work: Path, suffix: str) -> None:
    path = work / (archive_in(work) + suffix)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    done = run(blocks()[0], archive_in(work), other, work, typed=True)
    assert done.returncode != 0
    assert not ("genuine" in done.stdout and "whole" in done.stdout)


def forged(line: bytes, passphrase: bytes, salt: bytes = b"") -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, 1, 32)
    return b'{"hmac":"%s","iterations":1,"salt":"%s"}\n' % (
        hmac.digest(key, line, "sha256").hex().encode(),
        salt.hex().encode(),
    )


EMPTY_KEY = b'{"hmac":"%s","iterations":1,"salt":"no hex"}\n'
SECOND_LINES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda _line: b"",
    "no signature": lambda _line: b'{"hmac":""}\n',
    "no number": lambda _line: b'{"iterations":x,"salt":"00"}\n',
    "no salt": lambda _line: b'{"iterations":1,"salt":"no hex"}\n',
    "signed without a key": lambda line: EMPTY_KEY % hmac.digest(b"", line, "sha256").hex().encode(),
    "signed without a passphrase": lambda line: forged(line, b"", b"salt"),
}


@pytest.mark.parametrize("second", SECOND_LINES)
@pytest.mark.parametrize("passphrase", ["passphrase", "mistyped"])
def test_the_printed_check_takes_nothing_that_was_not_signed(other: Engine, work: Path, second: str, passphrase: str) -> None:
    """A stranger's archive beside a manifest of his own; and where the file of passphrases is not there, too."""
    archive = work / "backup_chat_20261122.sql.zst"
    archive.write_bytes(b"a stranger's")
    line = b'{"name":"%s","sha256":"%s"}\n' % (archive.name.encode(), hashlib.sha256(b"a stranger's").hexdigest().encode())
    (work / f"{archive.name}.manifest").write_bytes(line + SECOND_LINES[second](line))
    (work.parent / "passphrase").rename(work.parent / passphrase)
    done = run(blocks()[0], archive.name, other, work, typed=True)
    assert (done.stdout, done.returncode == 0) == ("", False)


def test_the_printed_check_takes_no_archive_for_another_that_is_genuine_too(other: Engine, work: Path) -> None:
    name = archive_in(work)
    shutil.copy(work / name, work / "backup_chat_week_20991231.tar.enc")
    shutil.copy(work / f"{name}.manifest", work / "backup_chat_week_20991231.tar.enc.manifest")
    assert run(blocks()[0], "backup_chat_week_20991231.tar.enc", other, work, typed=True).stdout == ""
