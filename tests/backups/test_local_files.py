"""Neither a dump nor a server gets the worker's own files by LOAD DATA LOCAL INFILE."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.engine import create_engine
from tasks.backups import dump, restore
from tasks.backups.client import DUMPERS, SHELLS, find_client
from tasks.backups.errors import BackupError
from tasks.backups.scan import DumpScan
from tests.backups.conftest import quiet
from tests.backups.rogue import rogue_server

SECRET = "the passphrase of all archives"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text(SECRET)
    return path


def test_a_statement_in_a_dump_reads_no_file_of_the_worker(other: Engine, secret: Path) -> None:
    lines = ["CREATE TABLE found (line TEXT);\n", f"LOAD DATA LOCAL INFILE '{secret}' INTO TABLE found;\n"]
    with pytest.raises(BackupError, match="ended with status 1"):
        restore.load_text(other, find_client(SHELLS["MariaDB"]), [line.encode() for line in lines], "a dump")
    with other.connect() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM found")).scalar_one() == 0


def test_a_server_that_asks_for_a_file_gets_none(secret: Path) -> None:
    with rogue_server(str(secret)) as rogue:
        target = create_engine(f"mysql+pymysql://worker:word@127.0.0.1:{rogue.port}/chat?local_infile=1")
        with pytest.raises(RuntimeError, match="LOAD_LOCAL"), target.connect():
            pass
        with pytest.raises(BackupError):
            restore.load_text(target, find_client(SHELLS["MariaDB"]), [b"SELECT 1;\n"], "a dump")
        with pytest.raises(BackupError):
            list(dump.dump_text(target, find_client(DUMPERS["MariaDB"]), DumpScan(), quiet))
        assert rogue.asked >= 3
    assert rogue.taken == b""
