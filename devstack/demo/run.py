"""The demo's order of events: services, tables, a chat, the Procfile's processes, a nudge, and the count at the end."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import DBAPIError

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.demo import account, jobs, pictures, procfile, progress, trouble
from devstack.demo.jobs import Jobs
from devstack.demo.operator import Operator
from devstack.demo.outage import Outage
from devstack.demo.screen import Screen, shown
from devstack.emulators.client import Emulator
from devstack.stack import Stack

SERVICES = ("mariadb", "redis", "fcm", "clamd", "s3")

CLICKS = """
Open the status page first. What is wrong stands at its top: the infected upload is a warning, and the
link beside it leads to what to do. Below are the last hour in plots, then each job in a table: scans by
verdict, retention's runs, backups and drills. In Flower, click Tasks, then sort by name: scan, expire,
purge_notifications, daily, weekly, monthly and drill are there; click one for its result. In a shell,
`chat-workers audit list` shows the commands that this demo gave, `chat-workers --help` all others."""

# A person has so many notifications waiting, a conversation so many.
PER_USER, PER_CONVERSATION = 15, 6


def run(rows: int, *, keep: bool, name: str, into: Path | None = None) -> bool:
    """Run the demo with so many notifications; return whether all adds up. With `keep`, stay until Ctrl-C.

    `into`: the folder to write the README's pictures into.

    Raise StackError if a service or a process ends or cannot be had.
    """
    screen, began = Screen(record=into is not None), time.monotonic()
    screen.line("A chat's background work, by the real workers; Google and S3 are stand-ins on this machine.\n")
    with ExitStack() as running:
        with screen.phase("Start MariaDB, Redis, clamd and the stand-ins"):
            stack = running.enter_context(Stack(name, SERVICES))
        running.enter_context(_explained(stack))
        emulator = Emulator(stack.fcm.url, stack.fcm.data)
        engine = create_engine(stack.mariadb.url())
        running.callback(engine.dispose)

        with screen.phase("Make the chat's tables, and the workers' own beside them"):
            create_shared_schema(engine)
            migrate(engine)

        users, conversations = max(20, rows // PER_USER), max(40, rows // PER_CONVERSATION)
        with screen.phase(f"Load {users:,} people, {conversations:,} conversations, {rows:,} notifications to send"):
            with engine.begin() as connection:
                trouble.load(connection, users, conversations, rows)
            emulator.inject(*trouble.FAULTS)

        # Celery lets a CELERY_BROKER_URL of the caller's win over the one it is given: the nudge must not reach his workers.
        os.environ.update(stack.environment)
        variables = {**procfile.variables_for(stack), **jobs.variables(stack.folder.path)}
        with screen.phase("Start the Procfile: a worker a queue, beat, the gateway and Flower"):
            procfile.start(stack, variables)
        screen.note(f"Their logs are in {shown(stack.folder.logs)}")

        def look() -> progress.Sample:
            stack.check()
            return progress.take(engine, emulator)

        outage, nudge = Outage(emulator), partial(procfile.nudge, stack.redis.url)
        with screen.phase("Deliver, after one nudge as from the API", spinner=False) as phase:
            nudge("notifications", "drain")
            last = progress.watch(screen, look, lambda sample: sample.rows["PENDING"] or not outage.over, outage.step)
            phase.text += f": {last.accepted:,} pushes; the rest is to be tried again"

        operator = Operator(procfile.environment_of(variables), stack.check)
        others = Jobs(screen.phase, engine, operator, nudge, stack.folder.path / "uploads")
        others.run()

        with screen.phase("Try again what the stand-in for Google refused, when it said", spinner=False):
            last = progress.watch(screen, look, lambda sample: sample.unsettled)
        if last.unsettled:
            screen.line(f"\nFor {progress.STALL_SECONDS:.0f} s no row has changed; see {shown(stack.folder.logs)}\n")
        with screen.phase("Count, row by row and device by device"):
            counted = account.audit(engine, emulator)
        faults = counted.faults + others.faults

        def tell() -> None:
            account.show(screen, counted)
            screen.line("\nThe other jobs")
            for what, said in others.account:
                screen.line(f"{what:>10}  {said}")
            account.conclude(screen, counted, faults, time.monotonic() - began)

        if keep or into:
            tell()
        if into:
            pictures.take(screen, _status(variables), into)
        if keep:
            _stay(screen, stack, variables)
        with screen.phase("Stop everything") as phase:
            running.close()
            phase.text += "; nothing is left running"
    if not (keep or into):
        tell()
    return not faults


def _status(variables: dict[str, str]) -> str:
    return f"http://127.0.0.1:{variables['GATEWAY_PORT']}/status"


@contextmanager
def _explained(stack: Stack) -> Iterator[None]:
    """Raise StackError in place of a lost connection if the cause is a service that has ended."""
    try:
        yield
    except (OSError, DBAPIError, BrokerError):
        stack.check()
        raise


def _stay(screen: Screen, stack: Stack, variables: dict[str, str]) -> None:
    """Show where everything is, and wait for Ctrl-C. Raise StackError if a service or a process ends."""
    exports = stack.folder.path / "environment"
    exports.touch(mode=0o600)
    exports.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items()))
    screen.line("\nEverything is still running. Look around:")
    for what, where in {
        "status": _status(variables),
        "Flower": f"http://127.0.0.1:{variables['FLOWER_PORT']}",
        "its login": f"in {shown(stack.folder.path / 'flower-password')}",
        "database": stack.mariadb.url(),
        "emulator": f"{stack.fcm.url} (trust {shown(stack.fcm.ca_file)})",
        "its log": shown(stack.fcm.data / "accepted.jsonl"),
        "workers' logs": shown(stack.folder.logs),
        "in a shell": f"set -a; . {shlex.quote(shown(exports))}; set +a; . .venv/bin/activate",
    }.items():
        screen.line(f"  {what:<13} {where}")
    screen.line(CLICKS)
    screen.line("\nCtrl-C ends it all.")
    with suppress(KeyboardInterrupt):
        stack.watch()
    screen.line()
