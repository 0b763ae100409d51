"""What may be sent, and what is answered: bodies, sizes, deadlines."""

import asyncio
import json
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from tests.processes import PLAIN
from workers.gateway import problems
from workers.gateway.body import LARGEST_BYTES
from workers.gateway.catalogue import CATALOGUE, MOST_AT_ONCE

from .conftest import Gateway, Queue

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_a_nudge_is_a_message_that_celery_takes(gateway: Gateway, token: str, notifications: Queue) -> None:
    answer = gateway.post("notifications", token)
    assert answer.status_code == 202
    body = answer.json()
    assert UUID.fullmatch(body["task_id"])
    assert body == {"task_id": body["task_id"], "task_ids": [body["task_id"]], "job": "notifications", "coalesced": False}
    assert notifications.calls() == [("tasks.notifications.drain", [])]
    assert notifications.messages()[0]["headers"]["id"] == body["task_id"]


@pytest.mark.parametrize("body", [{}, {"event": "chat_notifications.items.create", "key": 800, "payload": {"title": "x"}}])
def test_directus_may_send_any_object_as_a_nudge(gateway: Gateway, token: str, body: Any) -> None:
    assert gateway.post("notifications", token, body).status_code == 202


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"attachment_id": 12}, [12]),
        ({"attachment_id": "12"}, [12]),
        ({"attachment_id": 12.0}, [12]),
        ({"attachment_ids": [-5, "-7", -(2**63)]}, [-5, -7, -(2**63)]),
        ({"attachment_ids": [12, "13", 12]}, [12, 13]),
        ({"attachment_id": 12, "keys": [13]}, [12, 13]),
        ({"event": "message_attachments.items.create", "collection": "message_attachments", "key": 12, "payload": {}}, [12]),
        ({"event": "message_attachments.items.update", "collection": "message_attachments", "keys": ["12", "13"]}, [12, 13]),
    ],
)
def test_attachments_are_named_by_ids(gateway: Gateway, token: str, attachments: Queue, body: Any, ids: list[int]) -> None:
    answer = gateway.post("attachments", token, body)
    assert answer.status_code == 202
    assert attachments.calls() == [("tasks.attachments.scan", [each]) for each in ids]
    assert [each["headers"]["id"] for each in attachments.messages()] == answer.json()["task_ids"]


def test_a_withdrawal_names_who_has_read_and_where(gateway: Gateway, token: str, notifications: Queue) -> None:
    assert gateway.post("withdrawals", token, {"recipient_id": "5", "conversation_id": 1, "more": 2}).status_code == 202
    assert notifications.calls() == [("tasks.notifications.withdraw", [5, 1])]
    for body, sentence in (({"recipient_id": 5}, "no conversation_id"), ({"recipient_id": 0, "conversation_id": 1}, "not 0")):
        refused = gateway.post("withdrawals", token, body)
        assert refused.status_code == 422
        assert sentence in refused.json()["detail"]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "The body names no attachment"),
        ({"attachment_id": 0}, "64 bits, and not 0"),
        ({"attachment_id": True}, "64 bits, and not 0"),
        ({"attachment_id": 1.5}, "64 bits, and not 0"),
        ({"attachment_id": None}, "64 bits, and not 0"),
        ({"attachment_id": "١٢"}, "64 bits, and not 0"),
        ({"attachment_id": 2**63}, "64 bits, and not 0"),
        ({"attachment_id": -(2**63) - 1}, "64 bits, and not 0"),
        ({"attachment_id": "--5"}, "64 bits, and not 0"),
        ({"attachment_ids": []}, f"a list of 1 to {MOST_AT_ONCE} ids"),
        ({"attachment_ids": [*range(1, MOST_AT_ONCE + 2)]}, f"a list of 1 to {MOST_AT_ONCE} ids"),
        ({"attachment_ids": "12"}, f"a list of 1 to {MOST_AT_ONCE} ids"),
        ({"attachment_id": 12, "keys": []}, f"a list of 1 to {MOST_AT_ONCE} ids"),
        ([12], "The body must be a JSON object"),
        ("12", "The body must be a JSON object"),
    ],
)
def test_what_names_no_attachment_is_refused_in_a_sentence(
    gateway: Gateway, token: str, attachments: Queue, body: Any, sentence: str
) -> None:
    answer = gateway.post("attachments", token, body)
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
    assert attachments.messages() == []


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"", "text/plain", 202),
        (b"{}", "application/json; charset=utf-8", 202),
        (b"{}", "application/vnd.api+json", 202),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"null", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b'{"a": 1e999}', "application/json", 422),
    ],
)
def test_a_body_is_absent_or_a_json_object(gateway: Gateway, token: str, content: bytes, media_type: str, status: int) -> None:
    answer = gateway.post("notifications", token, content=content, headers={"Content-Type": media_type})
    assert answer.status_code == status
    assert status == 202 or answer.headers["Content-Type"] == "application/problem+json"


def test_a_job_that_is_not_there_is_named_with_those_that_are(gateway: Gateway, token: str) -> None:
    answer = gateway.post("backups", token)
    assert answer.status_code == 404
    assert all(name in answer.json()["detail"] for name in CATALOGUE)
    assert httpx.get(f"{gateway.url}/v1/jobs/notifications", verify=PLAIN).status_code == 405
    assert httpx.get(f"{gateway.url}/v2", verify=PLAIN).headers["Content-Type"] == "application/problem+json"


def test_attachments_that_nobody_would_scan_are_refused(another: Callable[..., Gateway], attachments: Queue) -> None:
    """Without ATTACHMENTS_URL there is no sweep either, and messages would only fill Redis."""
    gateway = another(ATTACHMENTS_URL="")
    token = gateway.token()
    answer = gateway.post("attachments", token, {"attachment_id": 12})
    assert answer.status_code == 409
    assert "ATTACHMENTS_URL is not set for the gateway" in answer.json()["detail"]
    assert attachments.messages() == []
    assert gateway.post("notifications", token).status_code == 202


def test_a_body_is_counted_as_it_comes(gateway: Gateway, token: str) -> None:
    """Whether it says how long it is or not."""
    announced = gateway.post("notifications", token, content=b" " * (LARGEST_BYTES + 1))
    assert announced.status_code == 413
    assert gateway.post("notifications", token, content=b" " * LARGEST_BYTES).status_code == 202
    with connected(gateway) as line:
        line.sendall(head(token, "Transfer-Encoding: chunked"))
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        line.sendall(chunk * (LARGEST_BYTES // 0x10000) + chunk)
        assert status(line) == 413


def test_a_slash_too_many_leads_nowhere(gateway: Gateway, token: str) -> None:
    """A redirect would go where the Host header says, before anybody was asked for a token."""
    for method, path in (("GET", "/status/"), ("GET", "/metrics/"), ("POST", "/v1/jobs/notifications/")):
        answer = httpx.request(method, gateway.url + path, headers={"Host": "elsewhere.example"}, verify=PLAIN)
        assert (answer.status_code, answer.headers.get("Location")) == (404, None)
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_body_that_does_not_come_is_not_waited_for(gateway: Gateway, token: str) -> None:
    with connected(gateway) as line:
        line.sendall(head(token, "Content-Type: application/json", "Content-Length: 2") + b"{")
        assert status(line) == 408


def test_a_client_that_goes_away_in_mid_body_leaves_no_fault(gateway: Gateway, token: str) -> None:
    with connected(gateway) as line:
        line.sendall(head(token, "Content-Type: application/json", "Content-Length: 2") + b"{")
    assert gateway.post("notifications", token).status_code == 202
    assert "Traceback" not in gateway.log.read_text()


def test_headers_have_an_end(gateway: Gateway) -> None:
    with connected(gateway) as line:
        line.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
        assert status(line) in {0, 400, 431}


@pytest.mark.parametrize("key", ["upload-12", "", "x" * 256, "a b"])
def test_an_idempotency_key_is_accepted_whatever_it_says(gateway: Gateway, token: str, attachments: Queue, key: str) -> None:
    for attachment in (12, 13):
        answer = gateway.post("attachments", token, {"attachment_id": attachment}, headers={"Idempotency-Key": key})
        assert answer.status_code == 202
    assert [args for _, args in attachments.calls()] == [[12], [13]]


def test_messages_are_those_that_celery_itself_would_send(
    gateway: Gateway, token: str, environment: dict[str, str], attachments: Queue
) -> None:
    from celery import Celery

    gateway.post("attachments", token, {"attachment_id": 12})
    with Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False) as celery:
        celery.send_task("tasks.attachments.scan", (12,), queue="attachments", expires=600, ignore_result=True, retry=False)
    ours, theirs = attachments.messages()
    # Of no use on Redis: an expiry that the header `expires` has already, and a queue for an answer that nobody gives.
    del theirs["properties"]["expiration"]
    theirs["properties"]["reply_to"] = ""
    # What our own producers add, so that a queue's age is known.
    assert isinstance(ours["headers"].pop("sent_at"), float)
    assert ours["headers"].pop("x-restored") == 0
    theirs["headers"].pop("sent_at", None)
    assert shape(ours) == shape(theirs)
    assert ours["body"] == theirs["body"]


def shape(value: Any) -> Any:
    """Return names and types, and what is the same in every message of a task."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return re.sub(r"[0-9a-f-]{36}|\d{4}-\S+|\S+@\S+", "…", value) if isinstance(value, str) else value


def connected(gateway: Gateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(gateway.url).port or 0), timeout=20)


def head(token: str, *lines: str) -> bytes:
    request = ("POST /v1/jobs/notifications HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", *lines, "", "")
    return "\r\n".join(request).encode()


def status(line: socket.socket) -> int:
    """Return the status of the answer, 0 if the connection was closed without one."""
    try:
        first = line.makefile("rb").readline()
    except ConnectionError:
        return 0
    return int(first.split()[1]) if first else 0


def test_the_document_describes_both_jobs_with_what_they_refuse(gateway: Gateway) -> None:
    document = json.loads(httpx.get(f"{gateway.url}/openapi.json", verify=PLAIN).text)
    for name in CATALOGUE:
        operation = document["paths"][f"/v1/jobs/{name}"]["post"]
        assert set(operation["responses"]) == {"202", "400", "401", "403", "408", "409", "413", "415", "422", "429", "503"}
        assert operation["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_a_fault_of_the_gateway_is_a_problem_without_details() -> None:
    app = FastAPI(exception_handlers=problems.HANDLERS)

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("secret")

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False)) as client:
            return await client.get("http://gateway/fault")

    answer = asyncio.run(get())
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "application/problem+json")
    assert "secret" not in answer.text
