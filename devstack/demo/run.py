"""The order of events: services, tables, a chat, the Procfile's processes, a nudge, and the count at the end."""

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack.chat import load_chat
from devstack.demo import progress, summary, trouble
from devstack.demo.audit import audit
from devstack.demo.processes import Processes, nudge
from devstack.demo.screen import Screen, shown
from devstack.emulators.client import Emulator
from devstack.errors import StackError
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
            _load(engine, rows, users, conversations)
            emulator.inject(*trouble.FAULTS)

        # Celery lets a CELERY_BROKER_URL of the caller's win over the one it is given: the nudge must not reach his workers.
        os.environ.update(stack.environment)
        processes = Processes(stack.environment, stack.mariadb.folder.log("processes"))
        with screen.phase(f"Start the Procfile: {', '.join(processes.names)}"):
            running.enter_context(processes)
            processes.await_ready()
        screen.note(f"Their log is {shown(processes.log)}")

        def look() -> progress.Sample:
            if why := _failure(stack) or processes.failure():
                raise StackError(why)
            return progress.take(engine, emulator)

        with screen.phase("Deliver, after one nudge as from the API", spinner=False) as phase:
            nudge(stack.redis.url)
            last = progress.watch(screen, look)
            phase.text += f": {last.accepted:,} pushes"
        if last.unsettled:
            screen.line(f"\nFor {progress.STALL_SECONDS:.0f} s no row has changed. {processes.log_ends()}\n")

        with screen.phase("Count, row by row and device by device"):
            account = audit(engine, emulator)

        if keep:
            summary.show(screen, account, time.monotonic() - began)
            _stay(screen, stack, processes)
        with screen.phase("Stop everything") as phase:
            running.close()
            phase.text += "; nothing is left running"
    if not keep:
        summary.show(screen, account, time.monotonic() - began)
    return not account.faults()


def _load(engine: Engine, rows: int, users: int, conversations: int) -> None:
    with engine.begin() as connection:
        load_chat(
            connection,
            users=users,
            conversations=conversations,
            notifications=rows,
            bad_tokens=trouble.BAD_TOKENS,
            foreign_tokens=trouble.FOREIGN_TOKENS,
        )
        trouble.make(connection)


@contextmanager
def _explained(stack: Stack) -> Iterator[None]:
    """Where a service has ended, say so, instead of what its end did to whoever was talking to it."""
    try:
        yield
    except (OSError, DBAPIError, BrokerError):
        if why := _failure(stack):
            raise StackError(why) from None
        raise


def _failure(stack: Stack) -> str | None:
    services = (stack.mariadb, stack.redis, stack.fcm)
    return "\n".join(failure for service in services if (failure := service.failure())) or None


def _stay(screen: Screen, stack: Stack, processes: Processes) -> None:
    """Show where everything is, and wait for Ctrl-C. Raise StackError if a service or a process ends."""
    variables = stack.mariadb.folder.path / "environment"
    variables.touch(mode=0o600)
    variables.write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in processes.environment.items()))
    screen.line("\nEverything is still running. Look around:")
    for what, where in {
        "status": f"{processes.gateway}/status",
        "Flower": f"{processes.flower} (user and password in {shown(processes.log.parent / 'flower-password')})",
        "database": stack.mariadb.url(),
        "emulator": f"{stack.fcm.url} (trust {shown(stack.fcm.ca_file)})",
        "its log": shown(stack.fcm.data / "accepted.jsonl"),
        "workers' log": shown(processes.log),
        "in a shell": f"set -a; . {shlex.quote(shown(variables))}; set +a; . .venv/bin/activate",
    }.items():
        screen.line(f"  {what:<13} {where}")
    screen.line("\nCtrl-C ends it all.")
    with suppress(KeyboardInterrupt):
        while not (why := _failure(stack) or processes.failure()):
            time.sleep(0.5)
        raise StackError(why)
    screen.line()
