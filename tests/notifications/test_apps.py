"""Apps of PUSH_APPS_FILE side by side: what each is sent with, and what is wrong with a file, against the emulators."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from devstack.emulators import apns
from devstack.emulators.client import Emulator, Fault
from settings import ConfigurationError, get_settings
from tasks.notifications import run
from tasks.notifications.facts import TABLES
from tasks.notifications.providers import configured_providers
from tests.notifications.conftest import Accepted, Chat, forget_process
from workers.cli import cli

IPHONE = "ab" * 32

Apps = Callable[[str], Path]


@pytest.fixture
def apps(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Apps]:
    """Write PUSH_APPS_FILE, with the emulators' keys for {fcm}, {apns} and {webpush}, and have the next drain read it."""
    path = tmp_path / "apps.toml"

    def write(text: str) -> Path:
        keys = {
            "fcm": f"service_account = '{emulator.service_account_file}'",
            "apns": f"key_file = '{emulator.apns_key_file}'\nkey_id = '{apns.KEY_ID}'\nteam_id = '{apns.TEAM_ID}'\n"
            f"topic = '{apns.TOPIC}'",
            "webpush": f"key_file = '{emulator.vapid_key_file}'\nsubject = 'mailto:ops@example.com'",
        }
        path.write_text(re.sub(r"<(\w+)>", lambda found: keys[found[1]], text))
        monkeypatch.setenv("PUSH_APPS_FILE", str(path))
        get_settings.cache_clear()
        forget_process()
        return path

    monkeypatch.setenv("APNS_BASE_URL", emulator.base_url)
    monkeypatch.setenv("WEBPUSH_HOSTS", emulator.environment["WEBPUSH_HOSTS"])
    yield write
    monkeypatch.undo()
    get_settings.cache_clear()
    forget_process()


def of_app(app: str, token: str, provider: str = "fcm", **more: str) -> dict[str, str]:
    return {"provider": provider, "token": token, "app": app, **more}


DRIVER = "[driver.fcm]\n<fcm>\n[driver.apns]\n<apns>\n"


def test_an_app_that_is_broken_leaves_the_other_untouched(
    api: Chat, emulator: Emulator, apps: Apps, accepted: Accepted
) -> None:
    apps(DRIVER)
    emulator.inject(Fault(kind="project_not_found", token="driver-*"))
    broken = api.notify(of_app("driver", "driver-1"))
    fine = api.notify("customer-1", of_app("driver", IPHONE, "apns"))
    run.drain()
    assert api.status(fine) == ("SENT", 1, None)
    assert accepted() == [(str(fine), "customer-1"), (str(fine), IPHONE)] or accepted() == [
        (str(fine), IPHONE),
        (str(fine), "customer-1"),
    ]
    status, _, why = api.status(broken)
    assert status == "FAILED"
    assert why is not None
    assert "fcm.driver:" in why
    opened = api.rows("SELECT provider, app FROM worker_providers WHERE opened_at IS NOT NULL")
    assert [(row["provider"], row["app"]) for row in opened] == [("fcm", "driver")]
    assert [row["waiting_on"] for row in api.rows("SELECT waiting_on FROM worker_deliveries")] == ["fcm.driver"]
    counts = {(row["app"], row["outcome"]) for row in api.rows("SELECT app, outcome FROM worker_delivery_counts")}
    assert counts == {("driver", "credentials"), ("default", "sent"), ("driver", "sent")}
    emulator.clear()
    for _ in range(2):  # the first run probes, the second sends
        api.let_pass(20)
        run.retry_failed()
    assert api.status(broken) == ("SENT", 1, None)


def test_a_file_without_an_app_has_rows_wait(api: Chat, apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    apps("")
    waiting = api.notify("customer-1")
    run.drain()
    assert api.status(waiting) == ("PENDING", 0, None)


@pytest.mark.parametrize("options", [("--app", "driver"), ("--app", "driver", "--provider", "fcm")])
def test_a_pause_of_an_app_holds_its_devices_alone(
    api: Chat, emulator: Emulator, apps: Apps, accepted: Accepted, options: tuple[str, ...]
) -> None:
    apps(DRIVER)
    pause = CliRunner().invoke(cli, ["notifications", "pause", *options])
    assert pause.exit_code == 0, pause.output
    held, fine = api.notify(of_app("driver", "driver-1")), api.notify("customer-1")
    run.drain()
    assert (accepted(), api.status(held)[1], api.status(fine)[0]) == ([(str(fine), "customer-1")], 0, "SENT")
    CliRunner().invoke(cli, ["notifications", "resume", "--app", "driver", *options[2:]])
    api.let_pass(20)
    run.retry_failed()
    assert api.status(held)[0] == "SENT"


def test_a_pause_of_an_app_that_is_not_there_says_which_are(api: Chat, apps: Apps) -> None:
    apps(DRIVER)
    done = CliRunner().invoke(cli, ["notifications", "pause", "--app", "drivers"])
    assert (done.exit_code, "there are default, driver" in done.output) == (2, True)


def test_a_token_of_another_app_is_foreign_and_its_row_says_which_app_it_was_tried_with(
    api: Chat, emulator: Emulator, apps: Apps
) -> None:
    apps(DRIVER)
    emulator.inject(Fault(kind="sender_mismatch"))
    row = api.notify(of_app("driver", "customer-1"))
    run.drain()
    assert "SENDER_ID_MISMATCH (app driver)" in (api.status(row)[2] or "")
    assert api.rows("SELECT * FROM worker_dead_devices") == []


def test_a_device_is_dead_for_its_app_alone(api: Chat, emulator: Emulator, apps: Apps, accepted: Accepted) -> None:
    apps(DRIVER)
    emulator.inject(Fault(kind="unregistered", times=1))
    api.notify(of_app("driver", "phone"))
    run.drain()
    dead = api.rows("SELECT device_key, provider, app FROM worker_dead_devices")
    assert [(row["provider"], row["app"], row["device_key"].partition(":")[0]) for row in dead] == [
        ("fcm", "driver", "fcm.driver")
    ]
    row = api.notify("phone", of_app("driver", "phone"))
    run.drain()
    assert accepted() == [(str(row), "phone")]


def test_a_device_waits_for_an_app_that_this_worker_does_not_know(api: Chat, apps: Apps) -> None:
    apps(DRIVER)
    row = api.notify(of_app("rider", "phone"), of_app("driver", "a", "webpush"))
    run.drain()
    status, _, why = api.status(row)
    assert status == "FAILED"
    assert "fcm.rider is not configured on this worker" in (why or "")


def test_apps_and_providers_that_strangers_name_are_counted_as_one_and_hide_none_of_ours(api: Chat, apps: Apps) -> None:
    apps(DRIVER)
    api.notify(*(of_app(f"a{number}", f"phone-{number}") for number in range(70)), *(f"phone-{number}" for number in range(90)))
    api.notify(*({"provider": f"a{number}", "token": "phone"} for number in range(70)))
    run.drain()
    counted = api.rows(
        "SELECT provider, app, outcome, reason, SUM(devices) FROM worker_delivery_counts GROUP BY 1, 2, 3, 4 ORDER BY outcome"
    )
    assert [" ".join(map(str, row.values())) for row in counted] == [
        "other default refused not configured on this worker 70",
        "fcm default sent  90",
        "other default unconfigured not configured on this worker 70",
    ]
    older = "SELECT minute, :name, 'default', 'refused', '', 60 FROM worker_delivery_counts LIMIT 1"
    for number in range(70):  # as a worker of an earlier version counts them
        api.execute(f"INSERT INTO worker_delivery_counts {older}", name=f"a{number}")
    with api.engine.connect() as connection:
        [providers] = [table for table in TABLES if table.name == "providers"]
        ratios = {row["provider"]: row.get("deliveries_failed_ratio") for row in providers.rows(connection)}
    assert ratios["fcm"] == 0


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ({"app": "Driver!"}, "a name of an app"),
        ({"app": 5}, "a name of an app"),
        ({"environment": "test"}, "an environment other"),
    ],
)
def test_an_entry_with_an_app_or_environment_that_is_none_is_named(
    api: Chat, apps: Apps, device: dict[str, object], words: str
) -> None:
    apps(DRIVER)
    row = api.notify({"provider": "apns", "token": IPHONE, **device})
    run.drain()
    assert words in (api.status(row)[2] or "")


def test_an_iphone_is_reached_where_its_environment_is(
    api: Chat, emulator: Emulator, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sandbox is the emulator, production is a port where nobody listens."""
    monkeypatch.setenv("APNS_BASE_URL", "https://127.0.0.1:9")
    monkeypatch.setenv("APNS_SANDBOX_URL", emulator.base_url)
    apps(DRIVER + "environment = 'sandbox'\n")
    named = api.notify(of_app("driver", IPHONE, "apns", environment="production"))
    unnamed = api.notify(of_app("driver", IPHONE, "apns"))
    run.drain()
    assert api.status(unnamed) == ("SENT", 1, None)
    assert "apns gave no answer" in (api.status(named)[2] or "")


# A template's lines behind its table's name, and what is said of them.
WRONG = {
    "fcm]\nandroid.collapse_key = 'a'": "fcm.android.collapse_key is no field that a template may set; ",
    "fcm]\nandroid.notification.visibility = 'LOUD'": "fcm.android.notification.visibility is not one of PRIVATE, PUBLIC",
    "fcm]\ndata.message_id = 'a'": "fcm.data.message_id is no field",
    "fcm]\ndata.google_x = 'a'": "fcm.data.google_x is no field",
    "fcm]\nandroid = 'a'": "fcm.android is no table",
    "fcm]\nfcm_options.analytics_label = 'a b'": "fcm.fcm_options.analytics_label is not up to 50 of",
    "apns]\naps.badge = 3": "apns.aps.badge is no field",
    "apns]\naps.mutable-content = 2": "apns.aps.mutable-content is not 1",
    "apns]\naps.alert.loc-args = ['{password}']": "apns.aps.alert.loc-args holds '{password}'; what may stand in braces is",
    f"fcm]\ndata.x = '{'x' * 701}'": "fcm has more than 700 bytes once filled, which leaves too little of 4096 to a push",
    f"apns]\nlines = '{'{title} ' * 9}'": "apns has more than 700 bytes once filled, which leaves too little of 4096 to a push",
    "webpush]\nactions = [{title = 'a'}]": "webpush.actions is not a list, each of it a table of action, title and icon",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[driver.fcm\n", "PUSH_APPS_FILE names an unusable file: {path}: "),
        (
            "[default.fcm]\n<fcm>\n",
            "GOOGLE_APPLICATION_CREDENTIALS is set, and PUSH_APPS_FILE ({path}) has the app default too",
        ),
        ("driver = 1\n", "PUSH_APPS_FILE ({path}): driver is no app; expected a table"),
        ("[Driver.fcm]\n<fcm>\n", "PUSH_APPS_FILE ({path}): Driver is no app"),
        ("[driver.fcm]\n<fcm>\nkey = 'x'\n", "PUSH_APPS_FILE ({path}): driver.fcm.key is no key that is known"),
        ("[driver.apns]\ntopic = 'a.b'\n", "PUSH_APPS_FILE ({path}): driver.apns.key_file is not set"),
        ("[driver.apns]\n<apns>\nenvironment = 'test'\n", "PUSH_APPS_FILE ({path}): driver.apns.environment input should be"),
        (
            "[driver.fcm]\nservice_account = '/none'\n",
            "PUSH_APPS_FILE ({path}): driver.fcm.service_account names an unusable file",
        ),
        (
            "[driver.webpush]\nkey_file = '/none'\nsubject = 'mailto:a@b.example'\n",
            "({path}): driver.webpush.key_file names an",
        ),
        ("[driver.webpush]\n<webpush>\nsubject = 1\n", "PUSH_APPS_FILE names an unusable file"),
        (
            "[driver.webpush]\nkey_file = '/none'\nsubject = 'me'\n",
            "PUSH_APPS_FILE ({path}): driver.webpush.subject is no contact",
        ),
    ],
)
@pytest.mark.usefixtures("environment")
def test_what_is_wrong_with_the_file_is_said_with_its_path_table_and_key(apps: Apps, text: str, words: str) -> None:
    path = apps(text)
    with pytest.raises(ConfigurationError) as raised:
        configured_providers(get_settings())
    assert words.format(path=path) in str(raised.value)


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.usefixtures("environment")
def test_what_is_wrong_with_a_template_is_said_the_same_way(apps: Apps, text: str) -> None:
    path = apps(f"{DRIVER}[driver.templates.ALL.{text}\n")
    with pytest.raises(ConfigurationError) as raised:
        configured_providers(get_settings())
    assert f"PUSH_APPS_FILE ({path}): driver.templates.ALL.{WRONG[text]}" in str(raised.value)


@pytest.mark.parametrize(("style", "shown"), [("data", 10), ("notification", 1)])
def test_of_ten_messages_to_a_phone_that_was_offline(api: Chat, emulator: Emulator, apps: Apps, style: str, shown: int) -> None:
    """What Google documents: messages with a notification part collapse into the last one, those without are all kept."""
    apps(f"[driver]\nandroid = '{style}'\n{DRIVER}")
    emulator.go_offline("phone")
    rows = [api.notify(of_app("driver", "phone"), body=f"message {number}") for number in range(10)]
    run.drain()
    assert {api.status(row) for row in rows} == {("SENT", 1, None)}
    seen = {message["body"] for message in emulator.come_back("phone")}
    assert len(seen) == shown
    assert seen <= {f"message {number}" for number in range(10)}


def test_a_push_that_was_sent_twice_is_shown_once(api: Chat, emulator: Emulator, apps: Apps) -> None:
    apps(f"[driver]\nandroid = 'data'\n{DRIVER}")
    emulator.go_offline("phone")
    emulator.inject(Fault(kind="accepted_reset", token="phone", times=1))
    row = api.notify(of_app("driver", "phone"))
    run.drain()
    api.let_pass(60)
    run.retry_failed()
    assert api.status(row) == ("SENT", 1, None)
    assert len(list(emulator.accepted())) == 2
    assert [message["tag"] for message in emulator.come_back("phone")] == [f"notification-{row}"]


def test_who_waits_for_a_device_that_was_logged_out_is_not_sent(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    """docs/api.md has the API enter the device among the dead."""
    emulator.inject(Fault(kind="unavailable", token="phone", times=1))
    row = api.notify("phone")
    run.drain()
    assert api.status(row)[0] == "FAILED"
    api.execute(
        "INSERT INTO worker_dead_devices (device_key, provider, token, recipient_id, notification_id, reason)"
        " VALUES (CONCAT('fcm:', LEFT(SHA2(:token, 256), 16)), 'fcm', :token, 2, 0, 'logged out')",
        token="phone",
    )
    api.let_pass(60)
    run.retry_failed()
    assert api.status(row)[0] == "BOUNCED"
    assert accepted() == []


FORM = """
[driver]
android = "data"
content = "sender"
hidden = "Open the app"
[driver.templates.ALL.apns]
aps.category = "chat"
link = "https://chat.example/c/{conversation_id}?from={sender_id}"
[driver.templates.MENTION.apns]
aps.category = "mention"
aps.alert.subtitle = "{type}"
[driver.templates.ALL.fcm]
data.link = "app://c/{conversation_id}"
"""


def test_preview_shows_what_each_device_would_be_sent(api: Chat, apps: Apps) -> None:
    apps(FORM + DRIVER)
    row = api.notify(of_app("driver", "secret-token"), of_app("driver", IPHONE, "apns"), "phone", notification_type="MENTION")
    told = CliRunner().invoke(cli, ["notifications", "preview", str(row), "--json"])
    assert told.exit_code == 0, told.output
    assert "secret-token" not in told.output
    assert "When can you deliver" not in told.output.partition('"fcm:')[0]
    android, iphone, plain = json.loads(told.output)
    data = android["message"]["android"]["data"]
    assert (data["title"], data["body"], data["link"]) == ("New message from Ana", "Open the app", "app://c/1")
    assert "notification" not in android["message"]
    assert "collapse_key" not in android["message"]["android"]
    assert android["message"]["apns"]["payload"]["aps"]["alert"] == {"title": "New message from Ana", "body": "Open the app"}
    aps = iphone["payload"]["aps"]
    assert (aps["category"], aps["alert"]["subtitle"]) == ("mention", "MENTION")
    assert iphone["payload"]["link"] == "https://chat.example/c/1?from=1"
    assert plain["message"]["notification"]["body"] == "When can you deliver?"
    assert api.status(row)[0] == "PENDING"
    of_all = CliRunner().invoke(cli, ["notifications", "preview", str(row), "--app", "driver", "--json"])
    assert [shown["device"] for shown in json.loads(of_all.output)] == ["fcm.driver", "apns.driver"]


def test_a_test_push_prints_the_provider_s_id_of_the_message(emulator: Emulator, apps: Apps) -> None:
    apps(DRIVER)
    for provider, token in (("fcm", "phone"), ("apns", IPHONE)):
        command = ["notifications", "test", "--app", "driver", "--provider", provider, "--token", token]
        told = CliRunner().invoke(cli, command)
        assert told.exit_code == 0, told.output
        sent = [message.name for message in emulator.accepted() if message.provider == provider]
        assert told.output == f"sent: {sent[0]}\n"
    dry = CliRunner().invoke(cli, ["notifications", "test", "--provider", "fcm", "--token", "phone", "--dry-run"])
    assert (dry.exit_code, len(list(emulator.accepted()))) == (0, 2)
    emulator.inject(Fault(kind="invalid_token"))
    bad = CliRunner().invoke(cli, ["notifications", "test", "--provider", "fcm", "--token", "phone"])
    assert (bad.exit_code, bad.output[:5]) == (1, "dead:")
