"""`chat-workers ping`: the liveness probe of a worker's container, by the heartbeat in Redis and without importing Celery."""

from socket import gethostname

import click
from redis.exceptions import RedisError

from settings import get_settings
from tasks import broker
from tasks.jobs import QUEUES
from workers.cli.group import Command
from workers.operations.fleet import ALIVE, ALIVE_SECONDS


@click.command("ping", cls=Command, reports=False)
@click.argument("process", type=click.Choice(list(QUEUES)))
def group(process: str) -> None:
    """Exit 1 if PROCESS does not live on this host. Redis being away is no such case: a restart would not help."""
    name = f"{process}@{gethostname()}"
    try:
        with broker.client(get_settings()) as client:
            if not client.exists(ALIVE + name):
                raise click.ClickException(f"{name} has not been heard of for {ALIVE_SECONDS} s")
    except RedisError as error:
        click.echo(f"whether {name} lives is not known: {type(error).__name__}")
