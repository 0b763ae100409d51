"""Values as JSON, the same wherever we print it: times in ISO 8601, nothing in it that a terminal obeys."""

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson


def json_text(value: object) -> str:
    """Return a value as JSON. Times without a zone are in UTC, written as Z; a number that JSON has not is null."""
    plain = orjson.loads(orjson.dumps(value, _plain, orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z))
    return json.dumps(plain, indent=2).replace("\x7f", r"\u007f")  # the only sign left as it is


def _plain(value: Any) -> Any:
    """Return the JSON of a value that orjson does not know, or would write otherwise."""
    match value:
        case Decimal():
            return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
        case PurePath():
            return str(value)
        case Mapping():
            return dict(value)
        case tuple():
            return list(value)
        case set() | frozenset():
            return sorted(value)
    raise TypeError
