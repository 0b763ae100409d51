"""Messages, good and bad: each bad one is the good one with one thing wrong, and what becomes of it."""

import json
import zlib
from base64 import b64encode
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from devstack.folder import PROJECT

QUEUE = "housekeeping"
TASK = "tasks.typing_indicators.expire"

# Taken from Redis after celery-node 0.5.9 on Node 20 had sent them; tests/messages/celery_node.js is what sent them:
#   npm install celery-node@0.5.9 && node celery_node.js redis://127.0.0.1:6379/0
CELERY_NODE = tuple(Path(__file__).with_name("celery_node.jsonl").read_bytes().splitlines())


# As printed.
DOCUMENTED = (PROJECT / "docs/api.md").read_text().partition("<!-- tested: message -->\n```json\n")[2].partition("```")[0]


def encoded(body: object) -> str:
    """Return a body as Celery encodes it."""
    return b64encode(json.dumps(body).encode()).decode()


def message(*args: object, task: str = TASK, queue: str = QUEUE, **kwargs: object) -> dict[str, Any]:
    """Return a message with all that Celery's own have; docs/api.md has the smallest."""
    task_id = str(uuid4())
    return {
        "body": encoded([list(args), kwargs, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "js",
            "task": task,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": (datetime.now(UTC) + timedelta(minutes=10)).isoformat(),
            "timelimit": [None, None],
            "argsrepr": "()",
            "kwargsrepr": "{}",
            "origin": "api",
            "ignore_result": True,
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def scan(*args: object, **kwargs: object) -> dict[str, Any]:
    """Return a message that asks for the scan of an attachment."""
    return message(*args, task="tasks.attachments.scan", queue="attachments", **kwargs)


def good() -> dict[str, Any]:
    """Return a message whose task runs and succeeds."""
    return message()


def without(*place: str) -> dict[str, Any]:
    """Return the good message without one part."""
    found = good()
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    del inner[place[-1]]
    return found


def with_(value: object, *place: str) -> dict[str, Any]:
    """Return the good message with another value in one place."""
    found = deepcopy(good())
    inner = found
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return found


def body(value: object) -> dict[str, Any]:
    return with_(encoded(value), "body")


def raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


_ODD: tuple[object, ...] = (None, True, 7, "x", [1], {"a": 1})
_TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
HEALS = None

# (what is wrong, the element, the defect it is kept under, or HEALS: its task runs). The first ten lines are the reference's.
BAD: list[tuple[str, object, str | None]] = [
    ("no id", without("headers", "id"), HEALS),
    ("body is a string", body("x"), "arguments"),
    ("body is an object", body({"args": [], "kwargs": {}}), HEALS),
    ("body is a list of two", body([[], {}]), HEALS),
    ("not JSON", b"{not json", "json"),
    ("no delivery_tag", without("properties", "delivery_tag"), HEALS),
    ("no delivery_info", without("properties", "delivery_info"), HEALS),
    ("no properties", without("properties"), HEALS),
    ("unknown task", with_("tasks.nothing", "headers", "task"), "task"),
    ("no headers", without("headers"), "task"),
    ("bad expires", with_("soon", "headers", "expires"), HEALS),
    ("bad eta", with_("later", "headers", "eta"), HEALS),
    ("bad content type", with_("application/x-python-serialize", "content-type"), HEALS),
    ("body cannot be decoded", with_("%%%", "body"), "arguments"),
    # Beyond the table
    ("empty", b"", "json"),
    ("random bytes", bytes(range(256)), "json"),
    ("not UTF-8", b'{"body": "\xff"}', "json"),
    ("half a message", raw(good())[:200], "json"),
    ("a JSON list", b"[]", "json"),
    ("a JSON null", b"null", "json"),
    ("a lone surrogate", raw(with_("\ud800", "headers", "id")), "json"),
    ("not a number", b'{"body": NaN}', "json"),
    ("an integer of 5000 digits", b'{"body": ' + b"9" * 5000 + b"}", "json"),
    ("nested a thousand deep", b"[" * 5000 + b"]" * 5000, "json"),
    ("nested as deep as the parser just goes", raw(good())[:-1] + b', "x": ' + b"[" * 900 + b"]" * 900 + b"}", HEALS),
    ("body nested a thousand deep", with_(b64encode(b"[" * 5000 + b"]" * 5000).decode(), "body"), "arguments"),
    ("arguments nested as deep as the parser just goes", with_(f"[{'[' * 900}{']' * 900}, {{}}]", "body"), "arguments"),
    ("a body of a megabyte", body([[], {"note": "x" * 2**20}, None]), "size"),
    ("said to be compressed", with_("gzip", "headers", "compression"), HEALS),
    ("a compressed body", with_(b64encode(zlib.compress(b"[[], {}, {}]")).decode(), "body"), "arguments"),
    ("a date that kombu cannot make", b'{"__type__": "datetime", "__value__": 5}', "task"),
    ("arguments that kombu would make a date of", body([[], {"__type__": "datetime", "__value__": 5}]), "arguments"),
    ("a null id", with_(None, "headers", "id"), HEALS),
    ("an id that has no hash", with_([1], "headers", "id"), HEALS),
    ("an empty id", with_("", "headers", "id"), HEALS),
    ("an id of two lines", with_("x\nforged", "headers", "id"), HEALS),
    ("a task that has no hash", with_({}, "headers", "task"), "task"),
    ("Celery's own celery.map", with_("celery.map", "headers", "task"), "task"),
    ("a backup on the queue of small jobs", message(task="tasks.backups.daily"), "task"),
    ("a header that Celery uses itself", with_(5, "headers", "get"), HEALS),
    ("eta tomorrow", with_(_TOMORROW, "headers", "eta"), "eta"),
    ("expires in the year 9999", with_("9999-12-31T23:59:59-12:00", "headers", "expires"), HEALS),
    ("expires is empty", with_("", "headers", "expires"), HEALS),
    ("expires is a number", with_(5, "headers", "expires"), HEALS),
    ("a million retries", with_(10**6, "headers", "retries"), HEALS),
    ("retries is null", with_(None, "headers", "retries"), HEALS),
    ("time limits of three", with_([1, 2, 3], "headers", "timelimit"), HEALS),
    ("a time limit of a year", with_([31_536_000, None], "headers", "timelimit"), HEALS),
    ("a time limit of no time at all", with_([1e-9, 1e-9], "headers", "timelimit"), HEALS),
    ("restored for ever", with_(1000, "headers", "x-restored"), "restored"),
    ("restored less than never", with_(-1, "headers", "x-restored"), HEALS),
    ("a name of its own", with_("x\n" * 1000, "headers", "shadow"), HEALS),
    ("a name of its own that is empty", with_("", "headers", "shadow"), HEALS),
    ("an unknown character set", with_("ebcdic", "content-encoding"), HEALS),
    ("an unknown body encoding", with_("rot13", "properties", "body_encoding"), HEALS),
    ("a tag that has no hash", with_([], "properties", "delivery_tag"), HEALS),
    ("to be put back elsewhere", with_("backups", "properties", "delivery_info", "routing_key"), HEALS),
    ("to be put back into unacked", with_("unacked", "properties", "delivery_info", "routing_key"), HEALS),
    ("a callback", body([[], {}, {"callbacks": [{"task": "tasks.backups.daily"}]}]), HEALS),
    ("an option that Celery knows nothing of", body([[], {}, {"x": 1}]), HEALS),
    ("a chain that is none", body([[], {}, {"chain": 5}]), HEALS),
    ("an argument too many", message(1), "arguments"),
    ("an argument that the task does not know", message(force=True), "arguments"),
    *((f"the element is {odd!r}", raw(odd), "json") for odd in _ODD[:-1]),
    *((f"headers are {odd!r}", with_(odd, "headers"), "task") for odd in _ODD[:-1]),
    *((f"properties are {odd!r}", with_(odd, "properties"), HEALS) for odd in _ODD[:-1]),
    *((f"the body is {odd!r}", with_(odd, "body"), HEALS if odd in (None, {"a": 1}) else "arguments") for odd in _ODD),
    *((f"delivery_info is {odd!r}", with_(odd, "properties", "delivery_info"), HEALS) for odd in _ODD),
    *((f"args are {odd!r}", body([odd, {}, None]), "arguments" if odd else HEALS) for odd in _ODD),
    *((f"kwargs are {odd!r}", body([[], odd, None]), "arguments" if odd else HEALS) for odd in _ODD),
    *((f"options are {odd!r}", body([[], {}, odd]), HEALS) for odd in _ODD[1:]),
]


def command(*, body: object = None, **headers: object) -> bytes:
    """Return a remote control command as Celery broadcasts it; headers as they stand, so that they need be no JSON of ours."""
    asked: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
    return raw(
        {
            "body": encoded(asked if body is None else body),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"clock": 1, "expires": 0, **headers},
            "properties": {
                "delivery_mode": 2,
                "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


# (what is wrong, the remote control command)
BAD_COMMANDS: list[tuple[str, bytes]] = [
    ("a clock of 4300 digits", command(clock=10**4300 - 1)),
    ("a clock past 64 bits", command(clock=2**63 + 1)),
    ("a clock that is text", command(clock="1")),
    ("a clock that is true", command(clock=True)),
    ("a clock that runs backwards", command(clock=-1)),
    ("a body that is a list", command(body=[])),
    ("a body that is a string", command(body="x")),
    ("no method", command(body={"arguments": {}})),
    ("a destination that is a number", command(body={"method": "ping", "destination": 5})),
    ("a reply to nowhere", command(body={"method": "ping", "reply_to": "x"})),
    ("another argument", command(body={"method": "ping", "self": 1})),
    ("a queue to leave that is a list", command(body={"method": "cancel_consumer", "arguments": {"queue": ["x"]}})),
    ("a queue to read that is a number", command(body={"method": "add_consumer", "arguments": {"queue": 5}})),
    ("an exchange of no type", command(body={"method": "add_consumer", "arguments": {"queue": "x", "exchange_type": "nope"}})),
]

# For the one task that takes an argument, on its own queue.
MISFITS: list[tuple[str, dict[str, Any]]] = [
    ("an id that is no number", scan("x")),
    ("an id that is null", scan(None)),
    ("an id that is a fraction", scan(1.5)),
    ("no id", scan()),
    ("two ids", scan(1, 2)),
    ("an id of another name", scan(attachment=1)),
]
