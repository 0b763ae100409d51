"""`python -m bench.notifications --part rounds`: this project and Node's batches by turns, in the same minutes."""

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click

from bench.notifications import limits
from bench.notifications.contestants import NODE, NODE_OURS, OURS, contestants
from bench.notifications.field import Field, Run

ROUNDS = 3


def measure(field: Field, rows: int, most_seconds: float) -> list[list[Run]]:
    """Return each round's runs: ours and Node's with as many processes, one after the other; then our parts alone."""
    by_turns = sorted(
        (each for each in contestants(rows) if each.name in {OURS, NODE, NODE_OURS} and each.processes < 3),
        key=lambda contestant: contestant.processes,
    )
    rounds = []
    for number in range(ROUNDS):
        rounds.append([*(field.run(contestant, most_seconds) for contestant in by_turns), *limits.parts(field, rows)])
        for run in rounds[-1]:
            click.echo(f"round {number + 1}: {run.name}, {run.processes} processes: {run.rate:,.0f} rows/s", err=True)
    return rounds


def write(rounds: list[list[Run]], place: str, results: Path) -> str:
    """Return what was found, and write it as text and as data."""
    lines = [f"measured: {place}", "", "CPU in microseconds a row", ""]
    lines += [f"{'round':<6}{'contestant':<34}{'processes':>9}{'rows/s':>9}{'own':>6}{'MariaDB':>9}{'endpoint':>10}"]
    for number, runs in enumerate(rounds, 1):
        for run in runs:
            endpoint = run.endpoint_cpu * run.seconds / run.rows * 1e6
            figures = f"{run.rate:>9,.0f}{run.cpu_ms * 1000:>6.0f}{run.database_cpu_ms * 1000:>9.0f}{endpoint:>10.0f}"
            lines.append(f"{number:<6}{run.name:<34}{run.processes:>9}{figures}")
    lines.append("")
    for peer in (NODE, NODE_OURS):
        for processes in sorted({run.processes for run in rounds[0] if run.name == peer}):
            pairs = [{run.name: run for run in runs if run.processes == processes} for runs in rounds]
            rates = [pair[OURS].rate / pair[peer].rate for pair in pairs]
            costs = [pair[OURS].cpu_ms / pair[peer].cpu_ms for pair in pairs]
            each = f"rows/s {', '.join(f'{rate:.2f}' for rate in rates)}, median {median(rates):.2f}"
            lines.append(f"{processes} processes, ours against {peer}: {each}; own CPU, median {median(costs):.2f}")
    shown = "\n".join(lines) + "\n"
    (results / "rounds.txt").write_text(shown)
    data = {"place": place, "rounds": [[asdict(run) for run in runs] for runs in rounds]}
    (results / "rounds.json").write_text(json.dumps(data, indent=1) + "\n")
    return shown
