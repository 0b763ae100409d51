"""Flower's set-up: never without a password, nothing of it open but /healthcheck, and it remembers what it has seen.

Flower reads `flowerconfig.py`, which asks here.
"""

import os
import sys
from pathlib import Path
from typing import Any

from celery.events.state import Task
from flower import urls
from flower.views.monitor import Metrics
from tornado.web import authenticated

from settings import ConfigurationError, Settings, get_settings
from workers.exits import exit_if_misconfigured
from workers.flower_login import login, make_password, read_users
from workers.gateway.operators import is_loopback

SAVE_MILLISECONDS = 60_000
MOST_TASKS = 20_000
FORGET_WORKERS_SECONDS = 24 * 3600
LONGEST_ARGUMENTS = 200


class ProtectedMetrics(Metrics):  # type: ignore[misc]
    """Flower's /metrics, which Flower itself shows to anyone."""

    @authenticated
    async def get(self) -> None:
        await super().get()


def options() -> dict[str, Any]:
    """Return Flower's options for the environment; stop the process with one sentence and exit code 2 if it is unusable."""
    with exit_if_misconfigured():
        settings = get_settings()
        folder = _folder(settings)
        found = {
            "address": settings.flower_address,
            "port": settings.flower_port,
            "db": str(folder / "flower.db"),
            "persistent": True,
            "state_save_interval": SAVE_MILLISECONDS,
            "max_tasks": MOST_TASKS,
            "purge_offline_workers": FORGET_WORKERS_SECONDS,
            "read_only": settings.flower_read_only,
            "natural_time": False,
            "tasks_columns": "name,args,state,received,started,runtime,worker,uuid",
            "format_task": readable,
            **_authentication(settings, folder),
        }
    _protect_metrics()
    return found


def _authentication(settings: Settings, folder: Path) -> dict[str, Any]:
    if settings.flower_basic_auth_file is not None and login(settings) == "FLOWER_BASIC_AUTH_FILE":
        return {"basic_auth": read_users(settings.flower_basic_auth_file)}
    if login(settings):
        return {}  # by variables that Flower reads itself
    if not is_loopback(settings.flower_address):
        raise ConfigurationError(
            f"FLOWER_ADDRESS {settings.flower_address} is reached by others: set FLOWER_BASIC_AUTH_FILE to a file of lines"
            " user:password (or FLOWER_AUTH and FLOWER_AUTH_PROVIDER for OAuth)"
        )
    path = folder / "flower-password"
    if not path.exists():
        make_password(path)
    print(f"Flower: user and password are in {path}", file=sys.stderr)
    return {"basic_auth": read_users(path)}


def _folder(settings: Settings) -> Path:
    """Return FLOWER_DIR, else what systemd gives the unit (StateDirectory=), else the user's own folder of this name."""
    own = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    users = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "chat-workers"
    folder = settings.flower_dir or (Path(own) if own else users)
    try:
        folder = folder.expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        raise ConfigurationError(f"FLOWER_DIR is not set, or cannot be made: {error}") from None
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        # What Flower has seen is a pickle: who may write there runs code here.
        raise ConfigurationError(
            f"FLOWER_DIR {folder} is not this user's alone; run: chown {os.geteuid()} {folder} && chmod 700 {folder}"
        )
    return folder


def _protect_metrics() -> None:
    urls.handlers[:] = [
        (handler[0], ProtectedMetrics) if isinstance(handler, tuple) and handler[1] is Metrics else handler
        for handler in urls.handlers
    ]


def readable(task: Task) -> Task:
    """Show a task's arguments as a person writes them: `12` instead of `(12,)`, nothing instead of `()`. They are ids only."""
    arguments = str(task.args or "").strip()
    if arguments.startswith("(") and arguments.endswith(")"):
        arguments = arguments[1:-1].rstrip(",")
    task.args = arguments[:LONGEST_ARGUMENTS]
    task.kwargs = "" if task.kwargs in ("{}", None) else str(task.kwargs)[:LONGEST_ARGUMENTS]
    return task
