"""The reader: find in whatever a producer wrote the task that it asks for, and write that anew in Celery's own form.

What is not read is left behind: callbacks, time limits, priorities, odd headers. So it cannot stop a worker, and a part that is
missing or of a wrong type needs no check. Whatever bytes come in, `read` returns or raises RefusedError.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from inspect import Parameter, Signature, signature
from typing import Any
from uuid import uuid4

import orjson
from celery import Celery, Task
from kombu.utils.json import dumps
from pydantic import TypeAdapter, ValidationError

from tasks.jobs import QUEUES

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
TRACE_HEADERS = ("traceparent", "tracestate", "baggage", "sentry-trace")
# Ids stand in log lines: no blank, no newline.
ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._:-]{0,254}")

REASONS = {
    "size": "it is longer than a nudge can be",
    "json": "it is not a JSON object in UTF-8",
    "task": "it names no task, an unknown one, or one of another queue",
    "arguments": "its task does not take these arguments",
    "eta": "it is for later: due times belong in MySQL",
    "restored": "it came back from dead workers again and again: see what the task does to its process",
    "control": "it is no remote control command, reply or event",
}


class RefusedError(Exception):
    """A message that no worker can run. `reason` is one of REASONS, `detail` a sentence without the message's content."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail or REASONS[reason]
        super().__init__(f"{reason}: {self.detail}")


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

    def again(self) -> "Call":
        """Return the call as it is put back when its worker went away."""
        return replace(self, restored=self.restored + 1)


def read(raw: bytes, queue: str, app: Celery[Any]) -> Call:
    """Return what a message on a queue asks for. Raise RefusedError."""
    return read_object(load(raw, MOST_BYTES), queue, app)


def read_object(message: Mapping[str, Any], queue: str, app: Celery[Any]) -> Call:
    """Return what a message asks for, in either of Celery's protocols. Raise RefusedError."""
    headers, body = part(message, "headers"), body_of(message)
    # The first protocol has all of it in the body; the second has the arguments there.
    asked = {**body, **headers} if isinstance(body, dict) else headers
    task = _task(asked.get("task"), queue, app)
    args, kwargs = _fitting(task, body)
    eta = _moment(asked.get("eta"))
    if eta and eta > datetime.now(UTC):
        raise RefusedError("eta")
    restored, retries = _count(headers.get(RESTORED)), _count(asked.get("retries"))
    if restored > MOST_RESTORED:
        raise RefusedError("restored")
    return Call(
        str(task.name),
        args,
        kwargs,
        _id(asked.get("id")),
        retries if retries <= MOST_RETRIES else 0,
        restored,
        _moment(asked.get("expires")),
        _trace(headers),
    )


def write(call: Call, queue: str, app: Celery[Any]) -> str:
    """Return the message that Celery itself would send for a call."""
    task = app.amqp.as_task_v2(
        call.id, call.task, call.args, call.kwargs, retries=call.retries, expires=call.expires, ignore_result=True
    )
    headers = {**task.headers, **call.trace, RESTORED: call.restored}
    info = {"exchange": "", "routing_key": queue} | ({"redelivered": True} if call.restored else {})
    return envelope(task.body, headers, {**task.properties, "delivery_info": info})


def load(raw: bytes, most_bytes: int) -> dict[str, Any]:
    """Return the JSON object that `raw` is. Raise RefusedError."""
    if len(raw) > most_bytes:
        raise RefusedError("size", f"it has {len(raw)} bytes; a message has at most {most_bytes}")
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RefusedError("json") from None
    if not isinstance(found, dict):
        raise RefusedError("json")
    return found


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
        raise RefusedError("arguments", "its body is not JSON, in base64 or as text") from None


def part(message: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a message; {} in place of anything else."""
    found = message.get(name)
    return found if isinstance(found, dict) else {}


def envelope(body: object, headers: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Return a message as kombu puts it into Redis."""
    own = {"delivery_mode": 2, "priority": 0, "body_encoding": "base64", "delivery_tag": str(uuid4())}
    message = {
        "body": b64encode(dumps(body).encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {**properties, **own},
    }
    return str(dumps(message))


def _task(name: object, queue: str, app: Celery[Any]) -> Task[Any, Any]:
    # Celery's own tasks, such as celery.map, would call any other with any arguments.
    if not isinstance(name, str) or name not in app.tasks or name.startswith("celery."):
        raise RefusedError("task", "no worker knows the task that it names")
    if queue in QUEUES and queue != (own := queue_of(name, app)):
        raise RefusedError("task", f"{name} belongs on the queue {own}")
    return app.tasks[name]


@cache
def queue_of(task: str, app: Celery[Any]) -> str:
    """Return the queue that a task is routed to."""
    return str(app.amqp.router.route({}, task)["queue"].name)


def _fitting(task: Task[Any, Any], body: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments in a body as the task's own types. Raise RefusedError if they are not the task's."""
    match body:
        case None:
            args, kwargs = None, None
        case [args, kwargs, *_]:
            pass
        case dict():
            args, kwargs = body.get("args"), body.get("kwargs")
        case _:
            raise RefusedError("arguments", "its body is neither [args, kwargs, options] nor an object that has them")
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise RefusedError("arguments", "its args are not a list, or its kwargs not an object")
    shape, types = _parameters(task)
    try:
        bound = shape.bind(*args, **kwargs)
        bound.arguments.update({name: types[name].validate_python(value) for name, value in bound.arguments.items()})
    except (TypeError, ValidationError):
        raise RefusedError("arguments", f"the task takes {shape}") from None
    return bound.args, bound.kwargs


# Of a parameter without a type: flat, so that nothing is nested deeper than a later parser can go.
Scalar = str | int | float | bool | None
Flat = Scalar | list[Scalar] | dict[str, Scalar]


@cache
def _parameters(task: Task[Any, Any]) -> tuple[Signature, dict[str, TypeAdapter[Any]]]:
    shape = signature(task.run, eval_str=True).replace(return_annotation=Signature.empty)
    untyped = {name for name, p in shape.parameters.items() if p.annotation is p.empty or p.kind in _SEVERAL}
    return shape, {name: TypeAdapter(Flat if name in untyped else p.annotation) for name, p in shape.parameters.items()}


_SEVERAL = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}


def _moment(value: object) -> datetime | None:
    """Return a time in ISO 8601, in UTC unless it says otherwise; None for anything else."""
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _id(value: object) -> str:
    return value if isinstance(value, str) and ID.fullmatch(value) else str(uuid4())


def _trace(headers: Mapping[str, Any]) -> dict[str, str | float]:
    found = {name: headers[name] for name in TRACE_HEADERS if isinstance(headers.get(name), str)}
    return found | ({SENT_AT: headers[SENT_AT]} if type(headers.get(SENT_AT)) in {int, float} else {})
