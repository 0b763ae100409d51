"""`python -m workers.beat`: beat, which starts itself anew whenever it ends, so that one Redis outage does not end the clock.

RedBeat's holder ends itself when Redis goes away and when it finds that its lock was taken over, which is right; but honcho
ends every process once one of them has ended. So the process stays, and its program begins anew.
"""

import logging
import os
import signal
import sys
import time

import structlog
from redbeat.schedulers import get_redis
from redis.exceptions import LockError, RedisError

from settings import get_settings
from workers.app import app
from workers.exits import say_ready
from workers.logging import configure

log = structlog.get_logger("workers.beat")

# Before the next start: a start costs a second of CPU, and an outage may last.
PAUSE_SECONDS = 5.0


def main() -> None:
    """Run beat until a signal ends it. A configuration fault has ended the process before, in workers.app, with exit code 2."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())  # until Celery has a handler of its own, which frees the lock
    configure(get_settings())
    say_ready()
    for name in ("celery.beat", "celery.utils.dispatch.signal"):
        logging.getLogger(name).addFilter(_without_traceback)
    try:
        get_redis(app).ping()
        app.Beat(quiet=True).run()
        return
    except LockError as error:
        log.warning("beat ends: its lock was taken over, or Redis has lost it", reason=str(error))
    except RedisError as error:
        log.error("beat ends: it cannot go on without Redis", reason=f"{type(error).__name__}: {error}")
    except Exception:
        log.exception("beat ends by a fault")
    log.warning("beat has ended and is started again", in_seconds=PAUSE_SECONDS)
    time.sleep(PAUSE_SECONDS)
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - no shell is needed


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep one line of an outage of Redis, which is not a fault of this code."""
    if record.exc_info and isinstance(record.exc_info[1], RedisError):
        record.exc_info = None
    return True


if __name__ == "__main__":
    main()
