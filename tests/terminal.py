"""A pseudo-terminal of 80 columns, also where /dev has none, as in a bare root."""

import os
import struct
import subprocess
import tempfile
import termios
from fcntl import ioctl

UNLOCK, NUMBER = 0x40045431, 0x80045430  # TIOCSPTLCK, TIOCGPTN; ioctl_tty(2)


def open_terminal() -> tuple[int, int]:
    """Return the file descriptors of both ends: ours, and the program's."""
    try:
        ours, its = os.openpty()
    except OSError:
        ours, its = _from_own_devpts()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return ours, its


def _from_own_devpts() -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0600", "devpts", folder], check=True)
        try:
            ours = os.open(f"{folder}/ptmx", os.O_RDWR | os.O_NOCTTY)
            ioctl(ours, UNLOCK, struct.pack("i", 0))
            (number,) = struct.unpack("i", ioctl(ours, NUMBER, struct.pack("i", 0)))
            return ours, os.open(f"{folder}/{number}", os.O_RDWR | os.O_NOCTTY)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
