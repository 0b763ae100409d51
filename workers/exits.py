"""A process without a usable configuration ends with one sentence and exit code 2; one that has it tells systemd."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from settings import ConfigurationError
from tasks.words import printable

EXIT_CONFIGURATION = 2


@contextmanager
def exit_if_misconfigured() -> Iterator[None]:
    """End the process if the block meets a ConfigurationError."""
    try:
        yield
    except ConfigurationError as error:
        print(f"chat-workers: {printable(error)}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None


def say_ready() -> None:
    """Tell systemd, if it is the parent, that the configuration holds (sd_notify(3)). MySQL or Redis may still be away."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(b"READY=1", address.replace("@", "\0", 1))
