"""What an API's client creates over REST reaches the workers by itself, and never waits for them."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator
from tasks.attachments.scannable import EICAR
from tests.processes import Process, wait_until

from .api import ADMIN_TOKEN, Api

BODY = "When can you deliver? 🚚"
NOTIFICATION = {
    "conversation_id": 1,
    "message_id": 450,
    "recipient_id": 5,
    "sender_id": 2,
    "notification_type": "MESSAGE",
    "title": "New message from John",
    "body": BODY,
    "device_tokens": ["token_abc123", "token_def456"],
}


def attachment(name: str) -> dict[str, object]:
    return {"message_id": 450, "file_name": name, "file_url": f"/files/{name}", "uploaded_by_id": 2}


def is_sent(api: Api, key: object) -> bool:
    return bool(api.item("chat_notifications", key)["delivery_status"] == "SENT")


def verdicts(api: Api, keys: list[int]) -> list[tuple[bool, bool]]:
    rows = [api.item("message_attachments", key) for key in keys]
    return [(bool(row["scanned_for_virus"]), bool(row["is_safe"])) for row in rows]


@pytest.fixture
def files(folder: Path) -> Path:
    return folder / "uploads" / "files"


def test_a_notification_created_over_rest_is_pushed_without_any_beat(api: Api, emulator: Emulator) -> None:
    created = api.create("chat_notifications", NOTIFICATION)
    assert created["delivery_status"] == "PENDING"
    wait_until(lambda: is_sent(api, created["id"]), "the row was SENT")
    pushed = list(emulator.accepted())
    assert sorted(push.token for push in pushed) == ["token_abc123", "token_def456"]
    assert {push.notification_id for push in pushed} == {str(created["id"])}


def test_many_notifications_in_one_request_are_all_pushed(api: Api, emulator: Emulator) -> None:
    rows = [{**NOTIFICATION, "device_tokens": [f"token_bulk_{number}"]} for number in range(40)]
    created = api.create("chat_notifications", rows)
    wait_until(lambda: all(is_sent(api, row["id"]) for row in created), "all rows were SENT")
    assert len(list(emulator.accepted())) == 40


def test_attachments_are_scanned_created_alone_and_in_bulk(api: Api, files: Path) -> None:
    (files / "label.txt").write_bytes(b"a shipping label")
    (files / "virus.bin").write_bytes(EICAR)
    alone = api.create("message_attachments", attachment("label.txt"))
    bulk = api.create("message_attachments", [attachment("virus.bin"), attachment("label.txt")])
    keys = [alone["id"], *(row["id"] for row in bulk)]
    wait_until(lambda: verdicts(api, keys) == [(True, True), (True, False), (True, True)], "all three had their verdicts")


def test_while_the_gateway_is_down_creation_works_and_the_sweep_delivers(
    api: Api, gateway: Process, fleet: Process, folder: Path, files: Path, emulator: Emulator, request: pytest.FixtureRequest
) -> None:
    (files / "later.txt").write_bytes(b"hello")
    gateway.stop()
    fleet.stop()  # with its second look for the rows of nudges that came before
    fleet.start().wait_ready()
    row = api.create("chat_notifications", {**NOTIFICATION, "device_tokens": ["token_sweep"]})
    scan = api.create("message_attachments", attachment("later.txt"))
    log = folder / "directus" / "directus.log"
    said = f"no nudge for chat_notifications {row['id']}; the sweep will find it"
    wait_until(lambda: said in log.read_text(), "Directus's log said that the nudge was lost")
    assert not is_sent(api, row["id"])

    request.getfixturevalue("beat")
    wait_until(lambda: is_sent(api, row["id"]), "the sweep had sent the row")
    wait_until(lambda: verdicts(api, [scan["id"]]) == [(True, True)], "the sweep had scanned the attachment")
    assert [push.token for push in emulator.accepted()] == ["token_sweep"]


def test_the_flow_keeps_no_text_of_messages_and_no_token(
    api: Api, database: Engine, folder: Path, workers_environment: dict[str, str]
) -> None:
    assert workers_environment
    with database.connect() as connection:
        runs = connection.execute(
            text("SELECT COUNT(*) FROM directus_activity WHERE collection = 'directus_flows' AND action = 'run'")
        ).scalar_one()
        stored = connection.execute(text("SELECT GROUP_CONCAT(options) FROM directus_operations")).scalar_one()
    assert runs == 0
    assert "Bearer {{$env.CHAT_WORKERS_TOKEN}}" in stored
    log = (folder / "directus" / "directus.log").read_text()
    assert "Bearer" not in log
    assert ADMIN_TOKEN not in log
    assert BODY not in log


def test_of_the_loopback_network_only_the_gateway_can_be_reached_from_directus(api: Api) -> None:
    answer = api.request("POST", "/files/import", {"url": f"{api.url}/server/ping", "data": {}})
    assert answer.status_code == 503
    assert api.data("GET", "/files") == []
