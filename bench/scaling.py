"""What a notification costs each process: `python -m bench.scaling [ROWS]`. CPU time, so that a busy machine tells the same.

One worker process drains a full table; what the worker, MariaDB and Redis spent is divided by the devices that were sent to.
From it follows how many a core does, and where the next limit is: docs/scaling.md.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
from sqlalchemy import Engine, text

from bench.place import place
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.chat import load_chat
from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.stack import Stack

ROWS = 20_000
RESULTS = Path(__file__).parent / "results"
DRAIN = """\
import resource
from tasks.notifications import run

def used():
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

before = used()
while run.drain().more:
    pass
print(used() - before)
"""
TICK = os.sysconf("SC_CLK_TCK")


@click.command()
@click.argument("rows", default=ROWS)
def main(rows: int) -> None:
    """Drain so many ROWS, print what they cost and write it down."""
    with Stack("bench-scaling", ["mariadb", "redis", "fcm"]) as stack:
        os.environ.update(stack.environment)
        engine = create_engine(stack.environment["DATABASE_URL"])
        create_shared_schema(engine)
        migrate(engine)
        with engine.begin() as connection:
            load_chat(connection, users=500, conversations=1000, notifications=rows, quiet=0, bad_tokens=0)
        database = stack.mariadb.pid
        before, began = _cpu_seconds(database), time.monotonic()
        worker = _drain()
        wall = time.monotonic() - began
        spent = {"worker": worker, "database": _cpu_seconds(database) - before}
        devices = Emulator(stack.fcm.url, stack.fcm.data).stats().count("accepted")
        report = {
            "measured": place(),
            "rows": rows,
            "devices": devices,
            "left": _unsettled(engine),
            "wall_seconds": round(wall, 1),
            **{f"{name}_ms_per_device": round(1000 * seconds / devices, 3) for name, seconds in spent.items()},
            **{f"{name}_devices_per_core_second": round(devices / seconds) for name, seconds in spent.items()},
        }
    print(json.dumps(report, indent=1))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.json").write_text(json.dumps(report, indent=1) + "\n")


def _drain() -> float:
    """Drain in a process of its own, as a worker's child does; return its CPU seconds without those of its imports."""
    done = subprocess.run([sys.executable, "-c", DRAIN], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _unsettled(engine: Engine) -> int:
    with engine.connect() as connection:
        statement = "SELECT COUNT(*) FROM chat_notifications WHERE delivery_status IN ('PENDING', 'FAILED')"
        return int(connection.execute(text(statement)).scalar_one())


if __name__ == "__main__":
    main()
