"""How a burst of nudges becomes one drain: a run that begins takes those that wait out of the queue.

Every row that such a nudge was sent for is committed by then, and the run has yet to claim. A nudge that comes later stays in
the queue, for the run after this one. If the run dies, its own message runs again; if that is lost too, beat's tick comes.

Only what workers.messages.contract would let pass is taken; whatever else waits is left to it, to be kept, counted and said.
"""

import json
from base64 import b64encode
from itertools import product

import structlog
from redis.exceptions import RedisError

from tasks import broker

log = structlog.get_logger(__name__)

QUEUE = "notifications"
TASK = "tasks.notifications.drain"
ANSWER_SECONDS = 2.0
# Oldest first. Redis does nothing else during a look at so many, about 30 us each; others have their turn between the looks.
LOOKED_AT = 2_000
MOST_LOOKS = 5

# Narrower than the contract: a nudge that is left for being spelled in an odd way costs a drain, a bad one taken is lost.
# cjson knows neither Python's numbers, nor UTF-8, nor {} from []; so these are looked at as text.
# Workers take from the list's end. What is left is put back there at once, which LREM could not do in linear time.
TAKE = r"""
    local queue, task, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
    local bodies = {}
    for i = 3, #ARGV do bodies[ARGV[i]] = true end

    local function null(value) return value == nil or value == cjson.null end
    local function text(value) return null(value) or type(value) == 'string' end
    local function flag(value) return null(value) or type(value) == 'boolean' end
    local function word(value) return type(value) == 'string' and #value > 0 and #value < 256 end
    local function nothing(value) return type(value) == 'table' and next(value) == nil end
    local function spelled(raw, name, pattern)
      for _, colon in ipairs({'": ', '":'}) do
        local _, last = string.find(raw, '"' .. name .. colon, 1, true)
        if last then return string.find(raw, pattern .. '[,}]', last + 1) end
      end
    end
    local function digit(value, raw, name)
      return null(value) or (type(value) == 'number' and spelled(raw, name, '^%d'))
    end
    local function seconds(value, raw, name)
      return null(value) or (type(value) == 'number' and spelled(raw, name, '^[1-9]%d*%.%d+'))
    end
    local function zero(value, raw, name) return value == nil or (value == 0 and digit(value, raw, name)) end
    local function moment(value)
      if null(value) then return true end
      local month, day, hour, minute, second, rest = string.match(
        value, '^20%d%d%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$')
      local zone = string.match(rest, '^%.%d%d%d%d%d%d(.*)$') or string.match(rest, '^%.%d%d%d(.*)$') or rest
      local last = ({31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[tonumber(month)]
      return last and tonumber(day) > 0 and tonumber(day) <= last and tonumber(hour) < 24 and tonumber(minute) < 60
        and tonumber(second) < 60 and (zone == 'Z' or zone == '+00:00')
    end
    local function limit(value)
      return value == 'null' or string.find(value, '^[1-9]%d?%d?%d?$')
    end
    local function limits(value, raw, name)
      if null(value) then return true end
      local _, _, hard, soft = spelled(raw, name, '^%[(%w+), ?(%w+)%]')
      return hard and limit(hard) and limit(soft)
    end

    local parts = {
      body = word, headers = function() return true end, properties = function() return true end,
      ['content-type'] = function(value) return value == 'application/json' end,
      ['content-encoding'] = function(value) return null(value) or value == 'utf-8' or value == 'UTF-8' end,
    }
    local headers = {
      task = function(value) return value == task end, id = word, retries = zero, eta = null, expires = moment,
      timelimit = limits, compression = null, ignore_result = flag, redelivered = flag, replaced_task_nesting = zero,
      group_index = null, lang = text, meth = text, origin = text, shadow = null, root_id = text, parent_id = text,
      group = text, argsrepr = text, kwargsrepr = text, headers = null, stamped_headers = null,
      stamps = function(value, raw, name) return null(value) or (nothing(value) and spelled(raw, name, '^{}')) end,
      traceparent = text, tracestate = text, baggage = text, sent_at = seconds,
    }
    local info = {
      exchange = function(value) return value == '' or value == queue end,
      routing_key = function(value) return value == queue end, redelivered = flag,
    }
    local properties = {
      delivery_tag = word, delivery_info = function() return true end, delivery_mode = digit, priority = digit,
      body_encoding = function(value) return null(value) or value == 'base64' or value == 'utf-8' end,
    }

    local function all(found, checks, other, raw)
      for name, value in pairs(found) do
        if not (checks[name] or other)(value, raw, name) then return false end
      end
      return true
    end

    local function sound(raw)
      if #raw > 32768 or not string.find(raw, '^[ -~]*$') or string.find(raw, '\\u', 1, true) then return false end
      local message = cjson.decode(raw)
      local found, where = message.headers, message.properties.delivery_info
      return bodies[(message.properties.body_encoding == 'base64' and 'base64 ' or 'text ') .. message.body]
        and message['content-type'] and found.task and found.id and message.properties.delivery_tag
        and where.exchange and where.routing_key
        and all(message, parts, null, raw) and all(found, headers, null, raw)
        and all(message.properties, properties, text, raw) and all(where, info, null, raw)
    end

    local waiting, left = redis.call('LRANGE', queue, -most, -1), {}
    for _, raw in ipairs(waiting) do
      local decoded, taken = pcall(sound, raw)
      if not (decoded and taken) then left[#left + 1] = raw end
    end
    if #left < #waiting then
      redis.call('LTRIM', queue, 0, -#waiting - 1)
      for first = 1, #left, 1000 do
        redis.call('RPUSH', queue, unpack(left, first, math.min(first + 999, #left)))
      end
    end
    return {#waiting - #left, #waiting}
"""


def _bodies() -> list[str]:
    """Return what a body may look like that asks for a drain without arguments, as Celery, celery-node and others write it."""
    options: tuple[dict[str, None] | None, ...] = (None, {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord")))
    texts = [
        json.dumps([[], {}, asked], separators=separators) for asked, separators in product(options, ((", ", ": "), (",", ":")))
    ]
    return [f"text {text}" for text in texts] + [f"base64 {b64encode(text.encode()).decode()}" for text in texts]


BODIES = _bodies()


def take_waiting() -> int:
    """Remove the nudges that wait in the queue now; return how many. Where Redis is away, they stay."""
    taken = 0
    try:
        for _ in range(MOST_LOOKS):
            found, waiting = broker.shared(seconds=ANSWER_SECONDS).eval(TAKE, 1, QUEUE, TASK, LOOKED_AT, *BODIES)
            taken += found
            if not found or waiting < LOOKED_AT:
                break
    except RedisError as error:
        log.warning("nudges not coalesced", error=str(error))
    return taken
