"""What a provider's outage under load costs: `python -m bench.outage [SECONDS] [unavailable|permission_denied|down]`.

Rows are inserted at a steady rate before, during and after. Printed and written: requests a second as the emulator saw
them, how soon sending resumed after the outage, attempts burnt, losses and repeats.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
from celery import Celery
from sqlalchemy import Engine, text

from bench.place import place
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.chat import conversation_pairs, enqueue, load_chat
from devstack.emulators.client import Emulator, Fault
from devstack.folder import PROJECT
from devstack.stack import Stack

ROWS_A_SECOND = 100
BEFORE_SECONDS = 10
START_SECONDS = 120
AFTER_SECONDS = 90
RESULTS = Path(__file__).parent / "results"


@click.command()
@click.argument("seconds", default=60)
@click.argument("kind", type=click.Choice(["unavailable", "permission_denied", "down"]), default="unavailable")
def main(seconds: int, kind: str) -> None:
    """Have the provider fail in this way for so many SECONDS, under load, and report."""
    with Stack("bench-outage", ["mariadb", "redis", "fcm"]) as stack:
        os.environ.update(stack.environment)
        environment = {**os.environ, "NOTIFICATIONS_PROCESSES": "1", "LOG_LEVEL": "WARNING"}
        engine = create_engine(stack.environment["DATABASE_URL"])
        create_shared_schema(engine)
        migrate(engine)
        with engine.begin() as connection:
            load_chat(connection, users=500, conversations=1000, notifications=1, quiet=0, bad_tokens=0)
        emulator = Emulator(stack.fcm.url, stack.fcm.data)
        processes = [
            subprocess.Popen([sys.executable, "-m", "celery", "-A", "workers.app", *arguments], cwd=PROJECT, env=environment)
            for arguments in (["worker", "-Q", "notifications", "--concurrency", "2"], ["beat"])
        ]
        try:
            report = _measure(engine, emulator, stack, seconds, kind)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"outage-{kind}.json").write_text(json.dumps(report, indent=1) + "\n")


def _measure(engine: Engine, emulator: Emulator, stack: Stack, seconds: int, kind: str) -> dict[str, object]:
    ended = threading.Event()

    api = Celery(broker=stack.environment["CELERY_BROKER_URL"], set_as_current=False)

    def insert() -> None:
        first = 2
        while not ended.wait(1):
            with engine.begin() as connection:
                enqueue(connection, conversation_pairs(connection), ROWS_A_SECOND, first=first, most_devices=2)
            first += ROWS_A_SECOND
            api.send_task("tasks.notifications.drain", queue="notifications", expires=60, ignore_result=True)

    inserting = threading.Thread(target=insert, daemon=True)
    inserting.start()
    begins = time.monotonic() + START_SECONDS
    while not emulator.stats().count("accepted"):  # a busy machine takes longer to start the worker than all of it lasts
        if time.monotonic() > begins:
            raise click.ClickException(f"no push arrived within {START_SECONDS} s")
        time.sleep(0.1)
    time.sleep(BEFORE_SECONDS)
    began = time.time()
    if kind == "down":
        stack.fcm.stop()
    else:
        emulator.inject(Fault(kind=kind))
    time.sleep(seconds)
    if kind == "down":
        stack.fcm.start()
    else:
        emulator.clear()
    over = time.time()
    burnt = _most_attempts(engine)
    time.sleep(AFTER_SECONDS / 3)
    ended.set()
    inserting.join()
    deadline = time.time() + AFTER_SECONDS
    while time.time() < deadline and _unsettled(engine):
        time.sleep(0.5)
    return _report(engine, emulator, began, over, burnt, kind)


def _most_attempts(engine: Engine) -> int:
    with engine.connect() as connection:
        ledgers = connection.execute(text("SELECT devices FROM worker_deliveries WHERE devices IS NOT NULL")).scalars()
        return max((entry[1] for ledger in ledgers for entry in json.loads(ledger).values()), default=0)


def _unsettled(engine: Engine) -> int:
    with engine.connect() as connection:
        statement = "SELECT COUNT(*) FROM chat_notifications WHERE delivery_status IN ('PENDING', 'FAILED')"
        return int(connection.execute(text(statement)).scalar_one())


def _report(engine: Engine, emulator: Emulator, began: float, over: float, burnt: int, kind: str) -> dict[str, object]:
    accepted = [message.t for message in emulator.accepted()]
    after = [t for t in accepted if t > over]
    rates = dict(emulator.stats().per_second.get("fcm", []))
    start = int(began)
    series = [(second - start, rates.get(second, 0)) for second in range(start - BEFORE_SECONDS, int(max(accepted)) + 1)]
    devices = len({(m.notification_id, m.token) for m in emulator.accepted()})
    report: dict[str, object] = {
        "measured": place(),
        "outage": kind,
        "outage_seconds": round(over - began),
        "requests_during": sum(count for second, count in series if 1 <= second < over - began - 1),
        "most_attempts_of_a_device_during": burnt,
        "resumed_after_seconds": round(min(after) - over, 1) if after else None,
        "peak_requests_a_second_after": max((count for second, count in series if second > over - began), default=0),
        "unsettled": _unsettled(engine),
        "repeats": len(accepted) - devices,
        "requests_a_second": series,
    }
    for key, value in report.items():
        if key != "requests_a_second":
            print(f"{key:36} {value}")
    print("requests/s, second by second from the outage's begin:")
    print(" ".join(f"{second}:{count}" for second, count in series))
    return report


if __name__ == "__main__":
    main()
