"""Redis: killed with and without its data, emptied, full, hung, stuttering."""

import shutil
import time

from redis import Redis

from tests.chaos.faults.base import Play


def kill(play: Play) -> None:
    """SIGKILL it and start it again with its append-only file."""
    play.scene.stack.redis.kill()
    play.bit()
    play.wait(play.chance.uniform(0, 4))
    play.scene.stack.redis.start()


def lose(play: Play) -> None:
    """SIGKILL it and start it again without its data, as a fail-over to an empty replica does."""
    redis = play.scene.stack.redis
    redis.kill()
    play.bit()
    for path in redis.data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    play.wait(play.chance.uniform(0, 2))
    redis.start()


def flush(play: Play) -> None:
    """FLUSHALL: messages, beat's schedule and its lock are gone, connections stay."""
    with _client(play) as redis:
        play.bit(int(redis.dbsize()))
        redis.flushall()


def fill(play: Play) -> None:
    """Refuse all writes for want of memory."""
    with _client(play) as redis:
        before = _refused(redis)
        redis.config_set("maxmemory", 1_000_000)
        try:
            play.wait(play.chance.uniform(3, 8))
            play.until(lambda: _refused(redis) > before)
            play.bit(_refused(redis) - before)
        finally:
            redis.config_set("maxmemory", 0)


def pause(play: Play) -> None:
    """Let it hang."""
    play.scene.stack.redis.pause()
    play.bit()
    try:
        play.wait(play.chance.uniform(2, 8))
    finally:
        play.scene.stack.redis.resume()


def stutter(play: Play) -> None:
    """Make it slow."""
    ends_at = time.monotonic() + play.chance.uniform(3, 8)
    while time.monotonic() < ends_at and not play.over.is_set():
        play.scene.stack.redis.pause()
        play.bit()
        try:
            play.wait(0.2)
        finally:
            play.scene.stack.redis.resume()
        play.wait(0.05)


def _refused(redis: Redis) -> int:
    """Return how many writes it has refused for want of memory."""
    return int(redis.info("errorstats").get("errorstat_OOM", {}).get("count", 0))


def _client(play: Play) -> Redis:
    return Redis.from_url(play.scene.stack.redis.url, socket_timeout=20)
