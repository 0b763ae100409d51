"""Read `device_tokens` however the API spelled it: the devices of a row, each once, a bad entry never hiding a good one."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
from pyreqwest.http import Url

# More devices than any person owns: a row beyond it is an API fault, and would hold its neighbours up.
MOST_DEVICES = 1000
# Those that stand in a request's headers are shorter: a server that finds these too long (Apple's, past 8,000 bytes) ends the
# connection, and with it the pushes of others.
LONGEST_TOKEN = {"fcm": 4096, "apns": 1000, "webpush": 2000}
LONGEST_COLUMN = 250_000
COLUMN = f"""
    IF(/*!80000 (JSON_VALID(device_tokens) AND JSON_STORAGE_SIZE(device_tokens) >= {LONGEST_COLUMN}) OR */
       LENGTH(device_tokens) >= {LONGEST_COLUMN}, REPEAT('.', {LONGEST_COLUMN}),
       LEFT(CONVERT(device_tokens USING utf8mb4), {LONGEST_COLUMN}))
"""
"""The column in SQL: LEFT makes a text of it, alike on all servers; of one that is too long only that is told. MySQL writes a
JSON out to know its length, which took 80 ms for 5 MB of numbers: it is first asked how long it is as kept."""
# Of columns that are read together, in letters, each device as a token of FCM's: a second or two of work, whatever they hold.
MOST_READ, DEVICE_COUNTS = 10_000_000, 250

DEFAULT_PROVIDER, DEFAULT_APP = "fcm", "default"
PROVIDER_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
APP_NAME = re.compile(r"[a-z][a-z0-9_-]{0,23}")
ENVIRONMENTS = ("production", "sandbox")
HEX = re.compile("[0-9a-f]+")
# A text with these is JSON, or a piece of it; a subscription's secret may be in it.
FORBIDDEN = frozenset('"{}')

# What is no FCM token though it was written like one: posted there, Google would get what is not meant for it. A group that is
# repeated would take its time for each letter that a stranger wrote, hence without blanks.
NOT_FCM = {
    "a token of Expo's own service, which is not used here": re.compile(r"Expo(nent)?PushToken\["),
    'an APNs token that does not name its provider, "apns"': re.compile(r"<?[0-9A-Fa-f]{64,}+>?$"),
    "a Web Push endpoint without its provider and keys": re.compile(r"https?://", re.I),
}


def _hex(token: str) -> str:
    """Return an APNs token in lower case: hex has none, and some libraries print it in <> and spaces."""
    bare = "".join(token.replace("<", "").replace(">", "").split()).lower()
    return bare if HEX.fullmatch(bare) else token


def _endpoint(url: str) -> str:
    """Return a Web Push endpoint as a browser would write it, and without a fragment, which no server sees."""
    with suppress(ValueError):
        return str(Url(url.partition("#")[0]))
    return url


# One address has one spelling, by which it is known; FCM's tokens have no other.
CANONICAL: dict[str, Callable[[str], str]] = {"apns": _hex, "webpush": _endpoint}


class Device(NamedTuple):
    """One address of a recipient. `key` is `lane:hash`: what ledgers and logs show in the token's place."""

    provider: str
    token: str
    key: str
    options: Mapping[str, str] = MappingProxyType({})
    """What the provider needs beside the token, such as a Web Push subscription's keys."""

    @property
    def lane(self) -> str:
        """Its provider's app, as `lane_of` names it."""
        return self.key.partition(":")[0]


class Devices(NamedTuple):
    """The usable devices of a row, each once, and one sentence per kind of entry that was not usable."""

    usable: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()


def lane_of(provider: str, app: str) -> str:
    """Return the lane of a provider's app, which has credentials, a breaker and a rate of its own: `fcm`, or `fcm.driver`."""
    return provider if app == DEFAULT_APP else f"{provider}.{app}"


def of_lane(lane: str) -> dict[str, str]:
    """Return the provider and the app of a lane."""
    provider, _, app = lane.partition(".")
    return {"provider": provider, "app": app or DEFAULT_APP}


def device_key(lane: str, token: str) -> str:
    """Return what stands for a token wherever it must not be shown: its lane and 16 hex digits of its SHA-256."""
    return f"{lane}:{hashlib.sha256(token.encode()).hexdigest()[:16]}"


def _device(entry: Any) -> Device | str:
    options: dict[str, str] = {}
    app: Any = DEFAULT_APP
    if isinstance(entry, str) and entry.lstrip().startswith(("{", "[", '"')):
        entry = _parsed(entry)
    if isinstance(entry, str):
        provider, written = DEFAULT_PROVIDER, entry.strip()
    elif isinstance(entry, dict):
        named, given = entry.get("provider"), entry.get("token") or entry.get("endpoint")
        if named is None and "endpoint" in entry and "keys" in entry:
            named = "webpush"  # a browser's subscription as it comes
        named = named.strip().lower() if isinstance(named, str) else ""
        if not PROVIDER_NAME.fullmatch(named):
            return "an entry without a provider"
        if not isinstance(given, str):
            return "an entry without a token"
        provider, written = named, given.strip()
        options = {key: value for key, value in _flatten(entry) if key not in {"provider", "token", "endpoint"}}
        app = entry.get("app") or DEFAULT_APP
        if not isinstance(app, str) or not APP_NAME.fullmatch(app):
            return "an entry with a name of an app that none can have"
        if entry.get("environment") not in (None, "", *ENVIRONMENTS):
            return f"an entry with an environment other than {' and '.join(ENVIRONMENTS)}"
    else:
        return f"an entry that is {_json_type(entry)}, not a token"
    token = CANONICAL.get(provider, str)(written)
    if not token:
        return "an empty token"
    if len(token) > (most := LONGEST_TOKEN.get(provider, LONGEST_TOKEN[DEFAULT_PROVIDER])):
        return f"a token longer than {most} characters"
    if not token.isascii() or not token.isprintable() or not FORBIDDEN.isdisjoint(token):
        return "a token with characters no provider uses"
    bare = token.replace(" ", "") if provider == "fcm" else ""
    if provider == "apns" and not HEX.fullmatch(token):
        return "an APNs token that is not hex"
    if other := next((what for what, form in NOT_FCM.items() if form.match(bare)), None):
        return other
    lane = lane_of(provider, app)
    return Device(provider, token, device_key(lane, token), options)


def _parsed(text: str | bytes) -> Any:
    """Return what a JSON text holds, the text itself if it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _flatten(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the text members of an entry, a Web Push subscription's own two `keys` beside the others."""
    keys = entry.get("keys")
    secrets = {name: keys.get(name) for name in ("p256dh", "auth")} if isinstance(keys, dict) else {}
    return [(key, value) for key, value in {**entry, **secrets}.items() if isinstance(value, str)]


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def read_devices(column: str | bytes | None) -> Devices:
    """Return the devices in a `device_tokens` column: a JSON list of FCM tokens or `{"provider", "token"}` objects.

    The list, or an entry of it, may be a text that holds its JSON. NULL and an empty list are no fault: the recipient has no
    devices.
    """
    if column is None:
        return Devices()
    if len(column) >= LONGEST_COLUMN:
        return Devices(faults=(f"device_tokens has {LONGEST_COLUMN:,} bytes or more",))
    try:
        entries = orjson.loads(column)
    except orjson.JSONDecodeError:
        return Devices(faults=("device_tokens is not JSON",))
    if isinstance(entries, str):
        entries = _parsed(entries)
    if entries is None:
        return Devices()
    if not isinstance(entries, list):
        return Devices(faults=(f"device_tokens is {_json_type(entries)}, not a list",))
    if len(entries) > MOST_DEVICES:
        return Devices(faults=(f"device_tokens lists {len(entries)} devices, more than {MOST_DEVICES}",))
    usable: dict[str, Device] = {}
    faults: dict[str, None] = {}
    for entry in entries:
        device = _device(entry)
        if isinstance(device, str):
            faults[f"device_tokens holds {device}"] = None
        else:
            usable.setdefault(device.key, device)
    return Devices(tuple(usable.values()), tuple(faults))


def read_together(columns: Sequence[str | None]) -> list[Devices | None]:
    """Return the devices in each column, the shortest read first; None for the long ones that MOST_READ leaves for later."""
    read: list[Devices | None] = [None] * len(columns)
    left = MOST_READ
    for at in sorted(range(len(columns)), key=lambda at: len(columns[at] or "")):
        if left > 0:
            read[at] = found = read_devices(columns[at])
            left -= len(columns[at] or "") + DEVICE_COUNTS * len(found.usable)
    return read
