"""Read `device_tokens` strictly: the devices of a row, a bad entry never hiding a good one."""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

# More devices than any person owns: a row beyond it is an API fault, and would hold its neighbours up.
MOST_DEVICES = 1000
LONGEST_TOKEN = 4096
DEFAULT_PROVIDER, DEFAULT_APP = "fcm", "default"
PROVIDER_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")


class Device(NamedTuple):
    """One address of a recipient. `key` is `provider:hash`: what ledgers and logs show in the token's place."""

    provider: str
    token: str
    key: str
    options: Mapping[str, str] = MappingProxyType({})
    """What the provider needs beside the token, such as a Web Push subscription's keys."""

    @property
    def lane(self) -> str:
        """Whose breaker and credentials it goes through: `provider`, or `provider.app` for an app other than the default."""
        return self.key.partition(":")[0]


class Devices(NamedTuple):
    """The usable devices of a row, each once, and one sentence per kind of entry that was not usable."""

    usable: tuple[Device, ...] = ()
    faults: tuple[str, ...] = ()


def of_lane(lane: str) -> dict[str, str]:
    """Return the provider and the app of a lane: `fcm` is the app `default`'s, `fcm.driver` the app `driver`'s."""
    provider, _, app = lane.partition(".")
    return {"provider": provider, "app": app or DEFAULT_APP}


def device_key(provider: str, token: str) -> str:
    """Return what stands for a token wherever it must not be shown: the provider and 16 hex digits of its SHA-256."""
    return f"{provider}:{hashlib.sha256(token.encode()).hexdigest()[:16]}"


def _device(entry: Any) -> Device | str:
    options: dict[str, str] = {}
    if isinstance(entry, str):
        provider, token = DEFAULT_PROVIDER, entry.strip()
    elif isinstance(entry, dict):
        named, given = entry.get("provider"), entry.get("token") or entry.get("endpoint")
        if not isinstance(named, str) or not PROVIDER_NAME.fullmatch(named):
            return "an entry without a provider"
        if not isinstance(given, str):
            return "an entry without a token"
        provider, token = named, given.strip()
        options = {key: value for key, value in _flatten(entry) if key not in {"provider", "token", "endpoint"}}
    else:
        return f"an entry that is {_json_type(entry)}, not a token"
    if not token:
        return "an empty token"
    if len(token) > LONGEST_TOKEN:
        return f"a token longer than {LONGEST_TOKEN} characters"
    if not token.isascii() or not token.isprintable():
        return "a token with characters no provider uses"
    return Device(provider, token, device_key(provider, token), options)


def _flatten(entry: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the text members of an entry, those of a Web Push `keys` object beside the others."""
    keys = entry.get("keys")
    members = {**entry, **(keys if isinstance(keys, dict) else {})}
    return [(key, value) for key, value in members.items() if isinstance(value, str)]


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def read_devices(column: str | bytes | None) -> Devices:
    """Return the devices in a `device_tokens` column: a JSON list of FCM tokens or `{"provider", "token"}` objects.

    NULL and an empty list are no fault: the recipient has no devices.
    """
    if column is None:
        return Devices()
    try:
        entries = orjson.loads(column)
    except orjson.JSONDecodeError:
        return Devices(faults=("device_tokens is not JSON",))
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
