"""Free TCP ports on the loopback interface, which nobody else is given while a service restarts."""

import random
import socket
from pathlib import Path

from devstack.errors import StackError

LOWEST = 15_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# A claim is a name in the kernel's abstract namespace (unix(7)), so that of several processes that prepare services at once,
# and have not begun to listen, no two are given the same port. It ends with its process.
_claims: dict[int, socket.socket] = {}


def free_port() -> int:
    """Return a port that no one listens on and that no living process has been given.

    The kernel does not give these ports to outgoing connections. Otherwise a client that retries while a service is down
    could be given the very port that it calls, connect to itself and keep the service from coming back.
    """
    highest = int(EPHEMERAL.read_text().split()[0])
    candidates = range(LOWEST, highest) if highest > LOWEST + 1000 else range(LOWEST, 65_536)
    for port in random.sample(candidates, k=500):
        if _claim(port) and _is_free(port):
            return port
    raise StackError(f"No free port was found between {candidates.start} and {candidates.stop}")


def _claim(port: int) -> bool:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0devstack-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
