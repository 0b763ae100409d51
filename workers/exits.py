"""The end of a process without a usable configuration: one sentence on stderr and exit code 2."""

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
