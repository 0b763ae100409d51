"""What a message must look like for Celery to run it: the whole contract, as types.

Celery and kombu take a message apart piece by piece, and each piece that is missing or of another type is an exception in the
worker's event loop: some stop it, some make it reconnect for ever. So the shape is checked first, in one place, without Celery.
Whatever bytes come in, `load` and `check` return or raise RefusedError; hypothesis tests that in tests/messages.
"""

import binascii
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from celery.app.task import Context
from celery.utils.time import maybe_iso8601
from pydantic import AfterValidator, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from workers.celery_config import LONGEST_TIME_LIMIT_SECONDS

# A nudge has some 600 bytes, Celery's own messages 1.2 KB.
MOST_BYTES = 32 * 1024
# Celery's retries of a task whose process was lost are three.
MOST_RETRIES = 10
# How often a message may come back from `unacked`, where those of dead workers are: it may be what kills them.
MOST_RESTORED = 20
RESTORED = "x-restored"


class RefusedError(Exception):
    """A message that no worker can run. `defect` is one of DEFECTS, `detail` a sentence without the message's content."""

    def __init__(self, defect: str, detail: str) -> None:
        super().__init__(f"{defect}: {detail}")
        self.defect = defect
        self.detail = detail


DEFECTS = {
    "size": "it is longer than a nudge can be",
    "json": "it is not a JSON object in UTF-8",
    "envelope": "another part of it is of a wrong type",
    "properties": "properties are missing or of a wrong type",
    "properties.delivery_tag": "the tag that a message is acknowledged by is missing",
    "properties.delivery_info": "the place that a message is put back to is missing, or is another queue",
    "headers": "headers are missing or of a wrong type",
    "headers.task": "the task's name is missing, unknown, or belongs on another queue",
    "headers.id": "the task's id is missing",
    "headers.retries": "the count of retries is no small number",
    "headers.eta": "the task is for later: due times belong in MySQL",
    "headers.expires": "the time of expiry is none",
    "headers.timelimit": "the time limits are none",
    "headers.compression": "the body is compressed",
    "content-type": "the body is not declared as application/json",
    "content-encoding": "the body is not declared as utf-8",
    "body": "the body is not [args, kwargs, options] in JSON",
    "body.options": "the body asks for a callback, chain or chord",
    "arguments": "the task does not take these arguments",
    "restored": "it came back from dead workers again and again",
    "unacked": "what lay in `unacked` was no message",
    "control": "a remote control command or reply was no message",
    "key type": "a key of the broker held something else than kombu puts there",
}


Model = TypeVar("Model", bound=BaseModel)


def _moment(value: str) -> datetime:
    try:
        moment = maybe_iso8601(value)
    except ValueError:  # whose text shows the value
        moment = None
    # Some of what Celery's parser lets pass overflows when it is moved to another time zone.
    if moment is None or not 2000 <= moment.year < 2200:
        raise ValueError("is no time in ISO 8601 of this century or the next")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(value: str) -> str:
    _moment(value)
    return value


def _past(value: str) -> str:
    if _moment(value) > datetime.now(UTC):
        raise ValueError("is in the future")
    return value


def _nothing(value: object) -> None:
    if value:
        raise ValueError("must be null or left out")


def _header_name(name: str) -> str:
    # Celery makes each header an attribute of the task's request; these names are taken.
    if name in _TAKEN or name.startswith("_"):
        raise ValueError("is a name that Celery uses itself")
    return name


_TAKEN = frozenset(vars(Context))

Word = Annotated[str, Field(min_length=1, max_length=255)]
Time = Annotated[str, AfterValidator(_time)]
Past = Annotated[str, AfterValidator(_past)]
Nothing = Annotated[None, BeforeValidator(_nothing)]
Scalar = str | int | Annotated[float, AllowInfNan(False)] | bool | None
# Flat, so that nothing here is nested deeper than any later parser can go.
Flat = Scalar | list[Scalar] | dict[str, Scalar]
Limit = Annotated[float, Field(gt=0, le=LONGEST_TIME_LIMIT_SECONDS)] | None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Flat]


class DeliveryInfo(_Part):
    exchange: str
    routing_key: str
    redelivered: bool | None = None


class Properties(_Part):
    delivery_tag: Word
    delivery_info: DeliveryInfo
    body_encoding: Literal["base64", "utf-8"] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int | None = None


class AnyHeaders(_Part):
    compression: Nothing = None


class AnyEnvelope(_Part):
    """What kombu needs to make a message of it; enough for remote control, whose commands Celery checks itself."""

    properties: Properties
    headers: AnyHeaders
    content_type: str | None = Field(None, alias="content-type")
    content_encoding: Literal["utf-8", "UTF-8", "binary", "us-ascii"] | None = Field(None, alias="content-encoding")
    body: str


class Headers(AnyHeaders):
    __pydantic_extra__: dict[Annotated[str, AfterValidator(_header_name)], Flat]

    task: Word
    id: Word
    retries: int = Field(0, ge=0, le=MOST_RETRIES)
    eta: Past | None = None
    expires: Time | None = None
    timelimit: Annotated[list[Limit], Field(min_length=2, max_length=2)] | None = None
    ignore_result: bool | None = None
    redelivered: bool | None = None
    restored: int = Field(0, ge=0, alias=RESTORED)
    replaced_task_nesting: int = 0
    group_index: int | None = None
    lang: str | None = None
    meth: str | None = None
    origin: str | None = None
    shadow: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    headers: dict[str, Flat] | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Flat] | None = None


class Envelope(AnyEnvelope):
    headers: Headers
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8", "UTF-8"] | None = Field(None, alias="content-encoding")


class Options(BaseModel):
    """The third element of a body: canvas, which these workers do without."""

    model_config = ConfigDict(strict=True, extra="forbid")

    callbacks: Nothing = None
    errbacks: Nothing = None
    chain: Nothing = None
    chord: Nothing = None


# Tasks carry ids or nothing: an argument is a scalar.
_BODY: TypeAdapter[tuple[list[Scalar], dict[str, Scalar], Options | None]] = TypeAdapter(
    tuple[list[Scalar], dict[str, Scalar], Options | None], config=ConfigDict(strict=True)
)


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
        args, kwargs, _options = _BODY.validate_python(tuple(found))
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


# What the contract itself names, so that it may be shown.
NAMES = frozenset(
    ["args", "kwargs", "application/json", "utf-8", "base64"]
    + [
        field.alias or name
        for model in (Envelope, Headers, Properties, DeliveryInfo, Options)
        for name, field in model.model_fields.items()
    ]
)
