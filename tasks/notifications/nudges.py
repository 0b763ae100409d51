"""Coalesce nudges: a drain that begins takes those that wait out of the queue, so that a burst of them costs one drain.

Every row that such a nudge was sent for is committed by then, and the drain has yet to claim. A nudge that comes later stays in
the queue, for the next drain. If this one dies, its own message runs again; if that is lost too, beat's tick comes.
"""

import structlog
from redis.exceptions import RedisError

from tasks import broker

log = structlog.get_logger(__name__)

QUEUE = "notifications"
TASK = "tasks.notifications.drain"
ANSWER_SECONDS = 2.0
# Oldest first, up to one that is longer than any of ours: Redis does nothing else meanwhile, for some milliseconds, or a third
# of a second where somebody else put so many and long ones there.
LOOKED_AT, LONGEST_BYTES = 10_000, 4096
# How Celery, the gateway and celery-node name the task. Quotation marks within a text are escaped, so this is no part of one. A
# nudge that says it in another way costs one more drain; one that is taken has got its wish, whatever else is in it.
NAMED = (f'"task": "{TASK}"', f'"task":"{TASK}"')

# Workers take from the list's end. What is left is put back there at once, which LREM could not do in linear time.
TAKE = """
    local left, looked = {}, 0
    while looked < tonumber(ARGV[1]) do
      local raw = redis.call('LINDEX', KEYS[1], -looked - 1)
      if not raw or #raw > tonumber(ARGV[2]) then break end
      looked = looked + 1
      if not (string.find(raw, ARGV[3], 1, true) or string.find(raw, ARGV[4], 1, true)) then left[#left + 1] = raw end
    end
    if #left < looked then
      redis.call('LTRIM', KEYS[1], 0, -looked - 1)
      for last = #left, 1, -1 do redis.call('RPUSH', KEYS[1], left[last]) end
    end
    return looked - #left
"""


def take_waiting() -> int:
    """Remove the nudges that wait in the queue now; return how many. Where Redis is away, they stay."""
    try:
        return int(broker.shared(seconds=ANSWER_SECONDS).eval(TAKE, 1, QUEUE, LOOKED_AT, LONGEST_BYTES, *NAMED))
    except RedisError as error:
        log.warning("nudges not coalesced", error=str(error))
        return 0
