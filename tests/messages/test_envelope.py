"""What a message must be to reach Celery, and that whatever does reach it can be taken apart there."""

import json
import pickle
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.worker.request import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.json import dumps, loads

from tests.messages import samples
from workers.messages import call, envelope
from workers.messages.contract import DEFECTS, MOST_RETRIES, RefusedError


def examine(raw: bytes, app: "Celery[Any]", queue: str = samples.QUEUE) -> envelope.Call:
    found = envelope.check(envelope.load(raw), queue)
    call.fits(found, app, queue)
    return found


@pytest.mark.parametrize(("element", "defect"), [bad[1:] for bad in samples.BAD], ids=[bad[0] for bad in samples.BAD])
def test_each_defect_is_told_apart(app: "Celery[Any]", element: object, defect: str) -> None:
    with pytest.raises(RefusedError) as refused:
        examine(samples.raw(element), app)
    assert refused.value.defect == defect
    assert defect in DEFECTS


@pytest.mark.parametrize("message", [m for _, m in samples.MISFITS], ids=[name for name, _ in samples.MISFITS])
def test_arguments_that_the_task_does_not_take_are_refused(app: "Celery[Any]", message: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="attachment_id: int") as refused:
        examine(samples.raw(message), app, "attachments")
    assert refused.value.defect == "arguments"


def test_what_celery_celery_node_and_the_documentation_send_is_accepted(app: "Celery[Any]") -> None:
    assert examine(samples.raw(samples.good()), app).task == samples.TASK
    for raw in samples.CELERY_NODE:
        queue = json.loads(raw)["properties"]["delivery_info"]["routing_key"]
        assert examine(raw, app, queue).task == json.loads(raw)["headers"]["task"]
    assert examine(sent_by_celery(app, expires=60), app).args == []
    assert examine(sent_by_celery(app, headers={"traceparent": "00-1-2-01", "baggage": {"a": "b"}}), app).kwargs == {}
    assert examine(samples.raw(samples.scan("42")), app, "attachments").args == ["42"]


def without_each(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the message without one of its fields, for each of them, however deep."""
    for name, inner in message.items():
        yield {key: value for key, value in message.items() if key != name}
        if isinstance(inner, dict):
            yield from ({**message, name: less} for less in without_each(inner))


def test_the_smallest_message_of_the_documentation_can_lose_nothing(app: "Celery[Any]") -> None:
    smallest = json.loads(samples.DOCUMENTED)
    assert examine(samples.DOCUMENTED.encode(), app, "notifications").task == "tasks.notifications.drain"
    lesser = list(without_each(smallest))
    assert len(lesser) == 10
    for message in lesser:
        with pytest.raises(RefusedError):
            examine(samples.raw(message), app, "notifications")


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(app: "Celery[Any]", raw: bytes) -> None:
    taken_apart(raw, app)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_json_raises_anything_else_and_what_is_accepted_celery_takes_apart(app: "Celery[Any]", data: st.DataObject) -> None:
    message = samples.good()
    body = json.loads(b64decode(message["body"]))
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from([message, message["headers"], message["properties"], body, body[2] or {}]))
        keys = list(range(len(part))) if isinstance(part, list) else [*part, data.draw(st.text(max_size=8))]
        if isinstance(part, dict) and data.draw(st.booleans()):
            part.pop(data.draw(st.sampled_from(keys)), None)
        elif keys:
            part[data.draw(st.sampled_from(keys))] = data.draw(ANYTHING)
        if not isinstance(message.get("headers"), dict) or not isinstance(message.get("properties"), dict):
            break
    if data.draw(st.booleans()):
        message["body"] = data.draw(st.sampled_from([samples.encoded(body), json.dumps(body), body]))
    taken_apart(samples.raw(message), app)


# With the values that are right in some place, so that more than refusals is drawn.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.datetimes().map(datetime.isoformat)
    | st.sampled_from(["utf-8", "base64", "application/json", samples.QUEUE, samples.TASK, "", "2026-01-01T00:00:00+00:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def sent_by_celery(app: "Celery[Any]", **options: Any) -> bytes:
    """Return what the app itself sends, as kombu writes it."""
    with app.connection_for_write() as connection:
        channel: Any = connection.default_channel
        channel.client.delete(samples.QUEUE)
        app.send_task(samples.TASK, connection=connection, **options)
        raw = channel.client.rpop(samples.QUEUE)
    assert isinstance(raw, bytes)
    return raw


def taken_apart(raw: bytes, app: "Celery[Any]") -> None:
    """Do with an accepted message what the worker's main process does, up to handing it to a child; refuse it otherwise."""
    try:
        examine(raw, app)
    except RefusedError:
        return
    with Connection("memory://") as connection:
        channel: Any = connection.channel()
        message = channel.Message(loads(raw), channel=channel)
        message.accept = {"application/json"}
        assert not message.errors
        task = app.tasks[message.headers["task"]]
        request: Any = Request(message, app=app, task=task, hostname="test")
        dumps([message._raw, message.delivery_info["exchange"], message.delivery_info["routing_key"]]).encode()
        args, kwargs, embed = message.payload
        Context(request.request_dict, args=args, kwargs=kwargs, called_directly=False, **(embed or {}))
        hard, soft = request.time_limits
        assert {type(hard), type(soft)} <= {int, float, type(None)}
        assert request.revoked() in {True, False, None}
        assert type(request._context.retries) is int
        assert 0 <= request._context.retries <= MOST_RETRIES
        task.signature_from_request(request._context, retries=request._context.retries + 1)
        pickle.dumps(request.request_dict)
