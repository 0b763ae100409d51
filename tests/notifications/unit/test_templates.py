"""An app's form of its messages: templates, Android style, channels and privacy, by the emulators' own check of the shape."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from devstack.emulators.fcm_message import violations_of
from tasks.notifications.apps import App, FcmSection
from tasks.notifications.payload import MOST_BYTES, build_push, fit
from tasks.notifications.providers import apns, webpush
from tasks.notifications.providers.apns import Apns
from tasks.notifications.providers.fcm import Fcm, encode
from tasks.notifications.providers.webpush import WebPush
from tasks.notifications.templates import FIELDS, Field, Fields

from .made import NOW, a_notification

SECTION = FcmSection(service_account=Path("/none"), channel_id="chat", silent_channel_id="quiet")
# One of these fits each field.
SAMPLES: tuple[Any, ...] = (
    "{title}: {body} {conversation_id}", "https://chat.example/{conversation_uuid}", "#00ff7f", "3.5s", "label", "PRIVATE",
    "PRIORITY_HIGH", "DENY", "active", "rtl", True, 1, 0.5, ["{body}", "b"], ["1s"], [100, 200],
    [{"action": "reply", "title": "Reply"}],
)  # fmt: skip


def every_field(fields: Fields, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field]]:
    for name, field in fields.items():
        if isinstance(field, Field):
            yield (*path, "custom" if name == "*" else name), field
        else:
            yield from every_field(field, (*path, name))


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: nested(path[1:], value) if path[1:] else value}


def made(kind: Any, app: App) -> Any:
    """A provider of the app without credentials: it prepares, and sends nothing."""
    provider = kind.__new__(kind)
    provider.app, provider._topic = app, "com.example.chat"
    return provider


def fcm(app: App, **changes: Any) -> dict[str, Any]:
    push = build_push(a_notification(**changes), NOW, app)
    message: dict[str, Any] = orjson.loads(encode(push, push.body, app))
    assert violations_of({"message": {**message, "token": "phone"}}) == []
    return message


@pytest.mark.parametrize("style", ["data", "notification"])
def test_every_field_of_a_template_is_one_that_fcm_takes(style: str) -> None:
    tried = 0
    for path, field in every_field(FIELDS["fcm"]):
        if style == "data" and (path[0] == "notification" or path[:2] == ("android", "notification")):
            continue
        value = next(sample for sample in SAMPLES if field.fits(sample))
        fcm(App(android=style, templates={"ALL": {"fcm": nested(path, value)}}))
        tried += 1
    assert tried > 30


def test_a_types_table_takes_the_place_of_a_text_for_all() -> None:
    critical = {"critical": 1, "name": "horn", "volume": 0.5}
    of = {"ALL": "ping", "MENTION": critical}
    app = App(templates={name: {"apns": {"aps": {"sound": sound}}} for name, sound in of.items()})
    for kind, sound in (("MENTION", critical), ("MESSAGE", "ping")):
        push = build_push(a_notification(notification_type=kind), NOW, app)
        assert apns._payload(push, "", app)["aps"]["sound"] == sound


@pytest.mark.parametrize("style", ["data", "notification"])
def test_a_recipient_with_sound_off_gets_the_silent_channel_whatever_the_template_says(style: str) -> None:
    loud: Mapping[str, Any] = {
        "apns": {"payload": {"aps": {"sound": "horn"}}},
        "webpush": {"notification": {"vibrate": [1]}},
        "android": {"data": {"x": "1"}},
    }
    app = App(android=style, fcm=SECTION, templates={"ALL": {"fcm": loud}})
    for sound, channel in ((True, "chat"), (False, "quiet")):
        message = fcm(app, sound=sound)
        assert message["android"]["data" if style == "data" else "notification"]["channel_id"] == channel
        assert message["apns"]["payload"]["aps"].get("sound") == ("horn" if sound else None)
        assert ("vibrate" in message["webpush"]["notification"]) == sound
        assert message["webpush"]["notification"].get("silent", False) is not sound


@pytest.mark.parametrize(
    ("content", "title", "body"),
    [
        ("full", "New message from Ana", "When can you deliver?"),
        ("sender", "New message from Ana", "New message"),
        ("none", "New message", ""),
    ],
)
def test_the_lock_screen_gets_as_much_as_the_app_shows(content: str, title: str, body: str) -> None:
    app = App(content=content, templates={"ALL": {"apns": {"aps": {"alert": {"subtitle": "{body}"}}}}})
    push = build_push(a_notification(), NOW, app)
    assert fcm(app)["notification"] == {"title": title, "body": body}
    assert apns._payload(push, push.body, app)["aps"]["alert"] == {"title": title, "body": body, "subtitle": body}
    assert push.data["notification_id"] == "7"


def test_a_long_body_that_a_template_repeats_still_fits() -> None:
    repeated = {"android": {"data": {"copy": "{body}"}}, "apns": {"payload": {"copy": "{body} {body}"}}}
    app = App(android="data", templates={"ALL": {"fcm": repeated}})
    push = build_push(a_notification(body="🚚" * 3000), NOW, app)
    message = fit(push.body, lambda body: encode(push, body, app))
    assert len(message) <= MOST_BYTES
    assert len(orjson.loads(message)["apns"]["payload"]["aps"]["alert"]["body"]) > 50


def test_the_longest_title_fits_the_data_style_beside_templates() -> None:
    app = App(android="data", templates={name: {"fcm": {"data": {name: "x" * 600}}} for name in ("ALL", "MESSAGE")})
    message = (
        made(Fcm, app).prepare(build_push(a_notification(title="🚚" * 255, body="🚚" * 900, id=2**63 - 1), NOW, app)) + b"}"
    )
    assert len(message) <= MOST_BYTES
    assert orjson.loads(message)["apns"]["payload"]["aps"]["alert"]["title"].startswith("🚚" * 50)


REPEATED = {
    "fcm": {"data": {"a": "{title} {title}", "b": "{title}"}},
    "apns": {"aps": {"alert": {"subtitle": "{title}"}}, "a": "{title}: {body}", "b": "{title}"},
    "webpush": {"link": "/c?t={title}", "data": {"a": "{title}", "b": "{title}"}},
}


@pytest.mark.parametrize("title", ["🚚" * 255, "\x01" * 255], ids=["trucks", "controls"])
def test_a_long_title_that_a_template_repeats_is_cut_for_every_provider(title: str) -> None:
    app = App(templates={"ALL": REPEATED, "MESSAGE": REPEATED})
    push = build_push(a_notification(title=title, body="🚚" * 900), NOW, app)
    fcm, (iphone, _), (browser, _) = (made(each, app).prepare(push) for each in (Fcm, Apns, WebPush))
    for sent, limit in ((fcm + b"}", MOST_BYTES), (iphone, MOST_BYTES), (browser, webpush.MOST_TEXT_BYTES)):
        assert len(sent) <= limit
        assert orjson.loads(sent)
    for shown in (orjson.loads(iphone)["aps"]["alert"]["title"], orjson.loads(browser)["title"]):
        assert shown.startswith(title[:50])


def test_a_browser_s_push_has_the_template_s_fields_beside_ours() -> None:
    actions = [{"action": "reply", "title": "Reply to {title}"}]
    app = App(templates={"MESSAGE": {"webpush": {"actions": actions, "vibrate": [1], "link": "/c/{conversation_id}"}}})
    text = webpush._text(push := build_push(a_notification(), NOW, app), push.body, app)
    assert text["actions"] == [{"action": "reply", "title": "Reply to New message from Ana"}]
    assert (text["link"], text["tag"], text["vibrate"]) == ("/c/5", "notification-7", [1])
    quiet = build_push(a_notification(sound=False), NOW, app)
    assert "vibrate" not in webpush._text(quiet, quiet.body, app)
    other = build_push(a_notification(notification_type="SYSTEM"), NOW, app)
    assert "actions" not in webpush._text(other, other.body, app)
