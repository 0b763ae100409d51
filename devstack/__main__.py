"""The command line, `python -m devstack`: start services by hand, install their programs, run the demo."""

from pathlib import Path

import click

from devstack import programs
from devstack.errors import StackError
from devstack.stack import SERVICES, Stack


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [name for name in names if name not in SERVICES]:
        raise click.BadParameter(f"no service is called {', '.join(unknown)}; there are {', '.join(SERVICES)}")
    return names


services_option = click.option(
    "--services", callback=_names, default=",".join(SERVICES), show_default=True, help="Which ones, with commas."
)


@click.group()
def main() -> None:
    """Private local services for the demo, tests and benchmarks."""


@main.command()
@services_option
@click.option("--name", default="default", show_default=True, help="Stacks of different names run side by side.")
def up(services: list[str], name: str) -> None:
    """Start the services, print the environment that points at them, and run until Ctrl-C."""
    try:
        with Stack(name, services) as stack:
            for key, value in stack.environment.items():
                click.echo(f"{key}={value}")
            click.echo("The stack is up; Ctrl-C ends it.", err=True)
            stack.watch()
    except KeyboardInterrupt:
        click.echo("The stack is down.", err=True)
    except StackError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--rows", type=click.IntRange(min=100), default=12_000, show_default=True, help="Notifications to deliver.")
@click.option("--keep", is_flag=True, help="Leave everything running at the end, until Ctrl-C.")
@click.option("--name", default="demo", show_default=True, help="The name of the demo's stack.")
@click.option(
    "--pictures", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Write the README's pictures there."
)
def demo(rows: int, keep: bool, name: str, pictures: Path | None) -> None:
    """Have a chat's background work done by the real workers, watch, and count. Exit 1 if the count does not add up."""
    try:
        # This import takes a second, in which a Ctrl-C has to be caught here.
        from devstack.demo.run import run

        adds_up = run(rows, keep=keep, name=name, into=pictures)
    except KeyboardInterrupt:
        click.echo("\nEnded by Ctrl-C; nothing is left running.", err=True)
        raise SystemExit(130) from None
    except StackError as error:
        raise click.ClickException(str(error)) from None
    raise SystemExit(0 if adds_up else 1)


@main.command()
@services_option
@click.argument("others", nargs=-1, type=click.Choice([name for name in programs.PROGRAMS if name not in SERVICES]))
def install(services: list[str], others: tuple[str, ...]) -> None:
    """Install the programs that the services and OTHERS need. Only root can; anybody else is told which are missing."""
    try:
        programs.ensure([*services, *others])
    except StackError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m devstack")
