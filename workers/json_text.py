"""Values as JSON, the same wherever we print it: times in ISO 8601 with Z, nothing in it that a terminal obeys."""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any


def json_text(value: object) -> str:
    """Return a value as JSON. Times without a zone are in UTC; the parts of a tuple that is a key are joined by spaces."""
    return json.dumps(_plain(value), indent=2, allow_nan=False).replace("\x7f", r"\u007f")  # the only sign left as it is


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case datetime():
            return (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat() + "Z"
        case date():
            return value.isoformat()
        case Decimal() if value == value.to_integral_value():
            return int(value)
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case PurePath():
            return str(value)
        case Mapping():
            return {_key(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case set() | frozenset():
            return sorted(map(_plain, value))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _key(key: Any) -> str:
    return " ".join(str(part) for part in key if part) if isinstance(key, tuple) else str(_plain(key))
