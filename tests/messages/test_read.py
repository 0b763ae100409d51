"""The reader finds what a message asks for, refuses what asks for nothing, and writes what Celery takes apart."""

import json
import pickle
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.app.task import Context
from celery.worker.request import Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection
from kombu.utils.json import dumps, loads

from tasks.jobs import STARTED_BY
from tests.messages import samples
from workers.messages import control
from workers.messages.read import (
    DEFECTS,
    ID,
    MOST_RESTORED,
    MOST_RETRIES,
    RESTORED,
    SENT_AT,
    TRACE_HEADERS,
    Call,
    RefusedError,
    envelope,
    load,
    read,
    waited,
    write,
)

NEW = "00000000-0000-4000-8000-000000000000"


def asked(element: object, app: "Celery[Any]", queue: str = samples.QUEUE) -> Call:
    return read(load(samples.raw(element)), queue, app)


def written(element: object, app: "Celery[Any]", queue: str = samples.QUEUE) -> dict[str, Any]:
    """Return what Celery gets for an element, but for its tag, which is always another."""
    message: dict[str, Any] = json.loads(write(asked(element, app, queue), queue, app))
    assert UUID(message["properties"].pop("delivery_tag"))
    return message


def test_the_documented_message_and_those_of_celery_and_celery_node_are_read(app: "Celery[Any]") -> None:
    assert asked(samples.good(), app).task == samples.TASK
    for raw in samples.CELERY_NODE:
        sent = json.loads(raw)
        call = asked(raw, app, sent["properties"]["delivery_info"]["routing_key"])
        assert (call.task, call.id) == (sent["headers"]["task"], sent["headers"]["id"])
    assert asked(samples.DOCUMENTED.encode(), app, "notifications").task == "tasks.notifications.drain"
    assert asked(sent_by_celery(app, expires=60), app).expires is not None
    assert asked(sent_by_celery(app, headers={"traceparent": "00-1-2-01"}), app).trace["traceparent"] == "00-1-2-01"


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    "encoded",
    [
        lambda body: b64encode(json.dumps(body).encode()).decode(),
        json.dumps,
        lambda body: body,
    ],
    ids=["base64", "text", "as it is"],
)
def test_both_protocols_are_read_however_the_body_is_encoded(app: "Celery[Any]", protocol: int, encoded: Any) -> None:
    headers = {"task": "tasks.attachments.scan", "id": "of-mine", "retries": 1, "expires": "2026-12-01T00:00:00"}
    if protocol == 1:
        message = {"headers": {}, "body": encoded({**headers, "args": [12], "kwargs": {}, "utc": True, "eta": None})}
    else:
        message = {"headers": headers, "body": encoded([[12], {}, {}])}
    assert asked(message, app, "attachments") == Call(
        "tasks.attachments.scan", (12,), {}, "of-mine", retries=1, expires=datetime(2026, 12, 1, tzinfo=UTC)
    )


def test_a_task_alone_is_enough(app: "Celery[Any]") -> None:
    call = asked({"headers": {"task": samples.TASK}}, app)
    assert call == Call(samples.TASK, id=call.id)
    assert UUID(call.id)


def test_arguments_become_what_the_task_takes(app: "Celery[Any]") -> None:
    for message in (samples.scan("12"), samples.scan(12.0), samples.scan(attachment_id=12)):
        assert asked(message, app, "attachments").args == (12,)


@pytest.mark.parametrize(("element", "defect"), [bad[1:] for bad in samples.BAD], ids=[bad[0] for bad in samples.BAD])
def test_what_can_be_read_heals_and_the_rest_is_refused(app: "Celery[Any]", element: object, defect: str | None) -> None:
    if defect is samples.HEALS:
        assert asked(element, app).task == samples.TASK
        return
    with pytest.raises(RefusedError) as refused:
        asked(element, app)
    assert refused.value.defect == defect
    assert defect in DEFECTS


@pytest.mark.parametrize("message", [m for _, m in samples.MISFITS], ids=[name for name, _ in samples.MISFITS])
def test_arguments_that_the_task_does_not_take_are_refused(app: "Celery[Any]", message: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"arguments: the task takes \(attachment_id: int\)"):
        asked(message, app, "attachments")


def test_a_task_runs_from_its_own_queue_and_from_any_list_that_is_no_queue_of_ours(app: "Celery[Any]") -> None:
    backup = samples.message(task="tasks.backups.daily")
    with pytest.raises(RefusedError, match="is not a task of this queue"):
        asked(backup, app)
    assert asked(backup, app, "backups") == asked(backup, app, "someone-s")
    with pytest.raises(RefusedError, match="it names no task that a worker knows"):
        asked(samples.message(task="celery.map"), app, "someone-s")


def test_what_is_due_later_is_refused_and_what_was_due_is_not(app: "Celery[Any]") -> None:
    for eta in (datetime.now(UTC) + timedelta(minutes=1), datetime(9999, 12, 31, tzinfo=UTC)):
        with pytest.raises(RefusedError, match="eta"):
            asked(samples.with_(eta.isoformat(), "headers", "eta"), app)
    asked(samples.with_("2026-01-01T00:00:00+14:00", "headers", "eta"), app)


def test_a_message_comes_back_so_often_and_no_more(app: "Celery[Any]") -> None:
    call = asked(samples.good(), app)
    for times in range(1, MOST_RESTORED + 1):
        call = asked(write(replace(call, restored=call.restored + 1), samples.QUEUE, app).encode(), app)
        assert call.restored == times
    with pytest.raises(RefusedError, match="restored"):
        asked(write(replace(call, restored=call.restored + 1), samples.QUEUE, app).encode(), app)


@pytest.mark.parametrize("value", ["x\nyear=1999 event=forged", "\x1b[2J", "", "é", "x" * 256, "-", None, 5, ["x"], {}])
def test_an_id_that_has_no_form_is_replaced(app: "Celery[Any]", value: object) -> None:
    assert UUID(asked(samples.with_(value, "headers", "id"), app).id)


# All that Celery's own producer writes into headers, all that a worker's request takes from them, and what only others write.
HEADERS = {
    *Celery(set_as_current=False).amqp.as_task_v2(NEW, "x").headers,
    *(name for name in vars(Context) if not name.startswith("__")),
    *("compression", "redelivered", "x", "__class__", "x-death", "max_retries", "args", "kwargs"),
}
READ = {"task", "id", "retries", "eta", "expires"}


@pytest.mark.parametrize("name", sorted(HEADERS - READ))
def test_a_header_that_is_not_read_is_left_behind(app: "Celery[Any]", name: str) -> None:
    good = samples.good()
    plain = written(good, app)
    for value in ([0.5, None], "x", 5, {"task": "tasks.backups.daily"}, [["x"]], None, True):
        assert written({**good, "headers": {**good["headers"], name: value}}, app) == plain


@pytest.mark.parametrize(
    "name", ["reply_to", "priority", "correlation_id", "delivery_info", "delivery_mode", "body_encoding", "x"]
)
def test_properties_are_left_behind(app: "Celery[Any]", name: str) -> None:
    good = samples.good()
    for value in ("x", 5, {"exchange": "x", "routing_key": "unacked"}, None):
        assert written({**good, "properties": {**good["properties"], name: value}}, app) == written(good, app)


def test_callbacks_and_chains_are_left_behind(app: "Celery[Any]") -> None:
    good = samples.good()
    call = {"task": "tasks.backups.daily", "args": [], "kwargs": {}, "options": {}}
    options = {"callbacks": [call], "errbacks": [call], "chain": [call], "chord": call}
    assert written({**good, "body": samples.encoded([[], {}, options])}, app) == written(good, app)


def test_traces_the_time_of_sending_and_who_sent_it_are_taken_along(app: "Celery[Any]") -> None:
    trace = dict.fromkeys(TRACE_HEADERS, "00-1-2-01") | {SENT_AT: 1.5, STARTED_BY: "ann@host"}
    message = samples.good()
    message["headers"] |= trace
    assert trace.items() <= written(message, app)["headers"].items()
    message["headers"] |= {name: {"x": []} for name in trace}
    assert not trace.keys() & written(message, app)["headers"].keys()


@pytest.mark.parametrize("sent_at", [None, "now", True, 0, -1e308, 1e308, 2**63])
def test_an_absurd_time_of_sending_reaches_no_metric(sent_at: object) -> None:
    assert waited(sent_at) is None
    assert 90 < (waited(time.time() - 100) or 0) < 200


@given(st.binary(max_size=300) | st.binary(max_size=20).map(lambda tail: samples.raw(samples.good())[:-20] + tail))
def test_no_bytes_raise_anything_but_a_refusal(app: "Celery[Any]", raw: bytes) -> None:
    taken_apart(raw, app)
    for bodies in (control.COMMAND, control.EVENTS, control.REPLY):
        with pytest.raises(RefusedError):
            control.rewrite(raw, bodies)


# With the values that are right in some place, so that more than refusals is drawn.
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.datetimes().map(datetime.isoformat)
    | st.sampled_from([0, 1, "utf-8", "base64", samples.QUEUE, samples.TASK, "", "2026-01-01T00:00:00+00:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text(max_size=8) | st.sampled_from(sorted(HEADERS | {RESTORED, SENT_AT, *TRACE_HEADERS, "__type__", "__value__"}))


def containers(value: Any) -> Iterator[Any]:
    """Yield a JSON value's objects and lists, itself among them."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def mutate(message: Any, data: st.DataObject) -> None:
    """Remove, replace or add something anywhere in a message."""
    part: Any = data.draw(st.sampled_from(list(containers(message))))
    places: list[Any] = list(part) if isinstance(part, dict) else list(range(len(part)))
    some: bool = data.draw(st.booleans())
    place: Any = data.draw(st.sampled_from(places)) if places and some else None
    if place is not None and data.draw(st.booleans()):
        del part[place]
    elif isinstance(part, dict):
        part[data.draw(NAMES) if place is None else place] = data.draw(ANYTHING)
    else:
        part[place or 0 : (place or 0) + (place is not None)] = [data.draw(ANYTHING)]


@pytest.mark.timeout(900)
@settings(max_examples=5 * settings().max_examples, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_json_raises_anything_but_a_refusal_and_celery_takes_apart_what_is_written(
    app: "Celery[Any]", data: st.DataObject
) -> None:
    message = samples.good()
    message["body"] = json.loads(b64decode(message["body"]))
    if data.draw(st.booleans()):  # the first protocol
        message["body"] = {**message["headers"], "args": [], "kwargs": {}}
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(message, data)
    if "body" in message and data.draw(st.booleans()):
        message["body"] = samples.encoded(message["body"]) if data.draw(st.booleans()) else json.dumps(message["body"])
    taken_apart(samples.raw(message), app)


@given(st.data())
def test_no_json_of_remote_control_raises_anything_but_a_refusal(data: st.DataObject) -> None:
    route = {"exchange": "", "routing_key": "x"}
    body = {"method": "ping", "arguments": {}, "destination": ["w"], "reply_to": dict(route), "ticket": "t", "type": "x"}
    message = json.loads(envelope(body, {"clock": 1, "expires": 1.5}, route))
    message["body"] = json.loads(b64decode(message["body"]))
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(message, data)
    for bodies in (control.COMMAND, control.EVENTS, control.REPLY):
        with suppress(RefusedError):
            loads(control.rewrite(samples.raw(message), bodies))


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
    """Do with a message that is read what the worker's main process does, up to handing it to a child."""
    try:
        call = asked(raw, app)
    except RefusedError:
        return
    with Connection("memory://") as connection:
        channel: Any = connection.channel()
        message = channel.Message(loads(write(call, samples.QUEUE, app)), channel=channel)
        message.accept = {"application/json"}
        assert not message.errors
        task = app.tasks[message.headers["task"]]
        request: Any = Request(message, app=app, task=task, hostname="test")
        dumps([message._raw, message.delivery_info["exchange"], message.delivery_info["routing_key"]]).encode()
        args, kwargs, embed = message.payload
        Context(request.request_dict, args=args, kwargs=kwargs, called_directly=False, **(embed or {}))
        assert request.time_limits == [None, None]
        assert request.revoked() in {True, False, None}
        assert 0 <= request._context.retries <= MOST_RETRIES
        assert ID.fullmatch(request.id)
        task.signature_from_request(request._context, retries=request._context.retries + 1)
        pickle.dumps(request.request_dict)
