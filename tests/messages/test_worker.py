"""A real worker runs what can be read, keeps the rest aside, and stops for none of it."""

import json
from typing import Any

import pytest
from celery import Celery

from tests.messages import samples
from tests.messages.conftest import Worker
from tests.messages.test_read import HEADERS, READ
from workers.messages import rejected


@pytest.mark.timeout(900)
def test_bad_messages_stop_no_good_one(worker: Worker) -> None:
    """Each with a good one behind it, all of them in the queue at once."""
    good = [samples.good() for _ in samples.BAD]
    for (_, element, _), behind in zip(samples.BAD, good, strict=True):
        worker.push(element)
        worker.push(behind)
    worker.wait_for(good[-1]["headers"]["id"])
    assert {message["headers"]["id"] for message in good} <= worker.ended.keys()
    healed = sum(defect is samples.HEALS for *_, defect in samples.BAD)
    assert list(worker.ended.values()) == ["task-succeeded"] * (len(good) + healed)
    kept = [(each["queue"], each["defect"], each["size"], each["raw"]) for each in rejected.kept(worker.redis)][::-1]
    refused = [(samples.raw(element), defect) for _, element, defect in samples.BAD if defect is not samples.HEALS]
    assert kept == [
        (samples.QUEUE, defect, len(raw), raw[: rejected.SHOWN_BYTES] if defect == "size" else raw) for raw, defect in refused
    ]


def test_a_message_of_celery_s_first_protocol_runs(worker: Worker, environment: dict[str, str]) -> None:
    with Celery(broker=environment["CELERY_BROKER_URL"], set_as_current=False) as celery:
        celery.conf.task_protocol = 1
        sent = celery.send_task(samples.TASK, queue=samples.QUEUE, ignore_result=True)
    worker.wait_for(sent.id)


def test_the_messages_of_celery_node_run(worker: Worker) -> None:
    """Those of its tasks that need no row in the database."""
    for raw in samples.CELERY_NODE:
        message = json.loads(raw)
        if message["headers"]["task"] == samples.TASK:
            worker.run(message)


def test_the_smallest_message_of_the_documentation_runs(worker: Worker) -> None:
    """With a task of the queues that this worker reads, and an id that the test can wait for."""
    smallest = json.loads(samples.DOCUMENTED.replace("tasks.notifications.drain", samples.TASK))
    worker.run({**smallest, "headers": {**smallest["headers"], "id": samples.good()["headers"]["id"]}})


@pytest.mark.parametrize(
    "value", [[0.000001, None], {"task": "tasks.backups.daily"}, "x\n" * 100], ids=["limits", "call", "text"]
)
def test_a_message_runs_whatever_else_is_in_its_headers(worker: Worker, value: object) -> None:
    message = samples.good()
    message["headers"] |= dict.fromkeys(HEADERS - READ, value)
    worker.run(message)


def test_a_list_that_is_no_queue_of_ours_is_one_like_the_others(worker: Worker, app: "Celery[Any]") -> None:
    app.control.add_consumer("someone-s", destination=["worker@test"], reply=True, timeout=20)
    message, misfit = samples.good(), samples.message("x")
    worker.push(misfit, "someone-s")
    worker.push(message, "someone-s")
    worker.wait_for(message["headers"]["id"])
    [newest] = rejected.kept(worker.redis, 1)
    assert (newest["queue"], newest["defect"], newest["raw"]) == ("someone-s", "arguments", samples.raw(misfit))
    app.control.cancel_consumer("someone-s", destination=["worker@test"], reply=True, timeout=20)


def test_the_worker_is_still_the_one_that_was_started_and_has_never_reconnected(worker: Worker) -> None:
    worker.run()
    assert worker.runs
    assert worker.lines.count(" ready.") == 1
    assert "Traceback" not in worker.lines
    assert "\nforged" not in worker.lines
    assert "onnection" not in worker.lines.partition(" ready.")[2]
