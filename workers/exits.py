"""A process without a usable configuration ends with one sentence and exit code 2; one that has it tells systemd."""

import os
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import structlog

from settings import ConfigurationError, Settings
from tasks.words import printable

log = structlog.get_logger(__name__)

EXIT_CONFIGURATION = 2
# How alike, as difflib measures it: a letter or two of a name.
ALMOST = 0.9


@contextmanager
def exit_if_misconfigured() -> Iterator[None]:
    """End the process if the block meets a ConfigurationError."""
    try:
        yield
    except ConfigurationError as error:
        print(f"chat-workers: {printable(error)}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None


def listening_address(process: str, address: str, port: int) -> str:
    """Return the IP address of a name; end the process with a sentence and exit code 1 if it cannot listen there."""
    try:
        with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
            return str(server.getsockname()[0])
    except OSError as error:  # which may pass: another process's port, an address that comes later, a name server
        variables = f"{process.upper()}_ADDRESS={address} and {process.upper()}_PORT={port}"
        raise SystemExit(
            f"chat-workers: {process} cannot listen on {variables}: {(error.strerror or str(error)).partition(' (while')[0]}"
        ) from None


def misspelt_variables(names: Iterable[str]) -> list[str]:
    """Return which of the names are almost one of ours, with that in brackets."""
    ours = {name.upper() for name in Settings.model_fields}
    close = {name: get_close_matches(name, ours, 1, cutoff=ALMOST) for name in sorted({*names} - ours)}
    return [f"{name} ({meant[0]}?)" for name, meant in close.items() if meant]


def say_ready() -> None:
    """Tell systemd, if it is the parent, that the configuration holds (sd_notify(3)). MySQL or Redis may still be away.

    A misspelt variable is named in the log.
    """
    if misspelt := misspelt_variables(os.environ):
        log.warning("variables that nobody reads, for they seem to be misspelt", variables=misspelt)
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(b"READY=1", address.replace("@", "\0", 1))
