"""The Procfile's processes, started beside the services of a stack."""

import os
import sys
import time
from pathlib import Path

from celery import Celery
from honcho.environ import parse_procfile

from devstack.errors import StackError
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.probe import http_status
from devstack.stack import Stack

COMMANDS: dict[str, str] = parse_procfile((PROJECT / "Procfile").read_text()).processes
READY_SECONDS = 60.0

# All that is kept of the caller's environment: its DATABASE_URL, proxies and Firebase account are none of the demo's business.
KEPT = ("HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


def environment_of(variables: dict[str, str]) -> dict[str, str]:
    """Return the environment of the Procfile's processes and of the commands beside them: these variables, and few others."""
    kept = {key: os.environ[key] for key in KEPT if key in os.environ}
    # The Procfile names its programs as an activated environment would have them.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**kept, **variables, "PATH": path}


def variables_for(stack: Stack) -> dict[str, str]:
    """Return the variables that point the processes at the services, with free ports for Flower and the gateway."""
    ports = {f"{server}_PORT": str(free_port()) for server in ("FLOWER", "GATEWAY")}
    addresses = {"FLOWER_ADDRESS": "127.0.0.1", "GATEWAY_ADDRESS": "127.0.0.1"}
    return {**stack.environment, **addresses, **ports, "FLOWER_DIR": str(stack.folder.path)}


def start(stack: Stack, variables: dict[str, str]) -> None:
    """Start the processes and wait until a worker and Flower answer. Raise StackError if one ends or it takes too long."""
    for name, command in COMMANDS.items():
        stack.run(name, ["sh", "-c", f"exec {command}"], environment_of(variables))
    deadline = time.monotonic() + READY_SECONDS
    with Celery(broker=variables["CELERY_BROKER_URL"], set_as_current=False) as api:
        while not (_flower_answers(variables) and api.control.ping(timeout=0.5)):
            stack.check()
            if time.monotonic() > deadline:
                raise StackError(f"no worker or no Flower answers after {READY_SECONDS:.0f} s; see {stack.folder.logs}")
            time.sleep(0.1)


def nudge(broker: str, job: str, task: str, *arguments: int) -> None:
    """Ask for a task as the API does, which shares no code with the workers: by its name."""
    with Celery(broker=broker, set_as_current=False) as api:
        api.send_task(f"tasks.{job}.{task}", arguments, queue=job, ignore_result=True)


def _flower_answers(variables: dict[str, str]) -> bool:
    return http_status(int(variables["FLOWER_PORT"]), "GET", "/healthcheck") == 200
