"""Values as JSON, the same wherever we print it: times in ISO 8601 with Z, nothing in it that a terminal obeys."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson


def json_text(value: object) -> str:
    """Return a value as JSON. Times without a zone are in UTC; a number that JSON has not is null."""
    plain = orjson.loads(orjson.dumps(value, _plain, orjson.OPT_PASSTHROUGH_DATETIME))
    return json.dumps(plain, indent=2).replace("\x7f", r"\u007f")  # the only sign left as it is


def _plain(value: Any) -> Any:
    """Return the JSON of a value that orjson does not know, or would write otherwise."""
    match value:
        case datetime():
            return f"{(value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()}Z"
        case date():
            return value.isoformat()
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
