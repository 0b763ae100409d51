"""A run that is cut off, wherever, leaves nothing that looks good and harms no earlier backup."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from devstack.stack import Stack
from tasks.backups import folder
from tasks.backups.errors import BackupError, BusyError, StoppedError
from tasks.backups.ledger import last_runs
from tasks.backups.run import Backups
from tests.backups.conftest import PASSPHRASE, Tick, numbers, quiet


def at_first_bytes(act: Callable[[], None]) -> Tick:
    """Return a tick that acts once, when the dump has begun to flow."""
    done: list[bool] = []

    def tick(size: int) -> None:
        if size and not done:
            done.append(True)
            act()

    return tick


def dumpers() -> list[int]:
    """Return the pids of this process's dump clients."""
    pids = [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return [pid for pid in pids if b"--single-transaction" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
def large(backups: Backups) -> Backups:
    """Backups of a chat larger than what the pipe and the client's buffers hold: 12 MB of text."""
    with backups.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO messages (message_id, conversation_id, sender_id, message_text)"
                f" SELECT CONCAT('large-', seq), 1, 1, REPEAT(SHA2(seq, 512), 40) FROM {numbers(1, 2500)}"
            )
        )
    return backups


def earlier(backups: Backups) -> dict[str, bytes]:
    """Make a backup, and return the folder as it is then."""
    backups.daily(quiet)
    return contents(backups.folder)


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_a_killed_dump(large: Backups) -> None:
    before = earlier(large)

    def kill() -> None:
        for pid in dumpers():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(BackupError, match=r"dump ended with status -9 \(it was killed\)"):
        large.daily(at_first_bytes(kill), force=True)
    assert contents(large.folder) == before


def test_a_lost_connection(large: Backups, stack: Stack) -> None:
    before = earlier(large)
    with stack.mariadb.root() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        (newest,) = cursor.fetchone() or (0,)

    def cut() -> None:
        with stack.mariadb.root() as cursor:
            cursor.execute(f"SELECT id FROM information_schema.processlist WHERE user = 'chat_workers' AND id > {newest}")
            for (connection,) in cursor.fetchall():
                cursor.execute(f"KILL {connection}")

    with pytest.raises(BackupError, match=r"dump ended with status [23] .*the connection was lost"):
        large.daily(at_first_bytes(cut), force=True)
    assert contents(large.folder) == before


def test_a_worker_that_stops(large: Backups) -> None:
    before = earlier(large)

    def stop() -> None:
        raise StoppedError("stopping")

    with pytest.raises(StoppedError):
        large.daily(at_first_bytes(stop), force=True)
    with pytest.raises(StoppedError):
        large.weekly(at_first_bytes(stop))
    assert contents(large.folder) == before
    assert not dumpers()


def test_a_missing_table(backups: Backups) -> None:
    before = earlier(backups)
    with backups.engine.begin() as connection:
        connection.execute(text("RENAME TABLE message_reactions TO message_reactions_away"))
    try:
        with pytest.raises(BackupError) as caught:
            backups.daily(quiet, force=True)
    finally:
        with backups.engine.begin() as connection:
            connection.execute(text("RENAME TABLE message_reactions_away TO message_reactions"))
    assert str(caught.value) == "the database test_chat has no table message_reactions; nothing was dumped"
    assert contents(backups.folder) == before


def test_a_table_that_goes_missing_meanwhile(backups: Backups) -> None:
    before = earlier(backups)

    def drop() -> None:
        with backups.engine.begin() as connection:
            connection.execute(text("RENAME TABLE typing_indicators TO typing_indicators_away"))

    tick = at_first_bytes(drop)

    def early(size: int) -> None:
        tick(size or 1)

    try:
        with pytest.raises(BackupError, match=r"dump ended with status|no table typing_indicators"):
            backups.daily(early, force=True)
    finally:
        with backups.engine.begin() as connection:
            connection.execute(text("RENAME TABLE typing_indicators_away TO typing_indicators"))
    assert contents(backups.folder) == before


def test_a_failed_run_is_on_record(backups: Backups) -> None:
    (backups.folder / "backup_chat_20000101.sql.zst.manifest").write_bytes(b"{}\n")
    with pytest.raises(BackupError):
        backups.weekly(quiet)
    run = last_runs(backups.engine)["weekly", ""]
    assert run.tried is not None
    assert run.done is None


def in_own_mounts(disk: Path, script: str, environment: dict[str, str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a script that mounts something at `disk`, which goes with it; without root, as root of a user namespace."""
    unshare = ["unshare", "--mount", "--propagation", "unchanged"]  # in a chroot there is no mount to change it of
    if os.geteuid() != 0:
        unshare = ["unshare", "--mount", "--user", "--map-root-user"]
    command = [*unshare, "bash", "-c", f"trap 'umount {disk}' EXIT\n{script}"]
    own = {name: str(value) for name, value in environment.items()}
    return subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)


CREATE = """\
mount -t tmpfs -o size={size} tmpfs {folder} || exit 99
cp {earlier}/* {folder}/ || exit 98
{python} -c 'from workers.cli import main; main()' backups create daily
status=$?
ls -A {folder} >&2
(cd {folder} && sha256sum -c {earlier}.sums >&2) || exit 97
exit $status
"""


@pytest.mark.parametrize(
    ("size", "words"),
    [("4m", " free and this needs about"), ("9m", "is full; the unfinished backup_chat_")],
    ids=["seen before", "met on the way"],
)
def test_a_full_disk(large: Backups, passphrase_file: Path, tmp_path: Path, size: str, words: str) -> None:
    # The earlier dump is a small one, so that the new one, of rows that do not compress, outgrows what was expected.
    with large.engine.begin() as connection:
        connection.execute(text("DELETE FROM messages WHERE message_id LIKE 'large-%'"))
    large.daily(quiet)
    noise = ", ".join(f"SHA2(seq * 100 + {number}, 512)" for number in range(20))
    with large.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO messages (message_id, conversation_id, sender_id, message_text)"
                f" SELECT CONCAT('large-', seq), 1, 1, CONCAT({noise}) FROM {numbers(1, 8000)}"
            )
        )
    sums = subprocess.run(
        ["sha256sum", *(path.name for path in large.folder.iterdir())], cwd=large.folder, capture_output=True, check=True
    ).stdout
    Path(f"{large.folder}.sums").write_bytes(sums)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = CREATE.format(size=size, folder=disk, earlier=large.folder, python=sys.executable)
    done = in_own_mounts(disk, script, {"BACKUP_DIR": disk, "BACKUP_PASSPHRASE_FILE": passphrase_file})
    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith(".partial")]
    assert done.stderr.count("backup_chat_") >= 2


def test_what_a_killed_run_left_is_swept_up_by_the_next(backups: Backups) -> None:
    (backups.folder / "backup_chat_20260101.sql.zst.partial").write_bytes(b"half")
    (backups.folder / "unpacked.partial").mkdir()
    (backups.folder / "unpacked.partial" / "backup_chat_20260101.sql.zst").write_bytes(b"secret")
    # A run killed between the artefact's name and its manifest.
    (backups.folder / "backup_chat_20260102.sql.zst").write_bytes(b"whole, but nothing says so")
    assert folder.names(backups.folder, "daily") == []
    backups.daily(quiet)
    assert not list(backups.folder.glob("*.partial"))
    assert len(folder.names(backups.folder, "daily")) == 1


def test_one_at_a_time(backups: Backups) -> None:
    before = earlier(backups)
    with folder.locked(backups.folder), pytest.raises(BusyError, match="another backup, rotation or drill is at work"):
        backups.daily(quiet, force=True)
    assert contents(backups.folder) == before


def test_the_password_is_in_no_childs_arguments_or_environment(large: Backups) -> None:
    secrets = {str(large.engine.url.password).encode(), PASSPHRASE}
    seen: list[bytes] = []

    def look() -> None:
        for pid in dumpers():
            seen.append(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes())

    large.daily(at_first_bytes(look))
    assert seen
    assert not [secret for secret in secrets for process in seen if secret in process]
