"""The receiver of events: the URL of EVENTS_URL, and the signature that it can verify (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
import time
from pathlib import Path

import orjson

from settings import ConfigurationError, Settings
from tasks.events.deliver import MOST_AT_ONCE
from tasks.events.queue import Event, Refusal
from tasks.http import NoAnswerError, Server, retry_after

CALL_SECONDS = 10.0
LONGEST_RETRY_AFTER_SECONDS = 3600
LARGEST_FILE_BYTES = 4096
PREFIX = "whsec_"
KEY_BYTES = range(24, 65)


class Receiver:
    """Who is called with events. A secret that is changed in the file holds for the next one made."""

    def __init__(self, settings: Settings) -> None:
        """Read the secrets. Raise ConfigurationError."""
        if settings.events_url is None or settings.events_secret_file is None:
            raise ConfigurationError("EVENTS_URL and EVENTS_SECRET_FILE are not both set: nobody is called (docs/api.md)")
        self._keys = read_secrets(settings.events_secret_file)
        self._server = Server("EVENTS_URL", settings.events_url, private_network=True, connections=MOST_AT_ONCE)

    def send(self, event: Event) -> Refusal | None:
        """POST an event, signed by each of the secrets; return why it was not taken, None if it was."""
        body, name, stamp = orjson.dumps(event.told()), f"evt_{event.number}", str(int(time.time()))
        digests = [hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256) for key in self._keys]
        signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
        headers = {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": signatures}
        try:
            answer = self._server.post({**headers, "Content-Type": "application/json"}, body, CALL_SECONDS)
        except NoAnswerError as error:
            return Refusal(str(error))
        if 200 <= answer.status < 300:
            return None
        asked = retry_after(answer.headers.get("Retry-After"), LONGEST_RETRY_AFTER_SECONDS)
        return Refusal(f"EVENTS_URL answered with status {answer.status}", asked or 0.0)


def read_secrets(path: Path) -> list[bytes]:
    """Return the secrets of EVENTS_SECRET_FILE, a line each. Raise ConfigurationError with a sentence that shows none."""
    try:
        with path.open("rb") as file:
            lines = file.read(LARGEST_FILE_BYTES).decode().split()
        keys = [base64.b64decode(line.removeprefix(PREFIX), validate=True) for line in lines if line.startswith(PREFIX)]
    except OSError as error:
        raise ConfigurationError(f"EVENTS_SECRET_FILE cannot be read: {error}") from None
    except ValueError:
        keys = []
    if not keys or len(keys) < len(lines) or any(len(key) not in KEY_BYTES for key in keys):
        raise ConfigurationError("EVENTS_SECRET_FILE must hold whsec_ and the base64 of 24 to 64 random bytes, a line each")
    return keys
