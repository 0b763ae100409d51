"""A bucket away for days, a full disk, a clock that jumps: nothing older is harmed, and what is owed is shipped in order."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack import stack as stacks
from devstack.chat import load_chat
from devstack.mariadb import MariaDB
from devstack.stack import SERVICES, Stack
from tasks.backups import dump, folder
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tests.backups.conftest import numbers, quiet
from tests.backups.test_cut_off import in_own_mounts
from tests.backups.test_off_site import shipped
from tests.backups.test_rotate import put
from tests.chaos.fleet import faketime
from tests.chaos.proxy import Mode, Proxy


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that says by how much the clock of the server `moved` is wrong."""
    return tmp_path_factory.mktemp("clock") / "offset"


@pytest.fixture(scope="module")
def moved(clock: Path) -> Iterator[Stack]:
    """A server whose clock may jump while it runs."""
    clock.write_text("+0")
    kind = SERVICES[MariaDB.name]
    options = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": clock,
        "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
        # Its repair of timed waits, for an older C library, has MySQL 9 wait for ever at its start.
        "FAKETIME_FORCE_MONOTONIC_FIX": 0,
    }

    class Moved(kind):  # type: ignore[misc,valid-type]
        def command(self) -> list[str]:
            return ["env", *(f"{name}={value}" for name, value in options.items()), *super().command()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stacks.SERVICES, MariaDB.name, Moved)
        with Stack(f"moved-{os.getpid()}", ["mariadb"]) as stack:
            engine = create_engine(stack.mariadb.url())
            create_shared_schema(engine)
            migrate(engine)
            with engine.begin() as connection:
                load_chat(connection, users=5, conversations=5, notifications=5)
            engine.dispose()
            yield stack


@pytest.fixture
def days(moved: Stack, clock: Path, backups: Backups) -> Iterator[Callable[[int], Backups]]:
    """Give the backups of the server whose clock is so many days ahead; each dump of theirs is shipped at once."""
    clock.write_text("+0")
    engine = create_engine(moved.mariadb.url())
    own = backups.settings.model_copy(update={"backup_s3_ship": "daily"})

    def go_to(day: int) -> Backups:
        clock.write_text(f"{day:+}d")
        return replace(backups, engine=engine, settings=own)

    yield go_to
    engine.dispose()


def test_what_a_bucket_that_was_away_for_days_is_owed_is_shipped_in_order(
    days: Callable[[int], Backups], stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with Proxy(int(stack.s3.url.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        days(0).daily(quiet)
        (first,) = shipped(days(0))
        proxy.set(Mode.CUT)
        for day in (1, 2):
            with pytest.raises(BackupError, match="failed while listing it"):
                days(day).daily(quiet)
        proxy.set(Mode.OPEN)
        assert len(folder.names(days(2).folder, "daily")) == 3
        days(2).daily(quiet)  # is not due, and yet ships
        assert len(shipped(days(2))) == 3
        assert shipped(days(2))[0] == first


def test_a_clock_that_jumps_ahead_and_back_harms_nothing_older_and_keeps_nothing_from_being_shipped(
    days: Callable[[int], Backups],
) -> None:
    made = {day: days(day).daily(quiet).artefact for day in (0, 1, 400, 2, -30, 3)}
    assert sorted(made.values()) == sorted(folder.names(days(3).folder, "daily"))
    today = dump.today(days(0).engine)
    order = [f"daily/backup_chat_day_{today + timedelta(days=day):%Y%m%d}.tar.enc" for day in (-30, 0, 1, 2, 3, 400)]
    assert shipped(days(3)) == order
    again = days(3).ship("daily", quiet)
    assert (again.artefact, len(again.ignored)) == ("", 1)
    assert "is dated after today" in again.ignored[0]


FILL = """\
mount -t tmpfs -o size=11m tmpfs {folder} || exit 99
cp {earlier}/* {folder}/ || exit 98
{python} -c 'from workers.cli import main; main()' backups create daily
[ $? = 1 ] || exit 97
ls {folder} >&2
mount -o remount,size=64m {folder} || exit 96
{python} -c 'from workers.cli import main; main()' backups create daily --if-due
"""


def test_what_a_full_disk_left_unsealed_is_shipped_in_order_once_there_is_room(
    backups: Backups, passphrase_file: Path, tmp_path: Path
) -> None:
    """There is room for the dump, and none for the archive that it leaves the host as."""
    shipping = replace(backups, settings=backups.settings.model_copy(update={"backup_s3_ship": "daily"}))
    day = dump.today(backups.engine) - timedelta(days=1)
    put(backups.folder, f"backup_chat_{day:%Y%m%d}.sql.zst", signed=True)
    shipping.ship("daily", quiet)
    noise = ", ".join(f"SHA2(seq * 100 + {number}, 512)" for number in range(20))
    with backups.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO messages (message_id, conversation_id, sender_id, message_text)"
                f" SELECT CONCAT('large-', seq), 1, 1, CONCAT({noise}) FROM {numbers(1, 1500)}"
            )
        )
    disk = tmp_path / "disk"
    disk.mkdir()
    own: dict[str, str | Path] = {"BACKUP_DIR": disk, "BACKUP_PASSPHRASE_FILE": passphrase_file, "BACKUP_S3_SHIP": "daily"}
    own["BACKUP_S3_URI"] = str(backups.settings.backup_s3_uri)
    done = in_own_mounts(disk, FILL.format(folder=disk, earlier=backups.folder, python=sys.executable), own)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Error: .* free and this needs about", done.stderr, re.MULTILINE)
    assert len(re.findall(r"^backup_chat_2.*\.manifest$", done.stderr, re.MULTILINE)) == 2
    assert [name[-16:-8] for name in shipped(shipping)] == [f"{day:%Y%m%d}", f"{day + timedelta(days=1):%Y%m%d}"]
