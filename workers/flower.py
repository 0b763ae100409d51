"""Flower's set-up: no page without a password but /healthcheck and a logout, and it remembers what it has seen.

Flower reads `flowerconfig.py`, which asks here.
"""

import os
import re
import secrets
from collections.abc import Callable
from functools import partialmethod
from hmac import compare_digest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from flower import views
from flower.views.monitor import Metrics
from tornado.httpserver import HTTPServer
from tornado.web import HTTPError, authenticated

from settings import ConfigurationError, Settings, get_settings
from tasks import files
from workers.exits import exit_if_misconfigured, listening_address, say_ready
from workers.gateway.admission import is_loopback, read_private
from workers.limits import Buckets, neighbourhood
from workers.logging import configure

log = structlog.get_logger(__name__)

SAVE_MILLISECONDS = 60_000
MOST_TASKS = 20_000
FORGET_WORKERS_SECONDS = 24 * 3600
USER = "operator"
# Tornado keeps 100 MB of a body, as long as its sender likes, before Flower asks who that is; and Flower has no option for it.
LIMITS = {"max_body_size": 64 * 1024, "body_timeout": 10.0, "idle_connection_timeout": 60.0}
_wrong = Buckets(60)
# Of other letters each browser sends its own bytes.
LOGIN = re.compile(r"[!-9;-~]+:[ -~]{12,}")


def options() -> dict[str, Any]:
    """Return Flower's options for the environment; stop the process with one sentence and exit code 2 if it is unusable."""
    Metrics.get = authenticated(Metrics.get)  # Flower itself shows it to anyone
    views.hmac = SimpleNamespace(compare_digest=_same)
    views.BaseHandler.get_current_user = _current_user
    HTTPServer.initialize = partialmethod(HTTPServer.initialize, **LIMITS)  # type: ignore[assignment,method-assign]
    with exit_if_misconfigured():
        settings = get_settings()
        configure(settings)
        try:
            folder = _folder(settings)
            authentication = _authentication(settings, folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
            raise ConfigurationError(f"FLOWER_DIR is not set, or cannot be written to: {error}") from None
    address = listening_address("flower", settings.flower_address, settings.flower_port)
    say_ready()
    return {
        "address": address,
        "port": settings.flower_port,
        "db": str(folder / "flower.db"),
        "persistent": True,
        "state_save_interval": SAVE_MILLISECONDS,
        "max_tasks": MOST_TASKS,
        "purge_offline_workers": FORGET_WORKERS_SECONDS,
        "read_only": settings.flower_read_only,
        "logging": "none",  # Tornado's own format
        "natural_time": False,
        "tasks_columns": "name,state,result,received,runtime,worker,args",
        **authentication,
    }


def _current_user(handler: Any, ask: Callable[[Any], Any] = views.BaseHandler.get_current_user) -> Any:
    """Ask Flower who that is. Only wrong logins count against an address, and a right one is never turned away for them:
    behind a proxy everyone has one address, and a stranger could otherwise lock all operators out.
    """
    try:
        return ask(handler)
    except HTTPError:
        if "Authorization" in handler.request.headers:
            if _wrong.take(address := neighbourhood(handler.request.remote_ip)):
                raise HTTPError(429, "Too many wrong logins came from your address: wait some seconds") from None
            log.warning("refused", address=address)
        raise


def _same(one: str, other: str) -> bool:
    """Compare logins as bytes: Flower compares texts, of which Python takes ASCII alone, and answers 500 to any other."""
    return compare_digest(one.encode(), other.encode())


def _folder(settings: Settings) -> Path:
    """Return FLOWER_DIR, else what systemd gives the unit (StateDirectory=), else the user's own folder of this name."""
    own = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    users = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state") / "chat-workers"
    folder = (settings.flower_dir or (Path(own) if own else users)).expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        # What Flower has seen is a pickle: who may write there runs code here.
        raise ConfigurationError(
            f"FLOWER_DIR {folder} is not this user's alone; run: chown {os.geteuid()} {folder} && chmod 700 {folder}"
        )
    return folder


def _authentication(settings: Settings, folder: Path) -> dict[str, Any]:
    if os.environ.get("FLOWER_AUTH") and os.environ.get("FLOWER_AUTH_PROVIDER"):
        return {}  # Flower reads these itself, as it does FLOWER_BASIC_AUTH
    if settings.flower_basic_auth_file is not None:
        return {"basic_auth": read_users(settings.flower_basic_auth_file)}
    if os.environ.get("FLOWER_BASIC_AUTH"):
        return {}
    if not is_loopback(settings.flower_address):
        raise ConfigurationError(
            f"FLOWER_ADDRESS {settings.flower_address} is reached by others: set FLOWER_BASIC_AUTH_FILE to a file of lines"
            " user:password (or FLOWER_AUTH and FLOWER_AUTH_PROVIDER for OAuth)"
        )
    path = folder / "flower-password"
    if not path.exists():
        with files.replacing(path) as file:
            file.write(f"{USER}:{secrets.token_urlsafe(24)}\n".encode())
    log.info("user and password are in a file", file=str(path))
    return {"basic_auth": read_users(path)}


def read_users(path: Path) -> list[str]:
    """Return the lines user:password of a file that others cannot read. Raise ConfigurationError with a sentence."""
    lines = read_private("FLOWER_BASIC_AUTH_FILE", path).split("\n")
    users = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not users or not all(map(LOGIN.fullmatch, users)):
        raise ConfigurationError(
            f"FLOWER_BASIC_AUTH_FILE {path} must hold lines user:password, in ASCII, with passwords of 12 characters or more"
        )
    return users
