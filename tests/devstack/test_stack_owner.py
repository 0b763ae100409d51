"""However the owner of a stack ends, nothing of the stack is left."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from devstack.errors import StackError
from devstack.folder import PROJECT
from devstack.stack import SERVICES, Stack

OWNER = """
import json, os, sys, time
from pathlib import Path
from devstack.stack import SERVICES, Stack

with Stack("owned", sys.argv[2].split(","), root=Path(sys.argv[1])) as stack:
    print(json.dumps([service.pid for service in stack._services.values()]), flush=True)
    stack.watch()
"""

# Whoever runs the tests in the background or under nohup has these ignored, and children inherit that.
DEFAULT_SIGNALS = ["env", "--default-signal=INT,HUP,TERM"]


@contextmanager
def owner(root: Path, services: str) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Run a process that owns a stack. Yield it with a handle to each of its services."""
    command = [*DEFAULT_SIGNALS, sys.executable, "-c", OWNER, str(root), services]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        handles = [os.pidfd_open(pid) for pid in json.loads(process.stdout.readline())]
        try:
            yield process, handles
        finally:
            process.kill()
            for handle in handles:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                os.close(handle)


def gone(handle: int, seconds: float = 5) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_a_killed_owner_leaves_nothing_running_and_its_folder_is_reclaimed(tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    with owner(root, ",".join(SERVICES)) as (process, handles):
        assert len(handles) == len(SERVICES)
        process.kill()
        assert all(gone(handle) for handle in handles)
        assert (root / "owned").exists()

    with Stack("another", ["redis"], root=root):
        assert [folder.name for folder in root.iterdir()] == ["another"]
    assert not root.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signalled_owner_takes_its_stack_down(tmp_path: Path, number: signal.Signals, status: int) -> None:
    root = tmp_path / "stacks"
    with owner(root, "redis,clamd") as (process, handles):
        process.send_signal(number)
        assert process.wait(20) == status
        assert all(gone(handle, 0) for handle in handles)
    assert not root.exists()


def test_an_exception_takes_the_stack_down(tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    with suppress(ZeroDivisionError), Stack("failing", ["redis"], root=root) as stack:
        handle = os.pidfd_open(stack.redis.pid)
        _ = 1 / 0
    assert gone(handle, 0)
    os.close(handle)
    assert not root.exists()


def test_stacks_of_different_names_run_side_by_side_and_of_the_same_name_do_not(tmp_path: Path) -> None:
    root = tmp_path / "stacks"
    with Stack("one", ["redis"], root=root) as one, Stack("two", ["redis"], root=root) as two:
        assert one.redis.answers()
        assert two.redis.answers()
        with (
            pytest.raises(StackError, match=f"'one' is already running as process {os.getpid()}"),
            Stack("one", ["redis"], root=root),
        ):
            pass
        assert one.redis.answers()


def test_the_handlers_of_signals_are_as_before_afterwards(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with Stack("signals", ["redis"], root=tmp_path / "stacks"):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_service_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(StackError, match="No service is called oracle; there are s3, fcm, clamd, redis, mariadb"):
        Stack("names", ["redis", "oracle"])


def test_up_prints_an_environment_to_paste_and_ends_on_ctrl_c() -> None:
    command = [
        *DEFAULT_SIGNALS,
        sys.executable,
        "-m",
        "devstack",
        "up",
        "--name",
        f"test-up-{os.getpid()}",
        "--services",
        "redis",
    ]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        line = up.stdout.readline()
        up.send_signal(signal.SIGINT)
        assert up.wait(20) == 0
    assert line.startswith("CELERY_BROKER_URL=redis://127.0.0.1:")
