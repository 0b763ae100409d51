"""`python -m workers.beat`: beat, started again whenever it ends, so that one Redis outage does not end the clock.

RedBeat's holder ends itself when Redis goes away and when it finds that its lock was taken over, which is right; but honcho
ends every process once one of them has ended. So beat runs in a child, and this process answers for it.
"""

import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any, NoReturn

import structlog

from settings import get_settings
from workers.exits import EXIT_CONFIGURATION, exit_if_misconfigured, say_ready
from workers.logging import configure

log = structlog.get_logger("workers.beat")

CHILD_OF = "--child-of"
# Before the next start: a start costs a second of CPU, and an outage may last.
PAUSE_SECONDS = 5.0
# Between asking beat to end, which frees its lock, and ending without it, whereupon the kernel kills it.
STOP_SECONDS = 10.0

STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
AWAITED = {*STOPS, signal.SIGCHLD}


def main() -> None:
    """Keep beat running until a signal asks to stop. A configuration fault ends with one sentence and exit code 2."""
    with exit_if_misconfigured():
        configure(get_settings())
    if sys.argv[1:2] == [CHILD_OF]:
        _beat(int(sys.argv[2]))
    say_ready()
    raise SystemExit(_supervise())


def _supervise() -> int:
    """Run beat again and again; return the exit code once a signal has come, or the configuration is at fault."""
    # Blocked signals wait until they are asked for, so that none falls between two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    # However this process ends, no beat goes on without it: the kernel kills the child.
    command = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "workers.beat", CHILD_OF, str(os.getpid())]
    while True:
        # In a session of its own: a signal to the whole group would reach it twice and cut the freeing of its lock short.
        child = subprocess.Popen(command, start_new_session=True)
        while child.poll() is None:
            if signal.sigwait(AWAITED) in STOPS:
                child.terminate()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(STOP_SECONDS)
                return 0
        if child.returncode == EXIT_CONFIGURATION:
            return EXIT_CONFIGURATION
        log.warning("beat has ended and is started again", status=child.returncode, in_seconds=PAUSE_SECONDS)
        if signal.sigtimedwait(STOPS, PAUSE_SECONDS):
            return 0


def _beat(supervisor: int) -> NoReturn:
    if os.getppid() != supervisor:
        raise SystemExit(1)  # it died before the kernel was told to kill this process with it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    # The child alone needs these; the process that answers for it stays small.
    from celery.signals import beat_init
    from redbeat.schedulers import get_redis
    from redis.exceptions import LockError, RedisError

    from workers.app import app

    for name in ("celery.beat", "celery.utils.dispatch.signal"):
        logging.getLogger(name).addFilter(_without_traceback)
    try:
        get_redis(app).ping()
        # Called after RedBeat's own receiver, which waits for the lock: it was connected when redbeat was imported.
        beat_init.connect(_say_that_it_is_our_turn, weak=False)
        app.Beat(quiet=True).run()
    except LockError as error:
        log.warning("beat ends: its lock was taken over, or Redis has lost it", reason=str(error))
        raise SystemExit(1) from None
    except RedisError as error:
        log.error("beat ends: it cannot go on without Redis", reason=f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None
    raise SystemExit(0)


def _say_that_it_is_our_turn(sender: Any, **_: Any) -> None:
    if not sender.scheduler.lock:
        # Celery has swallowed and logged what RedBeat's receiver met; only what is no Exception gets past it.
        log.error("beat ends: its lock could not be taken")
        raise SystemExit(1)
    log.info("this beat holds the lock and sends; others stand by")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep one line of an outage of Redis, which is not a fault of this code."""
    from redis.exceptions import RedisError

    if record.exc_info and isinstance(record.exc_info[1], RedisError):
        record.exc_info = None
    return True


if __name__ == "__main__":
    main()
