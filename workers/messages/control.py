"""The reader of remote control: commands, replies and events are read as far as Celery needs them, and written anew.

Celery adopts the largest clock that it hears of, and could write no message with one of 5,000 digits.
"""

from typing import Annotated, Any, Literal

from kombu.utils.json import dumps, loads
from pydantic import BaseModel, Field, TypeAdapter

from workers.messages.read import RefusedError, body_of, envelope, load, part

# Events come in bundles, and replies list all that a worker does.
MOST_BYTES = 1024 * 1024
# How the names of the queues end on which replies come.
REPLIES = ".reply.celery.pidbox"

Clock = Annotated[int, Field(ge=0, le=2**63)]


class _Headers(BaseModel, strict=True):
    clock: Clock | None = None
    expires: float | None = None
    ticket: str | None = None
    hostname: str | None = None


class _Route(BaseModel, strict=True):
    exchange: str
    routing_key: str


class _Arguments(BaseModel, strict=True):
    """Arguments that a worker uses in its event loop after the command was answered, where an error ends the worker."""

    queue: str | None = None
    exchange: str | None = None
    exchange_type: Literal["direct", "topic", "fanout"] | None = None
    routing_key: str | None = None


class _Command(BaseModel, strict=True, extra="forbid"):
    """A command's body, whose fields kombu passes on as arguments of a function."""

    method: str
    arguments: _Arguments | None = None
    destination: list[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    reply_to: _Route | None = None
    ticket: str | None = None


class _Event(BaseModel, strict=True):
    type: str
    clock: Clock = 0


COMMAND: TypeAdapter[Any] = TypeAdapter(_Command)
EVENTS: TypeAdapter[Any] = TypeAdapter(_Event | list[_Event])
REPLY: TypeAdapter[Any] = TypeAdapter(dict[str, Any])


def rewrite(raw: bytes, bodies: TypeAdapter[Any]) -> str:
    """Return a message whose body is one of `bodies`, in good form. Raise RefusedError."""
    try:
        message = load(raw, MOST_BYTES)
        headers = _Headers.model_validate(message["headers"]).model_dump(exclude_none=True)
        route = _Route.model_validate(part(message, "properties")["delivery_info"]).model_dump()
        body = body_of(message)
        bodies.validate_python(body)
        loads(dumps(body))  # kombu makes dates and UUIDs of some objects, or fails to
    except Exception:  # noqa: BLE001
        raise RefusedError("control") from None
    return envelope(body, headers, route)
