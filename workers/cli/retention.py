"""`chat-workers retention`: preview, run, pause, and look back at what was deleted; set policies."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeVar

import click
from redis import RedisError

from db.engine import get_engine
from db.locks import LockedError
from settings import ConfigurationError
from tasks import pause
from tasks.audit import who
from tasks.retention import ledger, rules
from tasks.retention.archive import destination
from tasks.retention.files import Files
from tasks.retention.plan import Plan, plan
from tasks.retention.policies import POLICIES, Policy
from tasks.retention.rules import FIELDS, RuleError
from tasks.retention.run import FAILURES, Report, run_policy
from tasks.words import duration
from workers.cli import pauses
from workers.cli.group import Group, always, if_told
from workers.cli.output import Line, Table, emit, say
from workers.cli.pauses import pause_options
from workers.cli.progress import asked_to_stop, policies_done, with_pace
from workers.forget import elsewhere, forget
from workers.operations.reader import client

T = TypeVar("T")
POLICY = click.Choice(tuple(POLICIES))
policy_option = click.option(
    "--policy", "policies", type=POLICY, multiple=True, help="Only this one; may be given more than once."
)


@click.group("retention", cls=Group, errors=(RuleError, LockedError, RedisError))
def group() -> None:
    """Deletes what has had its time: plan, run, pause, resume, history, policy; and what is kept of one person: forget."""


@group.command("plan")
@policy_option
@click.option("--seconds", default=60.0, show_default=True, help="Counting takes this long at most, for each policy.")
def plan_command(policies: tuple[str, ...], seconds: float) -> None:
    """Say what a run would do now: rows, their age, how long it takes, the query's plan. Locks nothing."""
    _show_plans(policies, seconds)


def _show_plans(policies: tuple[str, ...], seconds: float) -> None:
    with policies_done() as bars:
        work = lambda each: plan(get_engine(), each, seconds=seconds, progress=bars(each))  # noqa: E731
        plans, faults = _each(_chosen(policies), work)
    emit([{**asdict(p), "seconds": p.seconds, "runs": p.runs} for p in plans] + faults, _plans(plans))
    _end(faults)


def _each(policies: Sequence[Policy], work: Callable[[Policy], T]) -> tuple[list[T], list[dict[str, Any]]]:
    """Return what is found of each policy, and of those whose rules are unusable their faults."""
    found, faults = list[T](), list[dict[str, Any]]()
    for policy in policies:
        try:
            found.append(work(policy))
        except RuleError as error:
            faults.append({"policy": policy.name, "fault": str(error)})
    return found, faults


def _end(faults: list[dict[str, Any]]) -> None:
    say(*(f"Error: {fault['fault']}; nothing of {fault['policy']} is run" for fault in faults), err=True)
    if faults:
        raise SystemExit(1)


def _plans(plans: Sequence[Plan]) -> Iterator[Line]:
    yield Table(("policy", "rows", "oldest", "newest", "older than", "takes", "now"), [_plan_row(each) for each in plans])
    for each in plans:
        for step in each.explain:
            yield f"{each.policy}: reads by {step['key']} ({step['type']}), about {step['rows']} rows a window"
        yield from each.foreign_keys


def _plan_row(each: Plan) -> tuple[object, ...]:
    count = each.count
    takes = f"{'' if each.measured else 'about '}{duration(each.seconds)}" if count.rows else "-"
    if not count.complete:
        takes = "unknown"
    elif each.runs > 1:
        takes += f", in {each.runs} runs"
    rows = f"{count.rows:,}" if count.complete else f"at least {count.rows:,}"
    return each.policy, rows, count.oldest or "-", count.newest or "-", each.age, takes, each.why_not or "would run"


@group.command("run", changes=if_told)
@policy_option
@click.option("--dry-run", is_flag=True, help="Count all that would go, however long it takes; nothing is locked or written.")
@click.option("--any-hour", is_flag=True, help="Also outside the policy's hours.")
def run_command(policies: tuple[str, ...], dry_run: bool, any_hour: bool) -> None:
    """Run policies now, within their limits. Ctrl-C ends cleanly after the batch under way; the next run does the rest.

    Exit code 1 if a run failed, or if a policy that you named did not run.
    """
    if dry_run:
        _show_plans(policies, math.inf)
        return
    reports: list[Report] = []
    failures: list[str] = []
    with asked_to_stop() as stop, policies_done() as bars:
        for policy in _chosen(policies):
            if stop():
                break
            try:
                reports.append(
                    run_policy(get_engine(), policy, by=who(), any_hour=any_hour, stop=stop, progress=with_pace(bars(policy)))
                )
            except FAILURES as error:
                failures.append(str(error))
    emit({"runs": reports, "failures": failures}, map(_sentence, reports))
    say(*failures, err=True)
    if failures or (policies and sum(report.started for report in reports) < len(policies)):
        raise SystemExit(1)


def _sentence(report: Report) -> str:
    if not report.started:
        return f"{report.policy}: did not run: {report.why}"
    verb = "deleted" if POLICIES[report.policy].deletes else "changed"
    pace = f", {report.rows / report.seconds:,.0f} rows/s" if report.rows >= 1000 else ""
    held = f", held back for {duration(report.held_seconds)}" if report.held_seconds else ""
    rest = "" if report.finished else "; the next run goes on"
    return f"{report.policy}: {verb} {report.rows:,} rows in {duration(report.seconds)}{pace}{held}: {report.why}{rest}"


@group.command("pause", changes=always)
@policy_option
@pause_options
def pause_command(policies: tuple[str, ...], lasting: timedelta | None, why: str) -> None:
    """Let no run start; one under way ends behind its batch, mostly within a second. All policies, unless named."""
    pauses.pause(_pauses(policies), lasting, why, "retention resume")


@group.command("resume", changes=always)
@policy_option
def resume_command(policies: tuple[str, ...]) -> None:
    """Take a pause back. All policies, unless named."""
    with get_engine().begin() as connection:
        connection.execute(rules.RESUME_BEFORE, {"names": [*(policies or POLICIES)]})
    pauses.resume(_pauses(policies))


def _pauses(policies: Sequence[str]) -> list[str]:
    return [pause.POLICY + name for name in policies or POLICIES]


def _chosen(names: Sequence[str]) -> list[Policy]:
    return [POLICIES[name] for name in names or POLICIES]


@group.command("history")
@click.option("--policy", type=POLICY, help="Only this one.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="So many runs.")
def history_command(policy: str | None, limit: int) -> None:
    """List the latest runs: who, when, rows, seconds, why they ended."""
    with get_engine().connect() as connection:
        runs = ledger.history(connection, policy, limit)
    for run in runs:
        run["seconds"] = float(run["seconds"])
        if run["ended_at"] is None:
            run["ended_because"] = "running" if ledger.is_running(get_engine(), run["policy"]) else "died"
    header = ("policy", "started", "by", "rows", "took", "ended")
    emit(runs, [Table(header, [_run_row(run) for run in runs], empty="nothing has run yet")])


def _run_row(run: dict[str, Any]) -> tuple[object, ...]:
    rows, took = f"{run['rows_done']:,}", duration(run["seconds"])
    return (run["policy"], run["started_at"], run["started_by"], rows, took, run["ended_because"])


@group.command("forget", changes=if_told)
@click.argument("recipient", type=click.IntRange(1))
@click.option("--yes", is_flag=True, help="Do it; without this what is kept is only counted.")
def forget_command(recipient: int, yes: bool) -> None:
    """Delete what the workers keep of a user, in batches; Ctrl-C ends behind one. Shows first; --yes does it.

    The chat's own tables are the API's to clear, and first: of what is there still, the workers keep what they need.
    """
    with asked_to_stop() as stop:
        found = forget(get_engine(), client(), recipient, stop if yes else None)
    left = sum(forget(get_engine(), client(), recipient, None).values()) if yes else 0
    rest = elsewhere(get_engine())
    kept = [(each["what"], each["gone"] or "never") for each in rest]
    lines: list[Line] = [
        Table(("where", "deleted" if yes else "would be deleted"), list(found.items())),
        *([f"{left:,} are left: it was stopped, or they were locked; run it again"] if left else []),
        *([] if yes else ["nothing was changed; add --yes to delete it"]),
        Table(("not rewritten, and may hold more", "gone by"), kept),
        "In a bucket, noncurrent versions, quarantine and retention's archives stay for as long as its lifecycle says.",
    ]
    emit({"recipient": recipient, "rows": sum(found.values()), "found": found, "elsewhere": rest}, lines, wrong=left)


@group.group("policy")
def policy_group() -> None:
    """What each policy is set to, and by whom."""


@policy_group.command("list")
def policy_list() -> None:
    """List the policies. A value that is not the default but set in the table worker_retention_policies is marked *."""
    with get_engine().connect() as connection:
        found, faults = _each(_chosen(()), lambda policy: (policy, rules.read(connection, policy)))
    listed = [
        {"policy": p.name, "does": p.does, **r.texts, "sources": r.sources, "paused_by": r.paused_by, "now": r.why_not()}
        for p, r in found
    ]
    emit(listed + faults, _policies(listed))
    _end(faults)


def _policies(listed: list[dict[str, Any]]) -> Iterator[Line]:
    def marked(each: dict[str, Any], name: str, value: object) -> str:
        if isinstance(value, int):
            value = ("no", "yes")[value] if isinstance(value, bool) else f"{value:,}"
        return f"{value}{'*' if each['sources'][name] == 'table' else ''}"

    shown = [name for name in FIELDS if name != "enabled"]  # `now` says it
    yield Table(("policy", *shown), [(each["policy"], *(marked(each, name, each[name]) for name in shown)) for each in listed])
    yield ""
    now = [(each["policy"], marked(each, "enabled", each["now"] or "may run"), each["does"]) for each in listed]
    yield Table(("policy", "now", "does"), now)


@policy_group.command("set", changes=always)
@click.argument("policy", type=POLICY)
@click.option("--enabled/--disabled", default=None)
@click.option("--age", help="Rows older than this: a number and s, m, h or d, as in 90d.")
@click.option("--hours", help="Hours of the day in UTC, as in 1-5 or 22-4; or any.")
@click.option("--rows-per-run", type=int)
@click.option("--minutes-per-run", type=int)
@click.option("--batch-rows", type=int, help="The most rows of one transaction.")
@click.option("--archive/--no-archive", default=None, help="Rows go into a file before they are deleted.")
@click.option("--default", "defaults", multiple=True, type=click.Choice(FIELDS), help="Take this field back to its default.")
def policy_set(policy: str, defaults: tuple[str, ...], **fields: Any) -> None:
    """Set fields of a policy; a run under way ends behind its batch, and the next one obeys."""
    changes = {name: value for name, value in fields.items() if value is not None} | dict.fromkeys(defaults)
    if not changes:
        raise click.UsageError("nothing to set; see --help for the fields")
    try:
        target = POLICIES[policy].target
        if changes.get("archive") and POLICIES[policy].archives:
            destination(POLICIES[policy])
        if changes.get("enabled") and isinstance(target, Files):
            target.folder  # noqa: B018 - it is asked for here too, so that nobody relies on what cannot run
        with get_engine().begin() as connection:
            rules.change(connection, POLICIES[policy], changes)
    except (RuleError, ConfigurationError) as error:
        raise click.UsageError(str(error)) from None
    words = (f"{name} = {'the default' if value is None else value}" for name, value in changes.items())
    emit({"policy": policy, "set": changes}, [f"{policy}: {', '.join(words)}"])
