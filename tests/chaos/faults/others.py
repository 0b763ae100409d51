"""clamd, S3 and the disk: killed, hung, reloading, full."""

import random
import time

from tests.chaos.faults.base import Play


def kill_clamd(play: Play) -> None:
    """SIGKILL clamd and start it again."""
    play.scene.stack.clamd.kill()
    play.wait(play.chance.uniform(0, 5))
    play.scene.stack.clamd.start()


def pause_clamd(play: Play) -> None:
    """Let clamd hang."""
    play.scene.stack.clamd.pause()
    try:
        play.wait(play.chance.uniform(2, 8))
    finally:
        play.scene.stack.clamd.resume()


def reload_clamd(play: Play) -> None:
    """Bring new signatures, as freshclam does."""
    signature = f"Chaos.{random.randrange(10**6)}:0:*:{random.randbytes(16).hex()}"
    play.scene.stack.clamd.publish(27_000 + int(time.time()) % 1_000_000, signature.encode())


def pause_s3(play: Play) -> None:
    """Let the object store hang."""
    play.scene.stack.s3.pause()
    try:
        play.wait(play.chance.uniform(2, 8))
    finally:
        play.scene.stack.s3.resume()


def fill_disk(play: Play) -> None:
    """Leave no room for backups and quarantined files."""
    scene = play.scene
    scene.disk.fill(scene.disk_writers)
    try:
        play.wait(play.chance.uniform(5, 10))
    finally:
        scene.disk.make_room(scene.disk_writers)
