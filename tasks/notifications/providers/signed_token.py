"""The ES256 tokens that APNs and Web Push take for credentials: signed here, kept for a while, signed again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from settings import ConfigurationError


def read_key(path: Path, variable: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 private key in a PEM file. Raise ConfigurationError naming `variable` where there is none."""
    # Loaded by who has a key, before a worker forks: 20 ms, with all of X.509, that no push has to wait for.
    import_module("jwt")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{variable} names an unusable file: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError(f"{variable} names a key that is not an EC key on P-256")
    return key


# A token that was signed under a wrong clock is refused for as long as that was ahead.
STEP_SECONDS = 30


@dataclass(slots=True)
class SignedToken:
    """A token signed anew every `seconds`, and when the wall clock was set; `claims` is called each time with that clock's."""

    key: ec.EllipticCurvePrivateKey
    claims: Callable[[int], dict[str, object]]
    seconds: float
    headers: dict[str, str] | None = None
    _token: str = ""
    _signed_at: float = 0
    _clock_offset: float = 0

    def get(self) -> str:
        """Return a token that is younger than its time."""
        now, offset = time.monotonic(), time.time() - time.monotonic()
        if not self._token or now - self._signed_at >= self.seconds or abs(offset - self._clock_offset) > STEP_SECONDS:
            import jwt

            self._token = jwt.encode(self.claims(int(time.time())), self.key, algorithm="ES256", headers=self.headers)
            self._signed_at, self._clock_offset = now, offset
        return self._token

    def reject(self, token: str, *, oldest: float) -> None:
        """Note that `token` was refused: sign another, unless it is younger than `oldest` seconds."""
        if token == self._token and time.monotonic() - self._signed_at >= oldest:
            self._token = ""
