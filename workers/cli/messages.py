"""`chat-workers messages`: what was put on the queues that no worker can run, why, and playing it again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import click
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from tasks.jobs import QUEUES
from tasks.words import moment
from workers.cli.group import Group
from workers.cli.output import Line, Table, as_json_option, emit
from workers.json_text import json_text
from workers.messages import envelope, rejected
from workers.messages.call import OURS
from workers.messages.contract import DEFECTS, NAMES, RefusedError
from workers.messages.rejected import MOST_KEPT, Rejected
from workers.messages.replay import outline, readable_call, replay

IDS = click.argument("ids", nargs=-1, required=True)


@click.group("messages", cls=Group)
def group() -> None:
    """Messages that no worker can run: list, show, replay, discard."""


@group.command("list")
@click.option("--queue", type=click.Choice(QUEUES), help="Only those that came on this queue.")
@click.option("--defect", type=click.Choice(list(DEFECTS)), help="Only those with this fault.")
@click.option("--limit", type=click.IntRange(1, MOST_KEPT), default=50, show_default=True)
@as_json_option
def list_messages(queue: str | None, defect: str | None, limit: int, as_json: bool) -> None:
    """List kept messages, the newest first, and how many were refused in all."""
    with _redis() as redis:
        counts, dropped = rejected.rejected_counts(redis), rejected.dropped_count(redis)
        found = [k for k in rejected.kept(redis) if queue in {None, k.queue} and defect in {None, k.defect}]
    rows = [_row(kept) for kept in found[:limit]]
    refused = [{"queue": q, "defect": d, "count": n} for (q, d), n in sorted(counts.items())]
    table = [(r["id"], r["at"], r["queue"], r["task"] or "-", r["size"], r["defect"]) for r in rows]
    lines: list[Line] = [Table(("id", "at", "queue", "task", "bytes", "defect"), table)]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit} more; see --limit")
    lines.append(
        f"{len(found)} kept, {sum(counts.values())} refused since the counts began, {dropped} pushed out by newer ones"
    )
    emit({"messages": rows, "refused": refused, "pushed_out": dropped}, as_json, lines)


@group.command()
@click.argument("identity", metavar="ID")
@click.option("--raw", is_flag=True, help="Write the bytes that were kept to stdout, as they came. They may hold secrets.")
@as_json_option
def show(identity: str, raw: bool, as_json: bool) -> None:
    """Show one kept message: what is wrong, and its outline, with sizes in place of content."""
    with _redis() as redis:
        kept = _found(redis, identity)
    if raw:
        sys.stdout.buffer.write(kept.raw)
        return
    drawn = _outline(kept)
    row = {**_row(kept), "detail": kept.detail, "sha256": kept.sha256, "whole": kept.whole, "outline": drawn}
    emit(row, as_json, _show(kept, drawn))


def _show(kept: Rejected, drawn: Any) -> Iterator[Line]:
    yield f"{kept.id}  {moment(kept.at)}  queue {kept.queue}  {kept.size} bytes  sha256 {kept.sha256[:16]}"
    yield f"{kept.defect}: {kept.detail} ({DEFECTS[kept.defect]})"
    yield from [drawn] if isinstance(drawn, str) else json_text(drawn).splitlines()
    task = _row(kept)["task"]
    yield f"It asks for {task}." if task else "It asks for no task of ours that could be read from it; it cannot be replayed."


@group.command("replay")
@IDS
@as_json_option
def replay_command(ids: tuple[str, ...], as_json: bool) -> None:
    """Send what kept messages ask for again, in good form, and remove them. Exit code 1 if one could not be."""
    from workers.app import app

    app.loader.import_default_modules()
    results: list[dict[str, Any]] = []
    with _redis() as redis:
        for identity in dict.fromkeys(ids):
            try:
                # Sent, then removed: what is cut off between the two can be sent twice, which a nudge may be.
                call = replay(_found(redis, identity), app)
                rejected.discard(redis, identity)
                results.append({"id": identity, "replayed": True, "task": call.task, "task_id": call.id})
            except (RefusedError, click.ClickException) as error:
                results.append({"id": identity, "replayed": False, "reason": str(error)})
    _report(results, "replayed", as_json)


@group.command()
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are kept.")
@as_json_option
def discard(ids: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove kept messages. Exit code 1 if one was not there."""
    if bool(ids) == everything:
        raise click.UsageError("name the ids of messages, or --all")
    with _redis() as redis:
        chosen = [kept.id for kept in rejected.kept(redis)] if everything else list(dict.fromkeys(ids))
        results: list[dict[str, Any]] = []
        for identity in chosen:
            gone = rejected.discard(redis, _checked(identity))
            results.append({"id": identity, "discarded": gone} | ({} if gone else {"reason": "it is not, or no longer, kept"}))
    _report(results, "discarded", as_json)


@contextmanager
def _redis() -> Iterator[Redis]:
    from workers.app import app

    try:
        # kombu's client: by URL, TLS or Sentinel.
        with app.connection_for_read() as connection:
            yield cast(Any, connection.default_channel).client
    except (RedisError, OperationalError) as error:
        raise click.ClickException(f"Redis at CELERY_BROKER_URL, where the messages are, cannot be used: {error}") from None


def _checked(identity: str) -> str:
    first, dash, second = identity.partition("-")
    if not (dash and first.isdecimal() and second.isdecimal() and len(identity) < 40):
        raise click.UsageError(f"{identity!r} is no id; `chat-workers messages list` shows them")
    return identity


def _found(redis: Redis, identity: str) -> Rejected:
    kept = rejected.find(redis, _checked(identity))
    if kept is None:
        raise click.ClickException(f"{identity} is not, or no longer, kept")
    return kept


def _row(kept: Rejected) -> dict[str, Any]:
    try:
        task = readable_call(kept).task
    except RefusedError:
        task = None
    return {
        "id": kept.id,
        "at": kept.at,
        "queue": kept.queue,
        "defect": kept.defect,
        "size": kept.size,
        # Another name is content: anything may stand there.
        "task": task if task in _known() else None,
    }


def _outline(kept: Rejected) -> Any:
    try:
        message = envelope.load(kept.raw)
        body = envelope.body(message)
    except RefusedError:
        return f"Its first bytes: {kept.raw[:64]!r}"
    return outline({**message, "body": body}, _known() | NAMES | frozenset(QUEUES))


def _known() -> frozenset[str]:
    from workers.app import app

    app.loader.import_default_modules()
    return frozenset(name for name in app.tasks if name.startswith(OURS))


def _report(results: list[dict[str, Any]], done: str, as_json: bool) -> None:
    said = (" ".join([done, r.get("task", "")]).rstrip() if r[done] else r["reason"] for r in results)
    emit(results, as_json, [f"{r['id']}: {text}" for r, text in zip(results, said, strict=True)])
    if not all(result[done] for result in results):
        raise SystemExit(1)
