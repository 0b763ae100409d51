"""`python -m workers.gateway`: serve on GATEWAY_ADDRESS:GATEWAY_PORT until SIGTERM."""

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from settings import get_settings
from workers import logging
from workers.exits import exit_if_misconfigured, listening_address, say_ready


def main() -> None:
    """Serve; a configuration fault is one sentence and exit code 2."""
    with exit_if_misconfigured():
        settings = get_settings()
    logging.configure(settings)
    address = listening_address("gateway", settings.gateway_address, settings.gateway_port)
    say_ready()
    Granian(
        "workers.gateway.app:make_app",
        factory=True,
        interface=Interfaces.ASGI,
        address=address,
        port=settings.gateway_port,
        http=HTTPModes.http1,
        websockets=False,
        # Connections in the kernel's queue, and open ones: half of the usual limit of 1024 files.
        backlog=1024,
        backpressure=512,
        # Headers: no longer than this, and there within 10 s; that is also how long an idle connection is kept.
        http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=64 * 1024),
        # A client that does not read, or a SIGTERM in the first moments, which the worker never sees, would keep it for ever.
        workers_kill_timeout=10,
        # Log lines are this project's own (workers.logging), in one format for all processes.
        log_enabled=False,
    ).serve()


if __name__ == "__main__":
    main()
