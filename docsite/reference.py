"""The reference: pages made from the settings, commands, tasks, routes, tables and facts, so that they cannot drift."""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import Column

from beat_schedule import BEAT_SCHEDULE
from db.models import SHARED
from db.privileges import worker_tables
from settings import Settings
from tasks.facts import PREFIX, Alert, AnyFact, Counter, Histogram
from tasks.jobs import JOBS, owner
from workers.cli import cli
from workers.gateway.app import make_app
from workers.operations.alerts import GATEWAY_DOWN
from workers.operations.snapshot import FACTS

PROJECT = Path(__file__).parents[1]
SETTING = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")


def pages() -> dict[str, str]:
    """Return the pages by name, in Markdown."""
    made = (settings, commands, tasks, http, tables, metrics, alerts)
    return {page.__name__: "\n".join(page()) + "\n" for page in made}


def settings() -> Iterator[str]:
    """The fields of settings.py in their groups, with the values and comments of .env.example; a test compares the two."""
    yield "# Settings\n"
    yield "Every environment variable that the workers read. A wrong value stops a process at its start with one sentence that"
    yield "names it. The values are defaults, or examples where nothing is the default; `.env.example` has them as a file."
    shown = _example()
    groups: dict[str, list[tuple[str, str, str]]] = {}
    for group, variable, said in _fields():
        if variable in shown:
            value, comment = shown.pop(variable)
            groups.setdefault(group, []).append((code(variable), code(value), comment or said))
    groups["Processes of the Procfile"] = [
        (code(variable), code(value), comment) for variable, (value, comment) in shown.items()
    ]
    for group, rows in groups.items():
        yield f"\n## {group}\n"
        yield from table(("variable", "value", "meaning"), rows)


def _fields() -> Iterator[tuple[str, str, str]]:
    """Yield the group, variable and docstring of each field, as they stand in settings.py."""
    group = "Database and broker"
    lines = inspect.getsource(Settings).splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if match := re.fullmatch(r"    # ([A-Z].*)", line):
            group = match[1].partition(",")[0].partition(":")[0]
        elif match := re.match(r"    ([a-z][a-z0-9_]+): ", line):
            docstring = re.fullmatch(r'    """(.*)"""', after)
            yield group, match[1].upper(), docstring[1] if docstring else ""


def _example() -> dict[str, tuple[str, str]]:
    """Return the value and the comment of each variable in .env.example."""
    found, said = {}, list[str]()
    for line in (PROJECT / ".env.example").read_text().splitlines():
        if match := SETTING.fullmatch(line):
            found[match[1]] = match[2], " ".join(said)
            said = []
        else:
            said = [*said, line.removeprefix("#").strip()] if line else []
    return found


def commands() -> Iterator[str]:
    """The command line's own help."""
    yield "# Commands\n"
    yield "What `--help` says, command by command. Exit codes: 0 done, 1 the work failed, 2 bad usage or configuration.\n"
    yield from _command(cli, click.Context(cli, info_name="chat-workers"))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if context.parent:
        yield f"{'##' if context.parent.parent is None else '###'} {context.command_path}\n"
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield f"```text\n{command.get_help(context)}\n```\n"
    elif context.parent:
        yield f"{inspect.cleandoc(command.help or '')}\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if sub := command.get_command(context, name):
                yield from _command(sub, click.Context(sub, info_name=name, parent=context))


def tasks() -> Iterator[str]:
    """tasks/jobs.py, the tasks' own words, and beat_schedule.py."""
    yield "# Tasks and schedule\n"
    yield "A job is a package in `tasks/`. Nothing starts its tasks where a setting that they need is not set."
    for job in JOBS:
        yield f"\n## {job.name}\n\nQueue `{job.queue}`." + _needed(job.needs)
        tables = [name for name in worker_tables() if name.startswith(job.tables)] if job.tables else []
        yield f"Tables: {', '.join(f'[`{name}`](tables.md#{name})' for name in tables)}.\n" if tables else ""
        module = import_module(f"tasks.{job.name}.task")
        rows = [
            (code(f"tasks.{job.name}.{task}"), _first(getattr(module, task).__doc__), _variables(needs))
            for task, needs in job.tasks.items()
        ]
        yield from table(("task", "what it does", "needs besides"), rows)
    yield "\n## Schedule\n\nWhat beat starts, in UTC. A message that no worker took within the last column's time is dropped.\n"
    entries = [
        (code(name), code(entry["task"]), code(entry["schedule"]), f"{entry['options']['expires']} s")
        for name, entry in BEAT_SCHEDULE.items()
    ]
    yield from table(("entry", "task", "when", "dropped after"), entries)


def http() -> Iterator[str]:
    """The gateway's OpenAPI document."""
    document = make_app().openapi()
    yield "# HTTP\n\nThe gateway's routes, as its `/openapi.json` has them. How to call them: [api](../api.md).\n"
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            yield f"## {method.upper()} {path}\n\n{route.get('description') or route.get('summary', '')}\n"
            parameters = [
                (code(p["name"]), p["in"], "yes" if p.get("required") else "", p.get("description", ""))
                for p in route.get("parameters", ())
            ]
            yield from table(("parameter", "in", "required", "meaning"), parameters)
            if body := route.get("requestBody"):
                for kind, content in body["content"].items():
                    yield from _schema(f"Body, {code(kind)}", content["schema"], document)
            answers = [
                (status, ", ".join(code(kind) for kind in answer.get("content", ())), answer["description"])
                for status, answer in sorted(route["responses"].items())
            ]
            yield from table(("answer", "type", "meaning"), answers)


def _schema(title: str, schema: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    if reference := schema.get("$ref"):
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    yield f"{title}:\n"
    required = schema.get("required", ())
    rows = [
        (code(name), found.get("type", ""), "yes" if name in required else "", found.get("description", ""))
        for name, found in schema.get("properties", {}).items()
    ]
    yield from table(("field", "type", "required", "meaning"), rows)


def tables() -> Iterator[str]:
    """The models of the shared tables, and the migrations of those that the workers own."""
    yield "# Tables\n\nThe workers own `worker_…`, and make it by `chat-workers db migrate`. The others are the API's.\n"
    yield "## Owned by the workers\n"
    statements = _statements()
    for name in worker_tables():
        comment = re.search(r"COMMENT='chat-workers: (.*)'\s*$", statements[name][0])
        yield f"### {name}\n\n{_sentence(comment[1]) if comment else ''} Job: {owner(name)}.\n"
        yield from (f"```sql\n{statement.strip()};\n```\n" for statement in statements[name])
    yield "## Shared with the API\n\nAs the workers rely on them; a table may have more.\n"
    for name, model in sorted(SHARED.tables.items()):
        yield f"### {name}\n\n{model.info['says']}\n"
        yield from table(("column", "type", "default", "refers to"), [_column(column) for column in model.columns])


def _column(column: "Column[Any]") -> tuple[str, ...]:
    kind = column.type.compile(dialect=mysql.dialect())
    default = getattr(column.server_default, "arg", "")
    keys = ", ".join(code(key.target_fullname) for key in column.foreign_keys)
    return code(column.name), code(kind + ("" if column.nullable else " NOT NULL")), code(str(default)), keys


def _statements() -> dict[str, list[str]]:
    """Return by table what the migrations do to it, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(PROJECT / "db/migrations"))
    found: dict[str, list[str]] = {}
    for revision in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        for value in vars(revision.module).values():
            if isinstance(value, str) and (made := re.search(r"CREATE TABLE IF NOT EXISTS (worker_\w+)", value)):
                found.setdefault(made[1], []).append(value)
        for name, _, change in getattr(revision.module, "CHANGES", ()):
            found[name].append(f"ALTER TABLE {name}\n  {change.strip()}")
    return found


def metrics() -> Iterator[str]:
    """The facts."""
    yield "# Metrics\n\nWhat the gateway serves at `/metrics`; [operations](../operations.md) says how to scrape it.\n"
    rows = [(code(_series(fact)), _kind(fact), ", ".join(map(code, fact.labels or ())), fact.help) for fact in FACTS]
    yield from table(("metric", "kind", "labels", "meaning"), rows)


def alerts() -> Iterator[str]:
    """The facts' thresholds."""
    yield "# Alerts\n\nThe rules of `deploy/prometheus/alerts.yml`, by `chat-workers alerts`. Each links to what to do.\n"
    made = [(GATEWAY_DOWN, "no scrape answers")]
    made += [(fact.alert, _threshold(fact, fact.alert)) for fact in FACTS if fact.alert]
    rows = [
        (f"[{alert.name}](../runbook.md#{alert.name.lower()})", alert.severity, code(when), f"{alert.minutes} min", alert.says)
        for alert, when in sorted(made, key=lambda pair: (pair[0].severity, pair[0].name))
    ]
    yield from table(("alert", "severity", "fires when", "for", "says"), rows)


def _threshold(fact: AnyFact, alert: Alert) -> str:
    where = f" of {', '.join('/'.join(values) for values in alert.where.values())}" if alert.where else ""
    beyond = f"> {alert.above:g}" if alert.above is not None else f"< {alert.below:g}"
    return f"{fact.name}{where} {beyond}" + (f" within {alert.window} min" if alert.window else "")


def _series(fact: AnyFact) -> str:
    return PREFIX + fact.name + ("_total" if isinstance(fact, Counter) else "")


def _kind(fact: AnyFact) -> str:
    if isinstance(fact, Histogram):
        return "histogram"
    return "counter" if isinstance(fact, Counter) or fact.is_counter else "gauge"


def _needed(settings: Sequence[str]) -> str:
    return f" It needs {_variables(settings)}." if settings else ""


def _variables(settings: Iterable[str]) -> str:
    return ", ".join(code(name.upper()) for name in settings)


def _first(docstring: str | None) -> str:
    return " ".join(inspect.cleandoc(docstring or "").split("\n\n")[0].split())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def code(text: object) -> str:
    """Return a text as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table's lines; none without rows. Columns in which no row has anything are left out."""
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    if kept:
        yield f"| {' | '.join(header[index] for index in kept)} |"
        yield "|---" * len(kept) + "|"
        yield from (f"| {' | '.join(row[index].replace('|', '&#124;') for index in kept)} |" for row in rows)
        yield ""
