"""`python -m bench.notifications`: all of it in one run on one stack, into bench/results/notifications*."""

import json
import os
from pathlib import Path

import click

from bench.notifications import contestants, growth, latency, limits, memory, plots, report, rounds, transports
from bench.notifications.field import Field
from bench.place import place
from devstack import programs
from devstack.stack import Stack
from settings import get_settings

RESULTS = Path(__file__).parents[1] / "results"
STEM = "notifications"
PARTS = ("throughput", "latency", "growth", "memory", "transports")
ROUNDS, BEHIND = ALONE = ("rounds", "behind")
SMALL = 10_000
MOST_SECONDS = 60


@click.command()
@click.option("--rows", default=60_000, show_default=True, help="Rows of the contest; slow contestants get a part of them.")
@click.option("--quick", is_flag=True, help="A look at everything in a few minutes; its figures mean little.")
@click.option("--full", is_flag=True, help="Growth to five million rows and memory over a million; ten minutes more.")
@click.option("--part", "parts", type=click.Choice((*PARTS, *ALONE)), multiple=True, help="Only this part; may be given again.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for the results.")
def main(rows: int, quick: bool, full: bool, parts: tuple[str, ...], results: Path) -> None:
    """Measure push delivery: against what users would pick instead, latency, growth, memory and transports."""
    rows = min(rows, 12_000) if quick else rows
    big, drained = (5_000_000, 1_000_000) if full else (100_000, 20_000) if quick else (1_000_000, 200_000)
    found = report.Results(place())
    programs.ensure(["bench"])
    chosen = parts or PARTS
    if {"throughput", ROUNDS} & {*chosen}:
        contestants.install_node_peers()
    with Stack("bench-notifications", ["mariadb", "redis", "fcm"]) as stack:
        field = Field(stack, rows)
        click.echo(f"loading {rows:,} rows …", err=True)
        field.load()
        # The limits and the growth run our own code in this process.
        os.environ.update(field.environment)
        get_settings.cache_clear()
        results.mkdir(parents=True, exist_ok=True)
        if ROUNDS in chosen:
            click.echo(rounds.write(rounds.measure(field, rows, MOST_SECONDS), found.place, results))
        if BEHIND in chosen:
            click.echo(latency.behind(field, found.place, results))
        if "throughput" in chosen:
            for contestant in contestants.contestants(rows):
                run = field.run(contestant, MOST_SECONDS)
                found.runs.append(run)
                click.echo(f"{run.name}, {run.processes} processes: {run.rate:,.0f} rows/s", err=True)
            found.runs += limits.measure(field, rows)
        if "latency" in chosen:
            click.echo("latency …", err=True)
            found.latencies = latency.measure(field, 100 if quick else 300)
        if "transports" in chosen:
            click.echo("transports …", err=True)
            found.transports = transports.measure(field, rows)
        if "memory" in chosen:
            click.echo(f"memory over {drained:,} rows …", err=True)
            found.memory = memory.measure(field, drained)
        if "growth" in chosen:
            click.echo(f"growth to {big:,} rows …", err=True)
            found.sizes = (SMALL, big)
            found.costs, found.plans = growth.measure(field, SMALL, big)
    if {*chosen} <= {*ALONE}:
        return
    shown = report.text(found)
    click.echo(shown)
    (results / f"{STEM}.txt").write_text(shown)
    (results / f"{STEM}.json").write_text(json.dumps(found.as_json(), indent=1) + "\n")
    for path in plots.draw(found, results, STEM):
        click.echo(f"drawn: {path.name}", err=True)


if __name__ == "__main__":
    main()
