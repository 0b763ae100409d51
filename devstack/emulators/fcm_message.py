"""FCM's check of a Message against its v1 reference: the shape as one table, violations nearly in Google's words.

Source: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages. Field names are taken in both
spellings of proto3 JSON (`collapse_key`, `collapseKey`); null means unset; enum names are taken in any case.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson


class Violation(NamedTuple):
    field: str
    description: str


class Scalar(NamedTuple):
    kind: str
    fits: Callable[[Any], object]


# A field is str, bool, dict (any object), a scalar, [a repeated field], or a message: its fields by name. {"*": str} is a map.
Shape = type | Scalar | list["Shape"] | dict[str, "Shape"]

_DURATION = re.compile(r"-?\d{1,12}(\.\d{1,9})?s")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")

INT32 = Scalar("TYPE_INT32", lambda value: type(value) is int or (type(value) is str and value.lstrip("-").isdecimal()))
FLOAT = Scalar("TYPE_FLOAT", lambda value: type(value) in (int, float))
DURATION = Scalar("Duration", lambda value: type(value) is str and _DURATION.fullmatch(value))
TIMESTAMP = Scalar("Timestamp", lambda value: type(value) is str and _TIMESTAMP.fullmatch(value))
MAP: Shape = {"*": str}


def _enum(names: str) -> Scalar:
    known = frozenset(names.split())
    return Scalar("TYPE_ENUM", lambda value: type(value) is str and value.upper() in known)


def _message(fields: dict[str, Shape]) -> dict[str, Shape]:
    """Return the shape of each field in both spellings. One key of `fields` names all that share a shape."""
    by_name = {name: shape for names, shape in fields.items() for name in names.split()}
    return by_name | {re.sub(r"_(\w)", lambda part: part[1].upper(), name): shape for name, shape in by_name.items()}


_PRIORITIES = "PRIORITY_UNSPECIFIED PRIORITY_MIN PRIORITY_LOW PRIORITY_DEFAULT PRIORITY_HIGH PRIORITY_MAX"
_ANALYTICS = _message({"analytics_label": str})
_COLOR = _message({"red green blue alpha": FLOAT})
_ANDROID_NOTIFICATION = _message(
    {
        "title body icon color sound tag click_action body_loc_key title_loc_key channel_id ticker image": str,
        "sticky local_only default_sound default_vibrate_timings default_light_settings bypass_proxy_notification": bool,
        "body_loc_args title_loc_args": [str],
        "event_time": TIMESTAMP,
        "notification_priority": _enum(_PRIORITIES),
        "vibrate_timings": [DURATION],
        "visibility": _enum("VISIBILITY_UNSPECIFIED PRIVATE PUBLIC SECRET"),
        "notification_count": INT32,
        "light_settings": _message({"color": _COLOR, "light_on_duration light_off_duration": DURATION}),
        "proxy": _enum("PROXY_UNSPECIFIED ALLOW DENY IF_PRIORITY_LOWERED"),
    }
)
_ANDROID = _message(
    {
        "collapse_key restricted_package_name": str,
        "priority": _enum("NORMAL HIGH"),
        "ttl": DURATION,
        "data": MAP,
        "notification": _ANDROID_NOTIFICATION,
        "fcm_options": _ANALYTICS,
        "direct_boot_ok bandwidth_constrained_ok restricted_satellite_ok": bool,
    }
)
_APNS = _message({"headers": MAP, "payload": dict, "fcm_options": {**_ANALYTICS, "image": str}, "live_activity_token": str})
_WEBPUSH = _message({"headers data": MAP, "notification": dict, "fcm_options": {**_ANALYTICS, "link": str}})
TARGETS = ("token", "fid", "topic", "condition")
_MESSAGE = _message(
    {
        "name token fid topic condition": str,
        "data": MAP,
        "notification": _message({"title body image": str}),
        "android": _ANDROID,
        "apns": _APNS,
        "webpush": _WEBPUSH,
        "fcm_options": _ANALYTICS,
    }
)
_REQUEST = _message({"message": _MESSAGE, "validate_only": bool})


def violations_of(request: Any) -> list[Violation]:
    """Return what is wrong with the shape of the decoded body of messages:send."""
    violations: list[Violation] = []
    _check(request, _REQUEST, "", violations)
    return violations


def _check(value: Any, shape: Shape, path: str, violations: list[Violation]) -> None:
    if isinstance(shape, dict) and type(value) is dict:
        for position, (name, item) in enumerate(value.items()):
            field = shape.get(name) or shape.get("*")
            if type(item) is field or (type(field) is Scalar and field.fits(item)):
                continue  # nearly all fields of every request
            if "*" in shape:
                _check(item, shape["*"], f"{path}[{position}].value", violations)
            elif field is None:
                at = f" at '{path}'" if path else ""
                text = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
                violations.append(Violation(path, text))
            elif item is not None:
                _check(item, field, f"{path}.{name}" if path else name, violations)
    elif isinstance(shape, list) and type(value) is list:
        for position, item in enumerate(value):
            _check(item, shape[0], f"{path}[{position}]", violations)
    elif not (shape.fits(value) if isinstance(shape, Scalar) else type(value) is shape):
        kind = shape.kind if isinstance(shape, Scalar) else "TYPE_STRING" if shape is str else "TYPE_MESSAGE"
        violations.append(Violation(path, f"Invalid value at '{path}' ({kind}), {orjson.dumps(value).decode()}"))
