"""How a kept message is played again: what it asks for is read from it as far as it can be, and sent anew, in good form."""

from typing import Any
from uuid import uuid4

from celery import Celery

from workers.messages import envelope
from workers.messages.call import queue_of, takes
from workers.messages.contract import RefusedError
from workers.messages.envelope import Call
from workers.messages.rejected import Rejected


def readable_call(kept: Rejected) -> Call:
    """Return the task and arguments that a kept message asks for, though something else in it is wrong. Raise RefusedError.

    Both of Celery's protocols are understood: the name in the headers, or all of it in the body.
    """
    if not kept.whole:
        raise RefusedError("size", f"only its first {len(kept.raw)} bytes were kept")
    message = envelope.load(kept.raw)
    body = envelope.body(message)
    headers = message.get("headers")
    asked = headers if isinstance(headers, dict) else {}
    args, kwargs = None, None
    if isinstance(body, list) and len(body) >= 2:
        args, kwargs = body[:2]
    elif isinstance(body, dict):
        asked = {**body, **asked}
        args, kwargs = body.get("args", []), body.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise RefusedError("body", "its arguments cannot be read from it")
    task, task_id = asked.get("task"), asked.get("id")
    if not isinstance(task, str):
        raise RefusedError("headers.task", "it names no task")
    return Call(task, task_id if isinstance(task_id, str) and 0 < len(task_id) <= 255 else str(uuid4()), args, kwargs)


def replay(kept: Rejected, app: Celery[Any]) -> Call:
    """Send what a kept message asks for to the queue of its task, and return it. Raise RefusedError if no worker can do it."""
    call = readable_call(kept)
    queue = queue_of(call.task, app)
    if queue is None:
        raise RefusedError("headers.task", "no worker knows the task it names")
    takes(call, app.tasks)
    app.send_task(call.task, call.args, call.kwargs, task_id=call.id, queue=queue, retry=False)
    return call


def outline(value: Any, known: frozenset[str]) -> Any:
    """Return JSON with each value replaced by its type and size; words of `known` are left, all else may be content."""
    if isinstance(value, dict):
        return {name if name in known else f"({len(name)} characters)": outline(part, known) for name, part in value.items()}
    if isinstance(value, list):
        return [outline(part, known) for part in value[:20]] + ([f"({len(value) - 20} more)"] if len(value) > 20 else [])
    if value is None or isinstance(value, bool) or value in known:
        return value
    if isinstance(value, str):
        return f"({len(value)} characters)"
    return f"({type(value).__name__})"
