"""Whether a message's task exists, belongs on the queue it came on, and takes the arguments it was given."""

from collections.abc import Mapping
from functools import cache
from inspect import Parameter, Signature, signature
from typing import Any

from celery import Celery, Task
from pydantic import TypeAdapter, ValidationError

from workers.messages.contract import RefusedError
from workers.messages.envelope import Call

# The rest of the registry is Celery's own: celery.map and its like would call any task with any arguments.
OURS = "tasks."


def fits(call: Call, app: Celery[Any], queue: str) -> None:
    """Raise RefusedError unless a worker of `queue` can make the call."""
    own = queue_of(call.task, app)
    if own is None:
        raise RefusedError("headers.task", "no worker knows the task")
    if own != queue:
        raise RefusedError("headers.task", f"the task belongs on the queue {own!r}")
    takes(call, app.tasks)


def queue_of(task: str, app: Celery[Any]) -> str | None:
    """Return the queue that a task is routed to; None for one that does not exist."""
    if not task.startswith(OURS) or task not in app.tasks:
        return None
    return _routed(task, app)


@cache
def _routed(task: str, app: Celery[Any]) -> str:
    return str(app.amqp.router.route({}, task)["queue"].name)


def takes(call: Call, tasks: Mapping[str, Task[Any, Any]]) -> None:
    """Raise RefusedError unless the task takes these arguments: their number, their names and, where annotated, their types."""
    shape, types = _parameters(tasks[call.task])
    try:
        bound = shape.bind(*call.args, **call.kwargs)
    except TypeError:
        raise RefusedError("arguments", f"the task takes {shape}") from None
    for name, value in bound.arguments.items():
        try:
            if name in types:
                types[name].validate_python(value)
        except ValidationError:
            raise RefusedError("arguments", f"the task takes {shape}; {name} is of another type") from None


@cache
def _parameters(task: Task[Any, Any]) -> tuple[Signature, dict[str, TypeAdapter[Any]]]:
    shape = signature(task.run, eval_str=True).replace(return_annotation=Signature.empty)
    several = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
    annotated = [p for p in shape.parameters.values() if p.annotation is not p.empty and p.kind not in several]
    return shape, {p.name: TypeAdapter(p.annotation) for p in annotated}
