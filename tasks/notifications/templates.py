"""Templates: what an app adds to its messages by type and provider, checked against the fields that the vendors document.

Ids, tokens, collapse keys, badge, lifetime and priority stay ours, so they are in no table here. Sources:
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages,
https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification,
https://developer.mozilla.org/docs/Web/API/ServiceWorkerRegistration/showNotification
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

PLACEHOLDERS = ("conversation_id", "conversation_uuid", "message_id", "sender_id", "title", "body", "type")
PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
# Keys of a push's data: our own, and those that FCM and APNs keep for themselves.
TAKEN = re.compile(
    r"aps|from|message_type|(google|gcm).*|notification_id|message_uuid|tag|thread|badge|silent|channel_id|withdrawn|"
    + "|".join(PLACEHOLDERS)
)


class Field(NamedTuple):
    """A field: the kind of value that it takes, in words, and the test of one."""

    kind: str
    fits: Callable[[Any], object]


def _one_of(words: str) -> Field:
    return Field(f"one of {', '.join(words.split())}", words.split().__contains__)


def _list_of(field: Field) -> Field:
    return Field(f"a list, each of it {field.kind}", lambda value: isinstance(value, list) and all(map(field.fits, value)))


def _table_of(kind: str, needed: tuple[str, ...], fields: dict[str, Field]) -> Field:
    def fits(value: Any) -> bool:
        named = isinstance(value, dict) and {*needed} <= value.keys() <= fields.keys()
        return named and all(fields[key].fits(inner) for key, inner in value.items())

    return Field(kind, fits)


def _fields(names: str, field: "Field | Fields") -> "Fields":
    return dict.fromkeys(names.split(), field)


ProviderName = Literal["fcm", "apns", "webpush"]
Fields = dict[str, "Field | Fields"]
"""A table's fields by name; `*` stands for any that is not taken."""

TEXT = Field("a text", lambda value: isinstance(value, str))
FLAG = Field("true or false", lambda value: isinstance(value, bool))
ONE = Field("1", lambda value: type(value) is int and value == 1)
SHARE = Field("a number from 0 to 1", lambda value: type(value) in (int, float) and 0 <= value <= 1)
NUMBER = Field("a whole number", lambda value: type(value) is int)
URL = Field("an https:// address", lambda value: isinstance(value, str) and value.startswith("https://"))
COLOR = Field("a colour as in #00ff7f", lambda value: isinstance(value, str) and re.fullmatch(r"#[0-9A-Fa-f]{6}", value))
DURATION = Field("seconds as in 3.5s", lambda value: isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?s", value))
LABEL = Field(
    "up to 50 of letters, digits and -_.~%", lambda v: isinstance(v, str) and re.fullmatch(r"[A-Za-z0-9\-_.~%]{1,50}", v)
)
ACTION = _table_of("a table of action, title and icon", ("action", "title"), dict.fromkeys(("action", "title", "icon"), TEXT))
CRITICAL = _table_of("a table of critical, name and volume", (), {"critical": ONE, "name": TEXT, "volume": SHARE})
ANALYTICS: Fields = {"analytics_label": LABEL}
APS: Fields = {
    "alert": {
        **_fields("title subtitle body launch-image title-loc-key subtitle-loc-key loc-key", TEXT),
        **_fields("title-loc-args subtitle-loc-args loc-args", _list_of(TEXT)),
    },
    "sound": Field(f"a text, or {CRITICAL.kind}", lambda value: isinstance(value, str) or CRITICAL.fits(value)),
    **_fields("category target-content-id filter-criteria", TEXT),
    **_fields("mutable-content content-available", ONE),
    "interruption-level": _one_of("passive active time-sensitive critical"),
    "relevance-score": SHARE,
}
WEB_NOTIFICATION: Fields = {
    **_fields("title body lang icon image", TEXT),
    **_fields("renotify requireInteraction", FLAG),
    "dir": _one_of("auto ltr rtl"),
    "vibrate": _list_of(NUMBER),
    "timestamp": NUMBER,
    "actions": _list_of(ACTION),
}
ANDROID: Fields = {
    "restricted_package_name": TEXT,
    **_fields("direct_boot_ok bandwidth_constrained_ok restricted_satellite_ok", FLAG),
    "data": {"*": TEXT},
    "notification": {
        **_fields("title body icon sound click_action channel_id ticker title_loc_key body_loc_key", TEXT),
        **_fields("title_loc_args body_loc_args", _list_of(TEXT)),
        **_fields("sticky local_only default_sound default_vibrate_timings default_light_settings", FLAG),
        "color": COLOR,
        "image": URL,
        "vibrate_timings": _list_of(DURATION),
        "notification_priority": _one_of("PRIORITY_MIN PRIORITY_LOW PRIORITY_DEFAULT PRIORITY_HIGH PRIORITY_MAX"),
        "visibility": _one_of("PRIVATE PUBLIC SECRET"),
        "proxy": _one_of("ALLOW DENY IF_PRIORITY_LOWERED"),
        "light_settings": {
            "color": _fields("red green blue alpha", SHARE),
            **_fields("light_on_duration light_off_duration", DURATION),
        },
    },
    "fcm_options": ANALYTICS,
}
FIELDS: dict[ProviderName, Fields] = {
    "fcm": {
        "data": {"*": TEXT},
        "notification": {"title": TEXT, "body": TEXT, "image": URL},
        "android": ANDROID,
        "apns": {"payload": {"aps": APS, "*": TEXT}, "fcm_options": {**ANALYTICS, "image": URL}},
        "webpush": {"notification": {**WEB_NOTIFICATION, "badge": TEXT}, "fcm_options": {**ANALYTICS, "link": URL}},
        "fcm_options": ANALYTICS,
    },
    "apns": {"aps": APS, "*": TEXT},
    "webpush": {**WEB_NOTIFICATION, "link": TEXT, "data": {"*": TEXT}},
}


def faults(table: Mapping[str, Any], fields: Fields, path: str) -> Iterator[str]:
    """Yield what is wrong with a template, a sentence for each key, which `path` leads to."""
    for key, value in table.items():
        where = f"{path}.{key}"
        field = fields.get(key) or (None if TAKEN.fullmatch(key) else fields.get("*"))
        if field is None:
            yield f"{where} is no field that a template may set; {path} has {', '.join(fields)}"
        elif isinstance(field, Field):
            texts: list[str] = []
            _each_text(value, texts.append)
            if not field.fits(value):
                yield f"{where} is not {field.kind}"
            elif strange := [text for text in texts if re.search(r"[{}]", PLACEHOLDER.sub("", text))]:
                yield f"{where} holds {strange[0]!r}; what may stand in braces is {', '.join(PLACEHOLDERS)}"
        elif isinstance(value, dict):
            yield from faults(value, field, where)
        else:
            yield f"{where} is no table"


def merge(message: dict[str, Any], template: Mapping[str, Any], words: Mapping[str, str]) -> dict[str, Any]:
    """Put the template into the message, its placeholders filled; return the message."""
    for key, value in template.items():
        if isinstance(value, dict):
            there = message.get(key)
            message[key] = merge(there if isinstance(there, dict) else {}, value, words)
        else:
            message[key] = _each_text(value, lambda text: PLACEHOLDER.sub(lambda found: words.get(found[1], ""), text))
    return message


def _each_text(value: Any, change: Callable[[str], Any]) -> Any:
    """Return the value with `change` done to each text in it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_text(inner, change) for key, inner in value.items()}
    return [_each_text(inner, change) for inner in value] if isinstance(value, list) else value
