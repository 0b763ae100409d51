"""Python under libfaketime: it finds this module on its path before it runs anything else.

libfaketime moves the monotonic moment that Python 3.11 sleeps until, though it was told not to, and each `time.sleep` fails
with EINVAL (https://github.com/wolfcw/libfaketime/issues/426). select(2) takes a duration, which it leaves alone.
"""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = _sleep  # type: ignore[assignment]
