"""Early nudges: a thread that looks for a row ends, and nothing that is asked of it meanwhile is lost."""

import threading
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from tasks import early
from tests.processes import wait_until


class Task:
    """A task that counts how often it was sent."""

    name = "tasks.test"

    def __init__(self) -> None:
        self.sent = 0

    def apply_async(self, *_arguments: object, **_options: object) -> None:
        self.sent += 1


def test_what_is_asked_while_a_look_ends_is_looked_at_by_another() -> None:
    task, looks = Task(), iter([OperationalError("", {}, Exception("away")), None])

    def come() -> bool:
        if fault := next(looks):
            early.look_again(cast(Any, task), come)
            raise fault
        return True

    early.look_again(cast(Any, task), come)
    wait_until(lambda: task.sent == 1, "the second looked")
    wait_until(lambda: not early._until, "it ended")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_look_that_breaks_leaves_room_for_the_next() -> None:
    early.look_again(cast(Any, Task()), lambda: bool(1 / 0))
    wait_until(lambda: not early._until, "it ended")


def test_a_process_without_threads_left_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    early.look_again(cast(Any, Task()), lambda: True)
    assert not early._until
