"""clamd, S3 and the disk: killed, hung, reloading, full."""

import time
from pathlib import Path

from tests.chaos.client import Client
from tests.chaos.faults.base import Play

# What the backups and attachments workers say of a disk that takes no more.
FULL = (b" is full", b" free and this needs", b"No space left", b"File too large")

# How often the worker is told to ask: it puts off what it is told while the folder is locked.
ASKED = 6


def kill_clamd(play: Play) -> None:
    """SIGKILL clamd and start it again."""
    play.scene.stack.clamd.kill()
    play.bit()
    play.wait(play.chance.uniform(0, 5))
    play.scene.stack.clamd.start()


def pause_clamd(play: Play) -> None:
    """Let clamd hang."""
    play.scene.stack.clamd.pause()
    play.bit()
    try:
        play.wait(play.chance.uniform(2, 8))
    finally:
        play.scene.stack.clamd.resume()


def reload_clamd(play: Play) -> None:
    """Bring new signatures, as freshclam does."""
    signature = f"Chaos.{play.chance.randrange(10**6)}:0:*:{play.chance.randbytes(16).hex()}"
    play.scene.stack.clamd.publish(27_000 + int(time.time()) % 1_000_000, signature.encode())
    play.bit()


def pause_s3(play: Play) -> None:
    """Let the object store hang while the backups worker asks it what it holds."""
    environment, s3 = play.scene.stack.environment, play.scene.stack.s3
    api = Client("s3", environment["DATABASE_URL"], environment["CELERY_BROKER_URL"])
    s3.pause()
    try:
        for _ in range(ASKED):
            api.send("tasks.backups.monthly", expires=20)
            if play.until(lambda: unread(s3.port), seconds=5):
                play.bit()
                break
        play.wait(play.chance.uniform(2, 8))
    finally:
        s3.resume()


def fill_disk(play: Play) -> None:
    """Leave no room for backups and quarantined files."""
    scene = play.scene
    logs = [scene.fleet.log(name) for name in ("backups", "attachments")]
    before = _complaints(logs)
    scene.disk.fill(scene.disk_writers)
    try:
        play.wait(play.chance.uniform(5, 10))
        play.until(lambda: _complaints(logs) > before)
        play.bit(_complaints(logs) - before)
    finally:
        scene.disk.make_room(scene.disk_writers)


def _complaints(logs: list[Path]) -> int:
    return sum(log.read_bytes().count(words) for log in logs for words in FULL)


def unread(port: int) -> bool:
    """Return whether a local port holds connections or bytes that its server has not read: the rx_queue of proc(5)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, _, queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and int(queues.partition(":")[2], 16):
            return True
    return False
