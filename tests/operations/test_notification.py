"""`GET /v1/notifications/ID`: the story of one row, for operators."""

from concurrent.futures import ThreadPoolExecutor

from fastapi.testclient import TestClient

from devstack.emulators.client import Emulator, Fault
from tasks.notifications import run
from tests.notifications.conftest import Chat, api, own_process
from tests.processes import wait_until

__all__ = ["api", "own_process"]  # the latter is used by all


def test_it_tells_what_happened_to_each_device_without_tokens_or_content(
    api: Chat, emulator: Emulator, gateway: TestClient
) -> None:
    emulator.inject(Fault(kind="unregistered", token="gone-phone"))
    row = api.notify("good-phone", "gone-phone", body="a secret")
    run.drain()
    answer = gateway.get(f"/v1/notifications/{row}")
    assert answer.status_code == 200
    assert answer.json()["notification"]["delivery_status"] == "SENT"
    assert sorted(device["state"] for device in answer.json()["devices"]) == ["dead", "sent"]
    for secret in ("good-phone", "gone-phone", "a secret"):
        assert secret not in answer.text


def test_a_row_that_is_not_there_is_a_sentence(api: Chat, gateway: TestClient) -> None:
    answer = gateway.get("/v1/notifications/12345")
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no notification 12345")
    assert gateway.get("/v1/notifications/x").status_code == 422


def test_it_is_shut_to_other_names(gateway: TestClient) -> None:
    assert gateway.get("/v1/notifications/1", headers={"Host": "evil.example"}).status_code == 403


def test_a_third_request_does_not_wait_while_mysql_lets_two_wait(api: Chat, gateway: TestClient) -> None:
    waiting = "SELECT COUNT(*) AS n FROM information_schema.processlist WHERE state LIKE '%metadata lock%'"
    with api.engine.connect() as holder, ThreadPoolExecutor(2) as others:
        holder.exec_driver_sql("LOCK TABLES chat_notifications WRITE")
        try:
            asked = [others.submit(gateway.get, "/v1/notifications/1") for _ in range(2)]
            wait_until(lambda: api.rows(waiting)[0]["n"] == 2, "two waited for MySQL")
            refused = gateway.get("/v1/notifications/1")
        finally:
            holder.exec_driver_sql("UNLOCK TABLES")
    assert (refused.status_code, refused.json()["detail"]) == (503, "Others are being read: ask again in a moment")
    assert [each.result().status_code for each in asked] == [404, 404]
