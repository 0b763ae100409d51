"""What a message must look like for Celery to run it: the whole contract, as types.

What they let pass is shaped like what Celery sends itself, and is flat.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from celery.app.task import Context
from celery.utils.time import maybe_iso8601
from pydantic import AfterValidator, AllowInfNan, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

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
    "headers.shadow": "the task is given another name, which Celery would count by for ever",
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
# Celery adopts the largest clock it hears of, and no message of its own could be written with one of 5,000 digits.
Clock = Annotated[int, Field(ge=0, le=2**63)]
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
    """What kombu needs to make a message of it."""

    properties: Properties
    headers: AnyHeaders
    content_type: str | None = Field(None, alias="content-type")
    content_encoding: Literal["utf-8", "UTF-8", "binary", "us-ascii"] | None = Field(None, alias="content-encoding")
    body: str


class ControlHeaders(AnyHeaders):
    clock: Clock | None = None
    expires: float | None = None
    ticket: str | None = None


class Control(AnyEnvelope):
    """A remote control command, a reply to one, or an event."""

    headers: ControlHeaders
    content_type: Literal["application/json"] = Field(alias="content-type")


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class ReplyTo(_Body):
    exchange: str
    routing_key: str


class Command(_Body):
    """The body of a command, whose fields kombu passes on as arguments of a function."""

    model_config = ConfigDict(extra="forbid")

    method: str
    arguments: dict[str, Any] | None = None
    destination: list[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    reply_to: ReplyTo | None = None
    ticket: str | None = None


class Event(_Body):
    type: str
    clock: Clock = 0


COMMAND = TypeAdapter(Command)
REPLY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any], config=ConfigDict(strict=True))
EVENTS: TypeAdapter[Event | list[Event]] = TypeAdapter(Event | list[Event])


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
    # Celery takes it as the request's name, for its log and for counts that it never forgets.
    shadow: None = None
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
BODY: TypeAdapter[tuple[list[Scalar], dict[str, Scalar], Options | None]] = TypeAdapter(
    tuple[list[Scalar], dict[str, Scalar], Options | None], config=ConfigDict(strict=True)
)

# What the contract itself names, so that it may be shown.
NAMES = frozenset(
    ["args", "kwargs", "application/json", "utf-8", "base64"]
    + [
        field.alias or name
        for model in (Envelope, Headers, Properties, DeliveryInfo, Options)
        for name, field in model.model_fields.items()
    ]
)
