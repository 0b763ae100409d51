"""The client with which tests, the demo and benchmarks inject faults into an emulator, and read its counts and its log."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
import requests

from devstack.emulators import apns, webpush
from devstack.emulators.certificates import CA_FILE
from devstack.emulators.log import FILE_NAME, Accepted
from devstack.emulators.oauth import SERVICE_ACCOUNT_FILE
from devstack.emulators.subscriptions import WebPushSubscription, subscription

ProviderName = Literal["fcm", "apns", "webpush", "oauth"]


class EmulatorError(Exception):
    """The emulator refused a command; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A rule that says which requests fail, how, and how often.

    `token` is a device token, or what it begins with and a `*`; for oauth it is the client_email. A rule that is injected
    later wins. `times` hits each token's first attempts only; `probability` is drawn per attempt from `seed`, whatever the
    order of arrival. `latency` (s) delays the answer, `retry_after` (s) goes into its header. The kinds are the keys of each
    provider's FAULTS table.
    """

    kind: str
    provider: ProviderName = "fcm"
    token: str = "*"  # noqa: S105 - a pattern
    times: int | None = None
    probability: float = 1.0
    seed: int = 0
    latency: float = 0.0
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the start or the last reset; by provider, where "oauth" is the token endpoint."""

    in_flight: int
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    per_second: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """(Unix second, requests that arrived in it), seconds without any left out."""
    resets: list[tuple[str, float]] = field(default_factory=list)
    """(connection, Unix time) of each connection that was reset on purpose."""

    def requests(self, provider: ProviderName = "fcm") -> int:
        return sum(self.outcomes.get(provider, {}).values())

    def count(self, outcome: str, provider: ProviderName = "fcm") -> int:
        return self.outcomes.get(provider, {}).get(outcome, 0)


class Emulator:
    """A client of the emulator with this base URL and folder."""

    def __init__(self, base_url: str, folder: Path) -> None:
        self.base_url = base_url.rstrip("/")
        self.folder = folder
        self._session = requests.Session()
        # Loopback needs no proxy, and the environment's CA bundle must not replace ours.
        self._session.trust_env = False
        self._read_to = 0

    @property
    def ca_file(self) -> Path:
        return self.folder / CA_FILE

    @property
    def service_account_file(self) -> Path:
        return self.folder / SERVICE_ACCOUNT_FILE

    @property
    def apns_key_file(self) -> Path:
        return self.folder / apns.KEY_FILE

    @property
    def vapid_key_file(self) -> Path:
        return self.folder / webpush.KEY_FILE

    @property
    def environment(self) -> dict[str, str]:
        """The variables that turn APNs and Web Push on, sent to this emulator and signed with keys that it knows."""
        return {
            "APNS_KEY_FILE": str(self.apns_key_file),
            "APNS_KEY_ID": apns.KEY_ID,
            "APNS_TEAM_ID": apns.TEAM_ID,
            "APNS_TOPIC": apns.TOPIC,
            "APNS_BASE_URL": self.base_url,
            "VAPID_KEY_FILE": str(self.vapid_key_file),
            "VAPID_SUBJECT": "mailto:ops@example.com",
            "WEBPUSH_HOSTS": urlsplit(self.base_url).netloc,
        }

    def web_push_subscription(self, number: int) -> WebPushSubscription:
        """Given a number >= 0, return that browser's subscription: the same keys in every run."""
        return subscription(self.base_url, number)

    def inject(self, *faults: Fault) -> list[int]:
        """Given faults, add them as rules and return their ids. Raise EmulatorError if a kind is unknown."""
        ids: list[int] = self._call("POST", "faults", [asdict(fault) for fault in faults])["ids"]
        return ids

    def clear(self, *ids: int) -> None:
        """Given the ids of rules, remove them; given none, remove every rule."""
        for path in [f"faults/{rule_id}" for rule_id in ids] or ["faults"]:
            self._call("DELETE", path)

    def hits(self) -> dict[int, int]:
        """Return how many requests each rule has hit, by its id."""
        return {rule["id"]: rule["hits"] for rule in self._call("GET", "faults")}

    def stats(self) -> Stats:
        return Stats(**self._call("GET", "stats"))

    def set(self, *, latency: float | None = None, token_lifetime: float | None = None) -> None:
        """Set the seconds added to every answer, the lifetime of bearers given out from now on, or both."""
        given = {"latency": latency, "token_lifetime": token_lifetime}
        self._call("POST", "settings", {name: value for name, value in given.items() if value is not None})

    def go_offline(self, token: str) -> None:
        """Take the Android phone with this FCM token offline, until `come_back`."""
        self._call("POST", "offline", {"token": token})

    def come_back(self, token: str) -> list[dict[str, Any]]:
        """Return what the phone shows of the messages that were sent to it meanwhile."""
        shown: list[dict[str, Any]] = self._call("POST", "online", {"token": token})["shown"]
        return shown

    def revoke_tokens(self) -> None:
        """Make every OAuth bearer given out so far unknown, as after a key was withdrawn."""
        self._call("POST", "revoke")

    def reset(self) -> None:
        """Empty the log, zero the counters, clear the faults, restore the settings."""
        self._call("POST", "reset")
        self._read_to = 0

    def accepted(self) -> Iterator[Accepted]:
        """Yield every message of the log, oldest first. Works on a stopped emulator's folder too."""
        return (accepted for _, accepted in self._read(0))

    def newly_accepted(self) -> Iterator[Accepted]:
        """Yield the messages that this client has not yielded from this method since the last reset."""
        for offset, accepted in self._read(self._read_to):
            self._read_to = offset
            yield accepted

    def _read(self, offset: int) -> Iterator[tuple[int, Accepted]]:
        """Yield each message from a byte offset on, with the offset after it."""
        with suppress(requests.ConnectionError):  # a stopped emulator has flushed its log
            self._call("GET", "ready")
        with (self.folder / FILE_NAME).open("rb") as log:
            log.seek(offset)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                yield offset, Accepted(**orjson.loads(line))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        url = f"{self.base_url}/_control/{path}"
        data = None if body is None else orjson.dumps(body)
        response = self._session.request(method, url, data=data, verify=str(self.ca_file), timeout=10)
        if response.status_code != requests.codes.ok:
            raise EmulatorError(f"{method} {url}: {response.status_code} {response.text}")
        return response.json()
