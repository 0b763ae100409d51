"""`python -m workers.beat`: beat, started again whenever it ends, so that one Redis outage does not end the clock.

RedBeat's holder ends itself when Redis goes away and when it finds that its lock was taken over, which is right; but honcho
ends every process once one of them has ended. So beat runs in a child, and this process answers for it.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

import structlog
from redis.exceptions import LockError, RedisError

from settings import get_settings
from workers.exits import EXIT_CONFIGURATION, exit_if_misconfigured
from workers.logging import configure

log = structlog.get_logger("workers.beat")

CHILD = "--child"
# Pauses before the next start; whoever ran for longer than the longest begins with the shortest again.
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 15.0
# Between asking beat to end, which frees its lock, and forcing it.
STOP_SECONDS = 10.0

STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Keep beat running until a signal asks to stop. A configuration fault ends with one sentence and exit code 2."""
    with exit_if_misconfigured():
        configure(get_settings())
    if CHILD in sys.argv[1:]:
        _beat()
    raise SystemExit(_supervise([sys.executable, "-m", "workers.beat", CHILD]))


def _supervise(command: list[str]) -> int:
    """Run the command again and again; return the exit code for this process once a signal has come, or nothing can help."""
    awaited = {*STOPS, signal.SIGCHLD}
    # Blocked signals wait until they are asked for, so that none falls between two lines.
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    pause = SHORTEST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        child = _start(command, awaited)
        while child.poll() is None:
            if signal.sigwait(awaited) in STOPS:
                return _stop(child)
        if child.returncode == EXIT_CONFIGURATION:
            return EXIT_CONFIGURATION
        if time.monotonic() - began > LONGEST_PAUSE_SECONDS:
            pause = SHORTEST_PAUSE_SECONDS
        log.warning("beat has ended and is started again", status=child.returncode, in_seconds=pause)
        if signal.sigtimedwait(STOPS, pause):
            return 0
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _start(command: list[str], blocked: set[signal.Signals]) -> "subprocess.Popen[bytes]":
    parent = os.getpid()

    def prepare() -> None:
        # However this process ends, no beat goes on without it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)

    # In a session of its own: a signal to the whole group would reach it twice and cut the freeing of its lock short.
    return subprocess.Popen(command, start_new_session=True, preexec_fn=prepare)


def _stop(child: "subprocess.Popen[bytes]") -> int:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return 0


def _beat() -> NoReturn:
    from celery.signals import beat_init

    from workers.app import app

    for name in ("celery.beat", "celery.utils.dispatch.signal"):
        logging.getLogger(name).addFilter(_without_traceback)
    try:
        _say_if_nothing_is_remembered(app)
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


def _say_if_nothing_is_remembered(app: Any) -> None:
    """Say so if Redis has no schedule of an earlier beat: then it is not known what fell due meanwhile, and it is not sent."""
    from redbeat.schedulers import ensure_conf, get_redis

    if not get_redis(app).exists(ensure_conf(app).statics_key):
        log.warning(
            "Redis knows of no earlier beat: the first start, or Redis has lost its data; what fell due before now is not"
            " sent, each entry begins with its next time (chat-workers schedule run sends one at once)"
        )


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep one line of an outage of Redis, which is not a fault of this code."""
    if record.exc_info and isinstance(record.exc_info[1], RedisError):
        record.exc_info = None
    return True


if __name__ == "__main__":
    main()
