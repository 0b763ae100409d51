"""How a burst of nudges becomes one drain: a run that begins takes those that wait out of the queue.

Every row that such a nudge was sent for is committed by then, and the run has yet to claim. A nudge that comes later stays in
the queue, for the run after this one. If the run dies, its own message runs again; if that is lost too, beat's tick comes.
"""

import structlog
from redis.exceptions import RedisError

from tasks import broker

log = structlog.get_logger(__name__)

QUEUE = "notifications"
ANSWER_SECONDS = 2.0
# Oldest first, at most so many a run: Redis does nothing else meanwhile, about 3 us each.
MOST_TAKEN = 10_000

# Workers take from the list's end. Messages of other tasks stay; LREM passes over no more than those.
TAKE = """
    local taken, waiting = 0, redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)
    for i = #waiting, 1, -1 do
      if string.find(waiting[i], '"task"%s*:%s*"tasks%.notifications%.drain"') then
        taken = taken + redis.call('LREM', KEYS[1], -1, waiting[i])
      end
    end
    return taken
"""


def take_waiting() -> int:
    """Remove the nudges that wait in the queue now; return how many. Where Redis is away, they stay."""
    try:
        return int(broker.shared(seconds=ANSWER_SECONDS).eval(TAKE, 1, QUEUE, MOST_TAKEN))
    except RedisError as error:
        log.warning("nudges not coalesced", error=str(error))
        return 0
