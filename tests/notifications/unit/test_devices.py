"""`read_devices`: which devices a row names, however `device_tokens` was written."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.devices import LONGEST_TOKEN, MOST_DEVICES, Devices, device_key, read_devices, read_together

from .made import json_values

# What real tokens look like, by provider.
FCM_TOKEN = "cBrZ9vVfTQ-0_xyz:APA91bE" + "x" * 130
APNS_TOKEN = "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
ENDPOINT = "https://fcm.googleapis.com/fcm/send/eP8:APA91bG_x-y?z=1"

SUBSCRIPTION = {"endpoint": ENDPOINT, "expirationTime": None, "keys": {"p256dh": "BNcR", "auth": "tBHI"}}
IN_BRACKETS = f"<{' '.join(APNS_TOKEN[at : at + 8] for at in range(0, 64, 8))}>"


def tokens_of(devices: Devices) -> list[tuple[str, str]]:
    return [(device.provider, device.token) for device in devices.usable]


def read(entries: Any) -> Devices:
    return read_devices(json.dumps(entries))


@pytest.mark.parametrize("column", [None, "[]", b"[]", "null", " [ ] "])
def test_a_recipient_without_devices_is_no_fault(column: str | bytes | None) -> None:
    assert read_devices(column) == Devices()


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ('{"token": "a"}', "an object"),
        ('"a"', "a string"),
        ('"{}"', "an object"),
        (r'"\"[1]\""', "a string"),
        ("17", "a number"),
        ("1.5", "a number"),
        ("true", "a boolean"),
    ],
)
def test_json_that_is_no_list_names_no_device_and_says_what_it_is(column: str, kind: str) -> None:
    assert read_devices(column) == Devices(faults=(f"device_tokens is {kind}, not a list",))


@pytest.mark.parametrize(
    "column",
    ["", " ", "phone", "phone,tablet", '["phone"', "['phone']", '["phone",]', "[NaN]", b"\xff\xfe", '["\\ud83d"]', "[" * 5000],
    ids=repr,
)
def test_a_column_that_is_not_json_names_no_device_and_says_so(column: str | bytes) -> None:
    assert read_devices(column) == Devices(faults=("device_tokens is not JSON",))


def test_a_plain_string_is_an_fcm_token() -> None:
    assert tokens_of(read([FCM_TOKEN])) == [("fcm", FCM_TOKEN)]


def test_the_devices_keep_their_order() -> None:
    assert [token for _, token in tokens_of(read(["c", "a", "b"]))] == ["c", "a", "b"]


def test_a_device_that_is_named_twice_is_one() -> None:
    assert tokens_of(read(["a", "b", "a", {"provider": "fcm", "token": "a"}])) == [("fcm", "a"), ("fcm", "b")]


def test_the_same_token_at_two_providers_is_two_devices() -> None:
    assert len(read(["a", {"provider": "apns", "token": "a"}]).usable) == 2


def test_spaces_round_a_token_are_not_part_of_it() -> None:
    assert tokens_of(read([" phone\n", "phone"])) == [("fcm", "phone")]


@pytest.mark.parametrize("number", [600, MOST_DEVICES])
def test_hundreds_of_devices_are_read(number: int) -> None:
    devices = read([f"token-{n}" for n in range(number)])
    assert len(devices.usable) == number
    assert devices.faults == ()


def test_a_row_with_more_devices_than_anyone_owns_is_a_fault_of_the_api() -> None:
    devices = read([f"token-{n}" for n in range(MOST_DEVICES + 1)])
    assert devices == Devices(faults=(f"device_tokens lists {MOST_DEVICES + 1} devices, more than {MOST_DEVICES}",))


@pytest.mark.parametrize("name", ["apns", "APNs", " APNS "])
def test_an_object_names_its_provider_in_any_case(name: str) -> None:
    assert tokens_of(read([{"provider": name, "token": APNS_TOKEN}])) == [("apns", APNS_TOKEN)]


def test_a_list_that_was_encoded_twice_is_read() -> None:
    assert read(json.dumps(["phone", {"provider": "apns", "token": APNS_TOKEN}])) == read(
        ["phone", {"provider": "apns", "token": APNS_TOKEN}]
    )


@pytest.mark.parametrize("entry", [SUBSCRIPTION, json.dumps(SUBSCRIPTION), json.dumps({"provider": "webpush", **SUBSCRIPTION})])
def test_a_browsers_subscription_is_read_as_it_comes_as_an_object_or_a_text(entry: Any) -> None:
    [device] = read([entry]).usable
    assert (device.provider, device.token) == ("webpush", ENDPOINT)
    assert device.options == {"p256dh": "BNcR", "auth": "tBHI"}


@pytest.mark.parametrize(
    ("provider", "spellings"),
    [
        ("apns", [APNS_TOKEN, APNS_TOKEN.upper(), IN_BRACKETS, f" {IN_BRACKETS.upper()}"]),
        (
            "webpush",
            [
                ENDPOINT,
                ENDPOINT.replace("fcm.googleapis.com", "FCM.googleapis.com:443"),
                f"{ENDPOINT}#1",
                ENDPOINT.replace("://", ":\\\\"),
            ],
        ),
        ("fcm", ["phone:aB", " phone:aB\n"]),
    ],
)
def test_an_address_is_one_device_however_it_is_spelled(provider: str, spellings: list[str]) -> None:
    [device] = read([{"provider": provider, "token": spelling} for spelling in spellings]).usable
    assert device.token == spellings[0]
    assert device.key == device_key(provider, spellings[0])


def test_what_has_no_other_spelling_keeps_its_case() -> None:
    assert len(read(["phone:aB", "phone:ab"]).usable) == 2
    assert len(read([{"provider": "webpush", "endpoint": f"https://a.example/{path}"} for path in ("aB", "ab")]).usable) == 2


def test_a_web_push_subscription_is_known_by_its_endpoint_and_brings_its_keys() -> None:
    subscription = {"provider": "webpush", "endpoint": ENDPOINT, "keys": {"p256dh": "BNcR", "auth": "tBHI"}}
    [device] = read([subscription]).usable
    assert (device.provider, device.token) == ("webpush", ENDPOINT)
    assert device.options == {"p256dh": "BNcR", "auth": "tBHI"}


def test_options_may_stand_beside_the_token_as_well() -> None:
    [device] = read([{"provider": "apns", "token": "a", "topic": "com.example.chat"}]).usable
    assert device.options == {"topic": "com.example.chat"}


def test_options_that_are_no_text_are_left_out() -> None:
    [device] = read([{"provider": "webpush", "token": "a", "keys": ["x"], "expirationTime": None, "n": 1}]).usable
    assert device.options == {}


def test_keys_bring_their_own_two_members_and_no_other() -> None:
    [device] = read(
        [{"provider": "webpush", "endpoint": ENDPOINT, "keys": {"token": "x", "environment": "y", "auth": "z"}}]
    ).usable
    assert device.options == {"auth": "z"}


BAD_ENTRIES: dict[str, tuple[Any, str]] = {
    "a number": (17, "an entry that is a number, not a token"),
    "null": (None, "an entry that is null, not a token"),
    "a truth value": (True, "an entry that is a boolean, not a token"),
    "a list": (["phone"], "an entry that is a list, not a token"),
    "an empty text": ("", "an empty token"),
    "only spaces": (" \t", "an empty token"),
    "an object without a provider": ({"token": "a"}, "an entry without a provider"),
    "a provider that is no text": ({"provider": 1, "token": "a"}, "an entry without a provider"),
    "a provider that is no name": ({"provider": "FCM; DROP", "token": "a"}, "an entry without a provider"),
    "a subscription cut short": (json.dumps(SUBSCRIPTION)[:-9], "a token with characters no provider uses"),
    "a list as a text": ('["phone"]', "an entry that is a list, not a token"),
    "a token of Expo": ("ExponentPushToken[yWoBx8AAu0Yq9v]", "a token of Expo's own service, which is not used here"),
    "a newer token of Expo": (
        {"provider": "fcm", "token": "ExpoPushToken[y]"},
        "a token of Expo's own service, which is not used here",
    ),
    "an APNs token that leaves its path": ({"provider": "apns", "token": ".."}, "an APNs token that is not hex"),
    "an APNs token as a plain text": (APNS_TOKEN, 'an APNs token that does not name its provider, "apns"'),
    "an APNs token in <> as a plain text": (IN_BRACKETS, 'an APNs token that does not name its provider, "apns"'),
    "an APNs token said to be FCM's": (
        {"provider": "FCM", "token": APNS_TOKEN.upper()},
        'an APNs token that does not name its provider, "apns"',
    ),
    "an endpoint as a plain text": (ENDPOINT, "a Web Push endpoint without its provider and keys"),
    "an object without a token": ({"provider": "fcm"}, "an entry without a token"),
    "a token that is no text": ({"provider": "fcm", "token": 5}, "an entry without a token"),
    "an empty token in an object": ({"provider": "fcm", "token": ""}, "an entry without a token"),
    "an APNs token that no server takes as a header": (
        {"provider": "apns", "token": "a" * 1001},
        "a token longer than 1000 characters",
    ),
    "an endpoint that no server takes as a header": (
        {"provider": "webpush", "token": f"https://push.example/{'a' * 2000}"},
        "a token longer than 2000 characters",
    ),
    "a token without end": ("x" * (LONGEST_TOKEN["fcm"] + 1), "a token longer than 4096 characters"),
    "a line break": ("a\r\nb", "a token with characters no provider uses"),
    "a NUL": ("a\x00b", "a token with characters no provider uses"),
    "an emoji": ("token🚚", "a token with characters no provider uses"),
    "an invisible character": ("token\u200b", "a token with characters no provider uses"),
    "a direction mark": ("\u202etoken", "a token with characters no provider uses"),
}


@pytest.mark.parametrize("what", BAD_ENTRIES)
def test_a_bad_entry_is_named_and_hides_no_good_one(what: str) -> None:
    entry, fault = BAD_ENTRIES[what]
    devices = read(["before", entry, "after"])
    assert [token for _, token in tokens_of(devices)] == ["before", "after"]
    assert devices.faults == (f"device_tokens holds {fault}",)


def test_a_token_of_the_greatest_length_is_read() -> None:
    assert len(read(["x" * LONGEST_TOKEN["fcm"]]).usable) == 1


def test_a_hundred_bad_entries_of_a_kind_make_one_sentence() -> None:
    assert read(list(range(100))).faults == ("device_tokens holds an entry that is a number, not a token",)


def test_of_columns_without_end_the_longest_wait() -> None:
    many = json.dumps([f"{number:03}" for number in range(MOST_DEVICES)])
    long = json.dumps(["phone", *["0" * LONGEST_TOKEN["fcm"]] * 59])
    columns = [long] * 50 + [many] * 20 + ['["phone"]']
    read = read_together(columns)
    assert read[50:] == [read_devices(column) for column in columns[50:]]
    assert 0 < read[:50].count(None) < 50
    assert all(each in (None, read_devices(long)) for each in read[:50])


def test_a_fault_never_quotes_the_token() -> None:
    assert "secret" not in " ".join(read(["secret🚚", {"token": "secret"}, {"provider": "secret!"}]).faults)


def test_a_key_shows_the_provider_and_nothing_of_the_token() -> None:
    key = device_key("apns", APNS_TOKEN)
    provider, _, digits = key.partition(":")
    assert (provider, len(digits)) == ("apns", 16)
    assert digits not in APNS_TOKEN


def test_a_key_fits_the_column_of_dead_devices() -> None:
    assert len(device_key("a" * 16, FCM_TOKEN)) <= 64


WORDS = ("provider", "token", "endpoint", "keys", "fcm", "apns", "webpush", "a", "")
entries = json_values(WORDS) | st.fixed_dictionaries({"provider": json_values(WORDS), "token": json_values(WORDS)})


@given(st.binary() | st.text(st.characters()))
def test_no_bytes_and_no_text_make_it_raise(column: str | bytes) -> None:
    read_devices(column)


@given(json_values(WORDS) | st.lists(entries))
def test_no_json_makes_it_raise(value: Any) -> None:
    read_devices(orjson.dumps(value))


@given(st.lists(entries))
def test_no_two_devices_have_one_key(value: list[Any]) -> None:
    keys = [device.key for device in read_devices(orjson.dumps(value)).usable]
    assert len(keys) == len(set(keys))


@given(st.lists(entries))
def test_every_usable_token_was_in_the_column(value: list[Any]) -> None:
    for device in read_devices(orjson.dumps(value)).usable:
        assert any(device.token == text.strip() for text in texts_in(value))


@given(
    st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"{}['), min_size=1), max_size=20)
)
def test_every_good_token_is_usable(tokens: list[str]) -> None:
    devices = read(tokens)
    assert [device.token for device in devices.usable] == list(dict.fromkeys(tokens))
    assert devices.faults == ()


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for member in value.values() for text in texts_in(member)]
    return [text for member in value for text in texts_in(member)] if isinstance(value, list) else []
