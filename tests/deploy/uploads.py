"""Uploads to the installed host, and the helpers that look into them."""

import os
from hashlib import sha256

from tests.attachments.samples import ENDLESS, pdf
from tests.processes import wait_until

from .conftest import Host

HELPER = "tasks.attachments.looks"


def sql(host: Host, statement: str) -> str:
    return host.machine.run('mysql --skip-column-names truck2_db -e "$STATEMENT"', STATEMENT=statement).stdout.strip()


def upload(host: Host, content: bytes) -> str:
    """Store a file and insert its row, as the API does; return the row's id."""
    path = host.machine.root / "srv/uploads/files" / sha256(content).hexdigest()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return sql(
        host,
        "INSERT INTO message_attachments (message_id, file_name, file_url, uploaded_by_id)"
        f" VALUES (1, 'a', '/files/{path.name}', 1); SELECT LAST_INSERT_ID()",
    )


def wait_scanned(host: Host, row: str, flags: str) -> None:
    """Wait for a row's `scanned_for_virus` and `is_safe`, which are 0 and 1 when it is new."""

    def found() -> str:
        return sql(host, f"SELECT CONCAT(scanned_for_virus, is_safe) FROM message_attachments WHERE id = {row}")

    wait_until(lambda: found() == flags, f"attachment {row} had the flags {flags}", every=0.5)


def helpers(host: Host, cpu_seconds: int = 0) -> dict[str, str]:
    """Return the helpers that have used so much CPU, each with the worker's process that it belongs to."""
    lines = [line.split() for line in host.machine.says("ps -eo pid=,ppid=,cputimes=,args=").splitlines()]
    return {pid: parent for pid, parent, used, *command in lines if HELPER in command and int(used) >= cpu_seconds}


def check_looks(host: Host) -> None:
    """Have a PDF looked into, whose attachment goes back to clamd; then kill a worker's process in the middle of a look."""
    wait_scanned(host, upload(host, pdf(os.urandom(9).hex().encode())), "11")  # bytes that are known are not looked into again
    assert helpers(host)
    row = upload(host, ENDLESS)
    wait_until(lambda: bool(helpers(host, 3)), "a helper was at it", every=0.5)
    busy = helpers(host, 3)
    host.machine.run(f"kill -9 {' '.join(busy.values())}")
    wait_until(lambda: not busy.keys() & helpers(host).keys(), "the helper had ended", 10, every=0.2)
    sql(host, f"DELETE FROM message_attachments WHERE id = {row}")
