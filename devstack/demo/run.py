"""The demo's order of events: services, tables, a chat, the Procfile's processes, a nudge, and the count at the end."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import DBAPIError

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.demo import account, procfile, progress, trouble
from devstack.demo.screen import Screen, shown
from devstack.emulators.client import Emulator
from devstack.stack import Stack

SERVICES = ("mariadb", "redis", "fcm")

# A person has so many notifications waiting, a conversation so many.
PER_USER, PER_CONVERSATION = 15, 6


def run(rows: int, *, keep: bool, name: str) -> bool:
    """Run the demo with so many notifications; return whether all adds up. With `keep`, stay until Ctrl-C.

    Raise StackError if a service or a process ends or cannot be had.
    """
    screen, began = Screen(), time.monotonic()
    screen.line("A chat's pushes, sent by the real workers to a stand-in for Google's service.\n")
    with ExitStack() as running:
        with screen.phase("Start MariaDB, Redis and the emulator of Firebase Cloud Messaging"):
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
        variables = procfile.variables_for(stack)
        with screen.phase(f"Start the Procfile: {', '.join(procfile.COMMANDS)}"):
            procfile.start(stack, variables)
        screen.note(f"Their logs are in {shown(stack.folder.logs)}")

        def look() -> progress.Sample:
            stack.check()
            return progress.take(engine, emulator)

        with screen.phase("Deliver, after one nudge as from the API", spinner=False) as phase:
            procfile.nudge(stack.redis.url)
            last = progress.watch(screen, look)
            phase.text += f": {last.accepted:,} pushes"
        if last.unsettled:
            screen.line(f"\nFor {progress.STALL_SECONDS:.0f} s no row has changed; see {shown(stack.folder.logs)}\n")

        with screen.phase("Count, row by row and device by device"):
            counted = account.audit(engine, emulator)

        if keep:
            account.show(screen, counted, time.monotonic() - began)
            _stay(screen, stack, variables)
        with screen.phase("Stop everything") as phase:
            running.close()
            phase.text += "; nothing is left running"
    if not keep:
        account.show(screen, counted, time.monotonic() - began)
    return not counted.faults


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
        "status": f"http://127.0.0.1:{variables['GATEWAY_PORT']}/status",
        "Flower": f"http://127.0.0.1:{variables['FLOWER_PORT']} "
        f"(user and password in {shown(stack.folder.path / 'flower-password')})",
        "database": stack.mariadb.url(),
        "emulator": f"{stack.fcm.url} (trust {shown(stack.fcm.ca_file)})",
        "its log": shown(stack.fcm.data / "accepted.jsonl"),
        "workers' logs": shown(stack.folder.logs),
        "in a shell": f"set -a; . {shlex.quote(shown(exports))}; set +a; . .venv/bin/activate",
    }.items():
        screen.line(f"  {what:<13} {where}")
    screen.line("\nCtrl-C ends it all.")
    with suppress(KeyboardInterrupt):
        stack.watch()
    screen.line()
