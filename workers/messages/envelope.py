"""How the bytes of an element become a message that Celery can run, or are refused.

Celery and kombu take a message apart piece by piece, and each piece that is missing or of another type is an exception in the
worker's event loop: some stop it, some make it reconnect for ever. So the shape is checked first, in one place, without Celery.
Whatever bytes come in, the functions here return or raise RefusedError; hypothesis tests that in tests/messages.
"""

import binascii
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from workers.messages.contract import (
    BODY,
    DEFECTS,
    MOST_BYTES,
    MOST_RESTORED,
    NAMES,
    AnyEnvelope,
    Control,
    Envelope,
    RefusedError,
)

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Call:
    """What a message asks for."""

    task: str
    id: str
    args: list[Any]
    kwargs: dict[str, Any]


def load(raw: bytes, most_bytes: int | None = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object that `raw` is. Raise RefusedError."""
    if most_bytes is not None and len(raw) > most_bytes:
        raise RefusedError("size", f"it has {len(raw)} bytes; a message has at most {most_bytes}")
    found = _json(raw, "json")
    if not isinstance(found, dict):
        raise RefusedError("json", "it is JSON, but no object")
    return found


def load_list(raw: bytes) -> list[Any]:
    """Return the JSON list that `raw` is; an empty one if it is something else. Raise RefusedError."""
    found = _json(raw, "unacked")
    return found if isinstance(found, list) else []


def check(message: dict[str, Any], queue: str) -> Call:
    """Return what a message on a task queue asks for. Raise RefusedError for the first fault."""
    envelope = _fit(Envelope, message)
    info, headers = envelope.properties.delivery_info, envelope.headers
    # A worker that stops puts the message back there.
    if info.routing_key != queue or info.exchange not in {"", queue}:
        raise RefusedError("properties.delivery_info", f"it names another place than {queue!r}, the queue it came on")
    if headers.restored > MOST_RESTORED:
        raise RefusedError("restored", f"its worker went away {headers.restored} times; see what the task does to its process")
    args, kwargs = _arguments(envelope)
    return Call(headers.task, headers.id, args, kwargs)


def check_any(message: dict[str, Any]) -> None:
    """Raise RefusedError unless kombu can make a message of it, on whatever queue or channel."""
    _body_bytes(_fit(AnyEnvelope, message))


def check_control(message: dict[str, Any], bodies: TypeAdapter[Any]) -> None:
    """Raise RefusedError unless Celery can take apart a control message whose body is of `bodies`."""
    found = _json(_body_bytes(_fit(Control, message)), "body")
    try:
        bodies.validate_python(found)
    except ValidationError as error:
        # Not where: names in it may be of the message's own making.
        first = error.errors(include_input=False, include_url=False)[0]
        raise RefusedError("control", f"its body cannot be: {_lowered(first['msg'])}") from None


def body(envelope: dict[str, Any]) -> Any:
    """Return the body of a message that need not be sound, decoded as far as it can be. Raise RefusedError."""
    found = envelope.get("body")
    if not isinstance(found, str):
        return found
    try:
        return _json(b64decode(found, validate=True), "body")
    except (ValueError, RefusedError):
        return _json(found, "body")


def _arguments(envelope: Envelope) -> tuple[list[Any], dict[str, Any]]:
    found = _json(_body_bytes(envelope), "body")
    if not isinstance(found, list) or len(found) != 3:
        raise RefusedError("body", "it is not a list of three: [args, kwargs, options]")
    try:
        # JSON has no tuple.
        args, kwargs, _options = BODY.validate_python(tuple(found))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = first["loc"][0]
        defect = "body.options" if place == 2 else "body"
        part = {0: "args", 1: "kwargs", 2: "options"}[int(place)]
        raise RefusedError(defect, f"its {part} cannot be: {_lowered(first['msg'])}") from None
    return args, kwargs


def _body_bytes(envelope: AnyEnvelope) -> bytes:
    try:
        if envelope.properties.body_encoding == "base64":
            return b64decode(envelope.body, validate=True)
        return envelope.body.encode()
    except (binascii.Error, ValueError):
        raise RefusedError("body", "it is not in the encoding that properties.body_encoding names") from None


def _json(raw: bytes | str, defect: str) -> Any:
    try:
        text = raw if isinstance(raw, str) else raw.decode()
        found = json.loads(text, parse_constant=_no_number, object_hook=_plain)
        if _SURROGATE.search(text):  # alone, it could not be encoded again: not for Redis, not for a log
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise RefusedError(defect, "it is nested too deeply") from None
    except ValueError:
        raise RefusedError(defect, "it is not JSON in UTF-8") from None
    return found


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _no_number(_name: str) -> None:
    raise ValueError


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    # kombu would make a date, a UUID or bytes of it, or fail to.
    if value.keys() == {"__type__", "__value__"}:
        raise ValueError
    return value


def _fit(model: type[Model], message: dict[str, Any]) -> Model:
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        names = [str(part) for part in first["loc"][:2]]
        place = next((name for name in (".".join(names), names[0]) if name in DEFECTS), "envelope")
        # A name of the message's own making is content.
        known = [name for name in names if name in NAMES]
        detail = _lowered(first["msg"])
        raise RefusedError(
            place, detail if place in {*known, ".".join(known)} else f"{'.'.join(known) or 'a part'}: {detail}"
        ) from None


def _lowered(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text[0].lower() + text[1:]
