"""What Flower is told: what each task did in a line, and nothing of the ticks that come all the time."""

from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine

from tests.processes import Process, wait_until
from workers.messages.read import QUIET


@pytest.fixture
def events(environment: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    """All events of tasks from now on, as Flower gets them."""
    app: Celery[Any] = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False)
    found: list[dict[str, Any]] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": found.append})
        thread = Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False))
        receiver.should_stop = False
        thread.start()
        yield found
        receiver.should_stop = True
        thread.join()


def test_a_task_says_what_it_did_and_a_tick_says_nothing(
    environment: dict[str, str],
    chat: Engine,
    start_worker: Callable[..., Process],
    load: Callable[[int], None],
    events: list[dict[str, Any]],
) -> None:
    start_worker(processes=1)
    load(3)
    producer: Celery[Any] = Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False)

    def send(**headers: bool) -> str:
        task = "tasks.notifications.retry_failed" if headers else "tasks.notifications.drain"
        return str(producer.send_task(task, queue="notifications", headers=headers, ignore_result=True).id)

    tick, nudge = send(**{QUIET: True}), send()
    wait_until(lambda: any(e["type"] == "task-succeeded" for e in events), "Flower was told")
    (done,) = [e for e in events if e["type"] == "task-succeeded"]
    assert (done["uuid"], done["result"]) == (nudge, "'drained: sent 3'")
    assert tick not in {e.get("uuid") for e in events}
