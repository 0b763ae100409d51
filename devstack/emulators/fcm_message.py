"""Whether JSON is a Message as FCM's v1 reference defines it: the shape as one table, violations in Google's words.

Source: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages. Field names are taken in both
spellings of proto3 JSON (`collapse_key`, `collapseKey`); null means unset; enum names are taken in any case.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

_API = "type.googleapis.com/google.firebase.fcm.v1"
_DURATION_TYPE = "type.googleapis.com/google.protobuf.Duration"
_DURATION = re.compile(r"-?\d{1,12}(\.\d{1,9})?s")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


class Violation(NamedTuple):
    field: str
    description: str


Check = Callable[[Any, str, list[Violation]], None]


def _bad(value: Any, path: str, kind: str, violations: list[Violation], note: str = "") -> None:
    shown = note or orjson.dumps(value).decode()
    violations.append(Violation(path, f"Invalid value at '{path}' ({kind}), {shown}"))


def string(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not str:
        _bad(value, path, "TYPE_STRING", violations)


def boolean(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not bool:
        _bad(value, path, "TYPE_BOOL", violations)


def int32(value: Any, path: str, violations: list[Violation]) -> None:
    digits = type(value) is str and value.lstrip("-").isdecimal()
    if type(value) is not int and not digits:
        _bad(value, path, "TYPE_INT32", violations)


def number(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) not in (int, float):
        _bad(value, path, "TYPE_FLOAT", violations)


def struct(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not dict:
        _bad(value, path, "type.googleapis.com/google.protobuf.Struct", violations)


def duration(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not str or not _DURATION.fullmatch(value):
        field = path.rpartition(".")[2]
        note = f"Field '{field}', Illegal duration format; duration must end with 's'"
        _bad(value, path, _DURATION_TYPE, violations, note)


def timestamp(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not str or not _TIMESTAMP.fullmatch(value):
        note = f"Field '{path.rpartition('.')[2]}', Invalid time format: Failed to parse input"
        _bad(value, path, "type.googleapis.com/google.protobuf.Timestamp", violations, note)


def string_map(value: Any, path: str, violations: list[Violation]) -> None:
    if type(value) is not dict:
        _bad(value, path, "Map", violations)
        return
    for position, item in enumerate(value.values()):
        if type(item) is not str:
            string(item, f"{path}[{position}].value", violations)


def one_of(type_name: str, *names: str) -> Check:
    known = frozenset(names)

    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if type(value) is not str or value.upper() not in known:
            _bad(value, path, f"{_API}.{type_name}", violations)

    return check


def repeated(item: Check) -> Check:
    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if type(value) is not list:
            string(value, path, violations)
            return
        for position, element in enumerate(value):
            item(element, f"{path}[{position}]", violations)

    return check


def message(type_name: str, fields: Mapping[str, Check]) -> Check:
    """Given a message's fields in snake case, return the check of a JSON object against them, in both spellings."""
    known = {**fields, **{_camel(name): check for name, check in fields.items()}}

    def check(value: Any, path: str, violations: list[Violation]) -> None:
        if type(value) is not dict:
            _bad(value, path, f"{_API}.{type_name}", violations)
            return
        for name, item in value.items():
            field = known.get(name)
            if field is None:
                at = f" at '{path}'" if path else ""
                text = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
                violations.append(Violation(path, text))
            elif item is not None:
                field(item, f"{path}.{name}" if path else name, violations)

    return check


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


_ANALYTICS = {"analytics_label": string}
_COLOR = message("Color", {"red": number, "green": number, "blue": number, "alpha": number})
_LIGHT = message("LightSettings", {"color": _COLOR, "light_on_duration": duration, "light_off_duration": duration})
_PRIORITIES = (
    "PRIORITY_UNSPECIFIED",
    "PRIORITY_MIN",
    "PRIORITY_LOW",
    "PRIORITY_DEFAULT",
    "PRIORITY_HIGH",
    "PRIORITY_MAX",
)
_VISIBILITIES = ("VISIBILITY_UNSPECIFIED", "PRIVATE", "PUBLIC", "SECRET")
_PROXIES = ("PROXY_UNSPECIFIED", "ALLOW", "DENY", "IF_PRIORITY_LOWERED")

_ANDROID_NOTIFICATION = {
    "title": string,
    "body": string,
    "icon": string,
    "color": string,
    "sound": string,
    "tag": string,
    "click_action": string,
    "body_loc_key": string,
    "body_loc_args": repeated(string),
    "title_loc_key": string,
    "title_loc_args": repeated(string),
    "channel_id": string,
    "ticker": string,
    "sticky": boolean,
    "event_time": timestamp,
    "local_only": boolean,
    "notification_priority": one_of("AndroidNotification.NotificationPriority", *_PRIORITIES),
    "default_sound": boolean,
    "default_vibrate_timings": boolean,
    "default_light_settings": boolean,
    "vibrate_timings": repeated(duration),
    "visibility": one_of("AndroidNotification.Visibility", *_VISIBILITIES),
    "notification_count": int32,
    "light_settings": _LIGHT,
    "image": string,
    "bypass_proxy_notification": boolean,
    "proxy": one_of("AndroidNotification.Proxy", *_PROXIES),
}
_ANDROID = {
    "collapse_key": string,
    "priority": one_of("AndroidConfig.AndroidMessagePriority", "NORMAL", "HIGH"),
    "ttl": duration,
    "restricted_package_name": string,
    "data": string_map,
    "notification": message("AndroidNotification", _ANDROID_NOTIFICATION),
    "fcm_options": message("AndroidFcmOptions", _ANALYTICS),
    "direct_boot_ok": boolean,
    "bandwidth_constrained_ok": boolean,
    "restricted_satellite_ok": boolean,
}
_APNS = {
    "headers": string_map,
    "payload": struct,
    "fcm_options": message("ApnsFcmOptions", {**_ANALYTICS, "image": string}),
    "live_activity_token": string,
}
_WEBPUSH = {
    "headers": string_map,
    "data": string_map,
    "notification": struct,
    "fcm_options": message("WebpushFcmOptions", {**_ANALYTICS, "link": string}),
}
TARGETS = ("token", "fid", "topic", "condition")
_MESSAGE = {
    "name": string,
    "token": string,
    "fid": string,
    "topic": string,
    "condition": string,
    "data": string_map,
    "notification": message("Notification", {"title": string, "body": string, "image": string}),
    "android": message("AndroidConfig", _ANDROID),
    "apns": message("ApnsConfig", _APNS),
    "webpush": message("WebpushConfig", _WEBPUSH),
    "fcm_options": message("FcmOptions", _ANALYTICS),
}
_check_request = message("SendMessageRequest", {"message": message("Message", _MESSAGE), "validate_only": boolean})


def violations_of(request: Any) -> list[Violation]:
    """Given the decoded body of messages:send, return what is wrong with its shape; nothing is an empty list."""
    violations: list[Violation] = []
    _check_request(request, "", violations)
    return violations
