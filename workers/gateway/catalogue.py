"""The catalogue of jobs that the API may start: the task, the body that it takes, and whether requests coalesce."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from db.identity import HIGHEST_ID, LOWEST_ID
from tasks.jobs import TASKS

MOST_AT_ONCE = 100
# Ours, and what a Directus trigger calls them.
ONE, SEVERAL = ("attachment_id", "key"), ("attachment_ids", "keys")
READER = ("recipient_id", "conversation_id")

Arguments = list[tuple[int, ...]]


class BodyError(ValueError):
    """A body that the job cannot use; the text is a sentence for the API's developer."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as the API sees it.

    `arguments` gives those of each message that a body makes, or raises BodyError. A message that no worker has taken within
    `expires` seconds has been overtaken by the sweep, which comes every `sweep_seconds`, or never where that is 0. Requests for
    a job that `coalesces` share a message if they come at once.
    """

    task: str
    arguments: Callable[[Mapping[str, Any]], Arguments]
    expires: int
    sweep_seconds: int
    coalesces: bool
    summary: str
    description: str
    schema: Mapping[str, Any]

    @property
    def queue(self) -> str:
        return TASKS[self.task].queue


def _attachments(body: Mapping[str, Any]) -> Arguments:
    """Return an id a message, from {"attachment_id": 12}, {"attachment_ids": [12, 13]}, or a Directus trigger's key or keys."""
    ids = [_id(name, body[name]) for name in ONE if name in body]
    for name in SEVERAL:
        if name in body:
            found = body[name]
            if not isinstance(found, list) or not 1 <= len(found) <= MOST_AT_ONCE:
                raise BodyError(f"{name} must be a list of 1 to {MOST_AT_ONCE} ids.")
            ids += [_id(name, each) for each in found]
    if not ids:
        raise BodyError('The body names no attachment; expected {"attachment_id": 12} or {"attachment_ids": [12, 13]}.')
    return [(number,) for number in dict.fromkeys(ids)]


def _reader(body: Mapping[str, Any]) -> Arguments:
    """Return who has read, or is not to read, and where."""
    for name in READER:
        if name not in body:
            raise BodyError(f'The body names no {name}; expected {{"recipient_id": 5, "conversation_id": 1}}.')
    return [tuple(_id(name, body[name]) for name in READER)]


def _id(name: str, value: object) -> int:
    # A template such as "{{$trigger.key}}" makes a text of a number, perhaps with a line's end.
    if isinstance(value, str) and value.isascii() and value.strip().removeprefix("-").isdigit() and len(value) <= 20:
        value = int(value)
    # JSON knows no difference between 12 and 12.0; a number of more bits comes rounded.
    if isinstance(value, float) and value.is_integer() and abs(value) <= HIGHEST_ID:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not value or not LOWEST_ID <= value <= HIGHEST_ID:
        raise BodyError(f"{name} must hold the id of a row: a whole number of 64 bits, and not 0.")
    return value


_ID = {
    "description": "The row's id; a number, or a number as text.",
    "anyOf": [
        {"type": "integer", "format": "int64", "not": {"const": 0}},
        {"type": "string", "pattern": "^-?[1-9][0-9]{0,17}$"},
    ],
}
_IDS = {"type": "array", "items": _ID, "minItems": 1, "maxItems": MOST_AT_ONCE}

EVENTS = "events"
"""What a token may be for besides jobs: reading events."""
CATALOGUE: dict[str, Job] = {
    "notifications": Job(
        task="tasks.notifications.drain",
        arguments=lambda _body: [()],
        expires=60,
        sweep_seconds=5,
        coalesces=True,
        summary="Send the PENDING notifications now",
        description="After the commit that inserted into `chat_notifications`. The body may be absent, or any JSON object: it "
        "is not looked at. Requests that come within 50 ms share a message (`coalesced`), and are answered when it is in its "
        "queue. Without a nudge the rows are sent within 5 s.",
        schema={"type": "object"},
    ),
    "attachments": Job(
        task="tasks.attachments.scan",
        arguments=_attachments,
        expires=600,
        sweep_seconds=10,
        coalesces=False,
        summary="Scan attachments now",
        description="After the commit that inserted into `message_attachments`. Other fields of the body are not looked at, so "
        "that a Directus Flow may send its whole trigger. Without a nudge the rows are scanned within 10 s.",
        schema={
            "type": "object",
            "anyOf": [{"required": [name]} for name in (*ONE, *SEVERAL)],
            "properties": {**dict.fromkeys(ONE, _ID), **dict.fromkeys(SEVERAL, _IDS)},
        },
    ),
    "withdrawals": Job(
        task="tasks.notifications.withdraw",
        arguments=_reader,
        expires=60,
        sweep_seconds=0,
        coalesces=False,
        summary="Take away what phones show of messages read elsewhere or deleted",
        description="After the commit that marked them so, where an app of PUSH_APPS_FILE asks for it. A request that is lost "
        "leaves what is shown as it is.",
        schema={"type": "object", "required": [*READER], "properties": dict.fromkeys(READER, _ID)},
    ),
}
