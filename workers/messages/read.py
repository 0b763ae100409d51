"""The reader: find in whatever a producer wrote the task that it asks for, and write that anew in Celery's own form.

What is not read is left behind: callbacks, time limits, priorities, odd headers. So it cannot stop a worker, and a part that is
missing or of a wrong type needs no check. Whatever bytes come in, `load` and `read` return or raise RefusedError.
"""

import re
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from inspect import Signature, signature
from typing import Any
from uuid import uuid4

import orjson
from celery import Celery, Task
from kombu.utils.json import dumps
from pydantic import TypeAdapter, ValidationError

from tasks.jobs import LONGEST_NAME, QUEUES, STARTED_BY, TASKS
from tasks.words import printable

# A nudge has some 600 bytes, Celery's own messages 1.2 KB.
MOST_BYTES = 32 * 1024
# Celery's retries of a task whose process was lost are three.
MOST_RETRIES = 10
# How often a message may come back from dead workers: it may be what kills them.
MOST_RESTORED = 20
# The header that counts it. Each message that is written here has it, and no other.
RESTORED = "x-restored"
# When a message was sent, in Unix seconds: our own producers say it, for the age of queues.
SENT_AT = "sent_at"
MOST_WAITED_SECONDS = 30 * 86_400.0
# Of beat's short ticks, which send no events (workers/task_events.py).
QUIET = "quiet"
TRACE_HEADERS = ("traceparent", "tracestate", "baggage", "sentry-trace")
# The headers that go with a call, and the types that they may have.
CARRIED = {**dict.fromkeys((*TRACE_HEADERS, STARTED_BY), (str,)), SENT_AT: (int, float), QUIET: (bool,)}
# Ids stand in log lines: no blank, no newline.
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,254}")

Scalar = str | int | float | bool | None

DEFECTS = {
    "size": "it is longer than a nudge can be",
    "json": "it is not a JSON object in UTF-8",
    "task": "it names no task that a worker knows",
    "arguments": "its body is neither [args, kwargs, options] nor an object that has them, in JSON, base64 or not",
    "eta": "it is for later: due times belong in MySQL",
    "restored": "it came back from dead workers again and again: see what the task does to its process",
    "control": "it is no remote control command, reply or event",
}


class RefusedError(Exception):
    """A message that no worker can run. `defect` is one of DEFECTS, `detail` a sentence without the message's content."""

    def __init__(self, defect: str, detail: str = "") -> None:
        self.defect = defect
        self.detail = detail or DEFECTS[defect]
        super().__init__(f"{defect}: {self.detail}")


@dataclass(frozen=True, slots=True)
class Call:
    """What a message asks for. `expires` is a moment, or seconds from now."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid4()))
    retries: int = 0
    restored: int = 0
    expires: datetime | int | None = None
    trace: Mapping[str, str | float] = field(default_factory=dict)


def load(raw: bytes, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object that `raw` is. Raise RefusedError."""
    if len(raw) > most_bytes:
        raise RefusedError("size", f"it has {len(raw)} bytes; a message has at most {most_bytes}")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise RefusedError("json")
    return found


def read(message: Mapping[str, Any], queue: str, app: Celery[Any]) -> Call:
    """Return what a message on a queue asks for, in either of Celery's protocols. Raise RefusedError."""
    headers, body = part(message, "headers"), body_of(message)
    # The first protocol has all of it in the body; the second has the arguments there.
    asked = {**body, **headers} if isinstance(body, dict) else headers
    task = _task(asked.get("task"), queue, app)
    args, kwargs = _arguments(task, body)
    eta, restored, retries = _moment(asked.get("eta")), count(headers.get(RESTORED)), count(asked.get("retries"))
    if eta and eta > datetime.now(UTC):
        raise RefusedError("eta")
    if restored > MOST_RESTORED:
        raise RefusedError("restored")
    trace = {name: headers[name] for name, types in CARRIED.items() if type(headers.get(name)) in types}
    if STARTED_BY in trace:
        trace[STARTED_BY] = printable(trace[STARTED_BY])[:LONGEST_NAME]
    task_id = asked.get("id")
    return Call(
        task.name,
        args,
        kwargs,
        id=task_id if isinstance(task_id, str) and ID.fullmatch(task_id) else str(uuid4()),
        retries=retries if retries <= MOST_RETRIES else 0,
        restored=restored,
        expires=_moment(asked.get("expires")),
        trace=trace,
    )


def write(call: Call, queue: str, app: Celery[Any]) -> str:
    """Return the message that Celery itself would send for a call."""
    task = app.amqp.as_task_v2(
        call.id, call.task, call.args, call.kwargs, retries=call.retries, expires=call.expires, ignore_result=True
    )
    headers = {**task.headers, **call.trace, RESTORED: call.restored}
    route = {"exchange": "", "routing_key": queue} | ({"redelivered": True} if call.restored else {})
    return envelope(task.body, headers, route, **task.properties)


def envelope(body: object, headers: Mapping[str, Any], route: Mapping[str, Any], **properties: object) -> str:
    """Return a message as kombu puts it into Redis."""
    properties |= {"delivery_mode": 2, "delivery_info": route, "priority": 0}
    properties |= {"body_encoding": "base64", "delivery_tag": str(uuid4())}
    encoded = b64encode(dumps(body).encode()).decode()
    message = {"body": encoded, "content-encoding": "utf-8", "content-type": "application/json"}
    return str(dumps({**message, "headers": headers, "properties": properties}))


def body_of(message: Mapping[str, Any]) -> Any:
    """Return a message's body, be it JSON in base64, JSON as text, or no text at all. Raise RefusedError."""
    body = message.get("body")
    if not isinstance(body, str):
        return body
    try:
        text = b64decode(body, validate=True)
    except ValueError:
        text = body.encode()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RefusedError("arguments") from None


def part(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a message; {} in place of anything else."""
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def _task(name: object, queue: str, app: Celery[Any]) -> Task[Any, Any]:
    # Celery's own tasks, such as celery.map, would call any other with any arguments.
    if not isinstance(name, str) or name not in app.tasks or name.startswith("celery."):
        raise RefusedError("task")
    if queue in QUEUES and (name not in TASKS or queue != TASKS[name].queue):
        raise RefusedError("task", f"{name} is not a task of this queue")
    return app.tasks[name]


def _arguments(task: Task[Any, Any], body: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments in a body, each of the type that the task gives it. Raise RefusedError if they do not fit."""
    match body:
        case [args, kwargs, *_]:
            found = args, kwargs
        case dict():
            found = body.get("args"), body.get("kwargs")
        case _:
            found = (None, None) if body is None else ((), ())
    args, kwargs = [] if found[0] is None else found[0], {} if found[1] is None else found[1]
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise RefusedError("arguments")
    shape, types = _parameters(task)
    try:
        bound = shape.bind(*args, **kwargs)
        bound.arguments.update({name: types[name].validate_python(value) for name, value in bound.arguments.items()})
    except (TypeError, ValidationError):
        raise RefusedError("arguments", f"the task takes {shape}") from None
    return bound.args, bound.kwargs


@cache
def _parameters(task: Task[Any, Any]) -> tuple[Signature, dict[str, TypeAdapter[Any]]]:
    """Return a task's signature and the type of each parameter: a scalar where it says none, for tasks carry ids."""
    shape = signature(task.run, eval_str=True).replace(return_annotation=Signature.empty)
    types: dict[str, Any] = {name: Scalar if p.annotation is p.empty else p.annotation for name, p in shape.parameters.items()}
    return shape, {name: TypeAdapter(annotation) for name, annotation in types.items()}


def waited(sent_at: object) -> float | None:
    """Return the seconds since a message was sent, None where it says no time or an absurd one, which a sum would keep."""
    seconds = time.time() - sent_at if isinstance(sent_at, int | float) else MOST_WAITED_SECONDS
    return max(seconds, 0.0) if abs(seconds) < MOST_WAITED_SECONDS else None


def _moment(value: object) -> datetime | None:
    """Return a time in ISO 8601, in UTC unless it says otherwise; None for anything else."""
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def count(value: object) -> int:
    """Return a number of times; 0 for anything else."""
    return value if type(value) is int and value > 0 else 0
