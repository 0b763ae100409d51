"""`python -m tests.chaos --seed N --minutes M [--faults name,…]`: exit code 0 if nothing was lost, stuck or wrong."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from devstack.folder import PROJECT
from tests.chaos import report, volume
from tests.chaos.campaign import Plan, run
from tests.chaos.faults.table import FAULTS
from tests.chaos.scene import Scene

RESULTS = PROJECT / "build" / "chaos"
PUBLISHED = PROJECT / "bench" / "results"
# Figures and words do not change what a campaign runs.
CODE = (".", ":(exclude)bench/results", ":(exclude)docs")


@click.command()
@click.option("--seed", type=int, default=lambda: int(time.time()) % 100_000, help="Draws the faults; default: by the clock.")
@click.option("--minutes", type=float, default=3.0, show_default=True, help="Of faults; the start and the audit come on top.")
@click.option("--once", is_flag=True, help="Until each was played once, however long that takes, in place of minutes.")
@click.option("--faults", default="", help="Only these, with commas; `list` shows them.")
@click.option("--rate", type=float, default=200.0, show_default=True, help="Notifications a second.")
@click.option("--files", type=float, default=2.0, show_default=True, help="Attachments a second.")
@click.option("--old", default="", help="A commit whose code runs beside this one in rolling restarts.")
@click.option("--steady", type=float, help="No faults: so many minutes at one rate, sampled each 10 s.")
@click.option("--burst", type=int, help="No faults: so many rows within a minute.")
@click.option("--backlog", type=int, help="No faults: so many rows that wait before the workers begin.")
@click.option("--publish", is_flag=True, help="Write the report into bench/results too.")
def main(
    seed: int,
    minutes: float,
    once: bool,
    faults: str,
    rate: float,
    files: float,
    old: str,
    steady: float | None,
    burst: int | None,
    backlog: int | None,
    publish: bool,
) -> None:
    """Break everything, then count."""
    if faults == "list":
        for name, fault in FAULTS.items():
            click.echo(f"{name:18} {fault.does}")
        return
    chosen = tuple(name for name in faults.split(",") if name) or tuple(FAULTS)
    if unknown := [name for name in chosen if name not in FAULTS]:
        raise click.UsageError(f"there is no fault {', '.join(unknown)}; --faults list shows them")
    results = RESULTS / f"seed-{seed}"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    length = "--once" if once else f"--minutes {minutes:g}"
    command = f"python -m tests.chaos --seed {seed} {length} --rate {rate:g} --files {files:g}"
    command += (f" --old {old}" if old else "") + (f" --faults {faults}" if faults else "")
    began = time.monotonic()

    def say(what: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {what}")

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, Scene(f"chaos-{seed}", results) as scene:
        if old:
            scene.old_code = checkout(old, Path(folder))
        scene.await_ready()
        say(f"{len(scene.fleet.members)} processes are ready; their logs are in {results.relative_to(PROJECT)}")
        plan = Plan(seed, None if once else minutes * 60, rate, files, chosen, commit_of("HEAD"), commit_of(old) if old else "")
        asked: dict[Callable[..., dict[str, Any]], float | None] = {
            volume.steady: steady,
            volume.burst: burst,
            volume.backlog: backlog,
        }
        for measure, size in asked.items():
            if size is not None:
                found = {"command": f"{command} --{measure.__name__} {size}"} | measure(scene, size, plan, say)
                save(measure.__name__, volume.text(found), found, results, *([PUBLISHED] if publish else []))
                raise SystemExit(1 if found["problems"] else 0)
        outcome = run(scene, plan, say)
        lines = report.text(outcome, command)
        save("chaos", lines, report.as_json(outcome, command), results, *([PUBLISHED] if publish else []))
        if outcome.problems:
            for log in (scene.folder / "logs").glob("*.log"):
                shutil.copy(log, results / f"service-{log.name}")
            shutil.copy(scene.stack.fcm.data / "accepted.jsonl", results)
    raise SystemExit(1 if outcome.problems else 0)


def save(name: str, lines: str, found: dict[str, Any], *folders: Path) -> None:
    """Show a report, and put it into folders, for people and for machines."""
    click.echo("\n" + lines)
    for folder in folders:
        (folder / f"{name}.txt").write_text(lines + "\n")
        (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


def commit_of(name: str) -> str:
    """Return a commit's short hash, with a mark if HEAD's code was changed since; "unknown" outside of a repository."""
    git = ["git", "-C", str(PROJECT)]
    found = subprocess.run([*git, "rev-parse", "--short", name], check=False, capture_output=True, text=True)
    if found.returncode:
        return "unknown"
    changed = name == "HEAD" and subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *CODE], check=False).returncode
    return found.stdout.strip() + (" with changes" if changed else "")


def checkout(commit: str, folder: Path) -> Path:
    """Return a folder with the code of a commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=PROJECT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)
    return folder


if __name__ == "__main__":
    main()
