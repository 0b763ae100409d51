"""The browsers of Web Push: number i has the same keys in every process and every run.

Nothing here is secret: both the sender (endpoint, p256dh, auth) and the emulator's browsers (the private key) derive
their part from the number, so that a test or the demo can subscribe any number of browsers without asking.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PATH_PREFIX = "/push/"

_TOKEN = re.compile(r"subscription-(0|[1-9][0-9]{0,8})")
# Any scalar below the order of P-256 is a private key; 31 bytes are always below it.
_SCALAR_BYTES = 31
_AUTH_BYTES = 16


class WebPushSubscription(NamedTuple):
    """A browser's subscription: RFC 8030's endpoint and RFC 8291's keys, in base64url without padding."""

    endpoint: str
    p256dh: str
    auth: str


class Browser(NamedTuple):
    """The receiving side of a subscription."""

    private_key: ec.EllipticCurvePrivateKey
    auth: bytes


def subscription(base_url: str, number: int) -> WebPushSubscription:
    """Given the emulator's URL and a number >= 0, return that subscription."""
    token = f"subscription-{number}"
    receiver = _derived(token)
    point = receiver.private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return WebPushSubscription(f"{base_url}{PATH_PREFIX}{token}", encode(point), encode(receiver.auth))


def browser(token: str) -> Browser | None:
    """Given the last part of an endpoint, return its browser, or None if there is no such subscription."""
    return _derived(token) if _TOKEN.fullmatch(token) else None


def encode(value: bytes) -> str:
    """Given bytes, return base64url without padding, as both RFCs write keys."""
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Given base64url with or without padding, return the bytes. Raise ValueError if it is neither."""
    return urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


@lru_cache(maxsize=100_000)
def _derived(token: str) -> Browser:
    scalar = sha256(f"private key of {token}".encode()).digest()[:_SCALAR_BYTES]
    secret = sha256(f"auth secret of {token}".encode()).digest()[:_AUTH_BYTES]
    return Browser(ec.derive_private_key(int.from_bytes(scalar), ec.SECP256R1()), secret)
