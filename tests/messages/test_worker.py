"""A real worker goes on: whatever is put on its queues is kept aside, and the good message behind it runs."""

import json
from statistics import median
from time import monotonic
from typing import Any

import pytest

from tests.messages import samples
from tests.messages.conftest import Worker
from workers.messages import rejected


def newest(worker: Worker) -> rejected.Rejected | None:
    return next(rejected.kept(worker.redis, 1), None)


def duration(worker: Worker) -> float:
    began = monotonic()
    worker.run()
    return monotonic() - began


@pytest.mark.parametrize(("element", "defect"), [bad[1:] for bad in samples.BAD], ids=[bad[0] for bad in samples.BAD])
def test_what_is_bad_is_kept_and_the_good_message_behind_it_runs(worker: Worker, element: object, defect: str) -> None:
    raw = samples.raw(element)
    worker.push(raw)
    worker.run()
    kept = newest(worker)
    assert kept
    assert (kept.queue, kept.defect, kept.size) == (samples.QUEUE, defect, len(raw))
    assert kept.raw == raw[: len(kept.raw)]
    assert kept.whole == (defect != "size")


@pytest.mark.parametrize("message", [m for _, m in samples.MISFITS], ids=[name for name, _ in samples.MISFITS])
def test_arguments_that_the_task_does_not_take_are_kept(worker: Worker, message: dict[str, Any]) -> None:
    worker.push(message, "attachments")
    worker.wait_until(lambda: (kept := newest(worker)) is not None and kept.raw == samples.raw(message))
    kept = newest(worker)
    assert kept
    assert (kept.queue, kept.defect) == ("attachments", "arguments")
    worker.run()


def test_a_bad_message_does_not_hold_up_the_good_one_behind_it(worker: Worker) -> None:
    """Compared with the same worker's own pace, in turn; a reconnection, or a BRPOP waited for to its end, is far above it."""
    alone, behind = [], []
    for _, element, _ in samples.BAD:
        alone.append(duration(worker))
        worker.push(element)
        behind.append(duration(worker))
    assert median(behind) < 3 * median(alone) + 0.5


def test_the_smallest_message_of_the_documentation_runs(worker: Worker) -> None:
    """With a task of the queues that this worker reads."""
    printed = samples.DOCUMENTED.replace("tasks.notifications.drain", samples.TASK).replace(
        '"notifications"', f'"{samples.QUEUE}"'
    )
    worker.run(json.loads(printed))


def test_the_worker_is_still_the_one_that_was_started_and_has_never_reconnected(worker: Worker) -> None:
    worker.run()
    assert worker.process.poll() is None
    assert worker.lines.count(" ready.") == 1
    assert "Traceback" not in worker.lines
    assert "onnection" not in worker.lines.partition(" ready.")[2]
