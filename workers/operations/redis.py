"""How the picture and the counters reach the broker's Redis: with short timeouts."""

from redis import Redis

from tasks import broker

# An answer takes a millisecond; a process that only wants to be seen must not wait for Redis.
SECONDS = 1.0


def client() -> Redis:
    """Return this process's client, which reconnects by itself."""
    return broker.shared(seconds=SECONDS)
