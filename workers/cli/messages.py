"""`chat-workers messages`: list and discard the messages that no worker can run."""

import re

import click
from redis.exceptions import RedisError

from workers.cli.group import Group, always
from workers.cli.output import Table, emit
from workers.messages import rejected
from workers.messages.rejected import MOST_KEPT
from workers.operations.reader import client

ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


@click.group("messages", cls=Group, errors=(RedisError,))
def group() -> None:
    """Messages that no worker can run: list, discard."""


@group.command("list")
@click.option("--limit", type=click.IntRange(1, MOST_KEPT), default=50, show_default=True)
def list_messages(limit: int) -> None:
    """List kept messages, the newest first, and how many were refused in all. What is in them is not shown."""
    counts = rejected.rejected_counts(client())
    found = list(rejected.kept(client()))
    messages = [{name: value for name, value in kept.items() if name != "raw"} for kept in found[:limit]]
    refused = [{"queue": q, "defect": d, "count": n} for (q, d), n in sorted(counts.items())]
    rows = [(kept["id"], kept["at"], kept["queue"], kept["size"], f"{kept['defect']}: {kept['detail']}") for kept in messages]
    said = f"{len(found)} kept, {sum(counts.values())} refused since the counts began"
    lines = (Table(("id", "at", "queue", "bytes", "defect"), rows), said)
    emit({"messages": messages, "refused": refused}, lines)


@group.command(changes=always)
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are kept.")
def discard(ids: tuple[str, ...], everything: bool) -> None:
    """Remove kept messages. Exit code 1 if one was not there."""
    if bool(ids) == everything:
        raise click.UsageError("name the ids of messages, or --all")
    if bad := [identity for identity in ids if not ID.fullmatch(identity)]:
        raise click.UsageError(f"{bad[0]!r} is no id; `chat-workers messages list` shows them")
    chosen = [kept["id"] for kept in rejected.kept(client())] if everything else [*dict.fromkeys(ids)]
    gone = int(client().xdel(rejected.KEPT, *chosen)) if chosen else 0
    emit({"named": len(chosen), "discarded": gone}, [f"discarded {gone} of {len(chosen)}"], wrong=gone < len(chosen))
