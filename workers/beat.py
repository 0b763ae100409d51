"""`python -m workers.beat`: Celery's beat, which logs and starts like the other processes."""

import logging

from redis.exceptions import RedisError

from settings import get_settings
from workers.app import app
from workers.exits import say_ready
from workers.logging import configure


def main() -> None:
    """Run beat until a signal ends it. A configuration fault has ended the process before, in workers.app, with exit code 2."""
    configure(get_settings())
    say_ready()
    logging.getLogger("celery.beat").addFilter(_without_traceback)
    app.Beat(quiet=True).run()


def _without_traceback(record: logging.LogRecord) -> bool:
    """Keep one line of an outage of Redis, which is not a fault of this code."""
    if record.exc_info and isinstance(record.exc_info[1], RedisError):
        record.exc_info = None
    return True


if __name__ == "__main__":
    main()
