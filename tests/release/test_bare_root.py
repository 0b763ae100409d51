"""The wheel of a release in a bare Debian, with nothing of this checkout: the README's production steps, and a push is sent."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.create import create_shared_schema
from devstack.chat import load_chat
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.programs import find
from devstack.stack import Stack
from tests.deploy.machine import PATH, PIP, debian, locked_wheels
from tests.processes import Process, answers


def block(page: str, words: str) -> str:
    """Return the block of commands with these words."""
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```", (PROJECT / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (block for block in blocks if words in block)
    return found


INSTALL = block("docs/installation.md", "chat_workers-*.whl")
# From .env on: what goes before is another way to install.
_, ENV, STEPS = block("README.md", "honcho start").partition("install -m 600 .env.example .env")
CHECK, START, _ = STEPS.partition("honcho start")
CLEAN = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}


class BareRoot:
    """A minimal Debian without a file of this checkout but the wheel, in this machine's network."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, script: str) -> list[str]:
        """Return the command that runs a script there, and ends all that it started when it is ended itself."""
        mounts = f"mount -t proc proc {self.root}/proc && mount --rbind /dev {self.root}/dev"
        # In a chroot there is no mount to change the propagation of.
        unshare = [find("unshare"), "--mount", "--propagation", "unchanged", "--pid", "--fork", "--kill-child"]
        return [*unshare, "sh", "-ec", f'{mounts} && exec chroot {self.root} bash -ec "$0"', f"cd /root\n{script}"]

    def run(self, script: str) -> None:
        done = subprocess.run(self.command(script), env=CLEAN, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[BareRoot]:
    root = tmp_path / "root"
    subprocess.run(["cp", "--archive", "--reflink=auto", debian("ca-certificates,python3-venv"), root], check=True)
    shutil.copytree(locked_wheels(), root / "srv/wheels")
    (root / "etc/pip.conf").write_text(PIP)
    (wheel,) = Path(os.environ["RELEASE"]).glob("*.whl")
    shutil.copy(wheel, root / "root")
    yield BareRoot(root)
    # Where mounts are shared they outlive their namespace.
    subprocess.run(
        [find("umount"), "--lazy", "--recursive", root / "dev", root / "proc"], stderr=subprocess.DEVNULL, check=False
    )
    subprocess.run(["rm", "-rf", "--one-file-system", root], check=True)


def sent(engine: Engine) -> int:
    with engine.connect() as connection:
        statement = "SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'SENT'"
        return int(connection.execute(text(statement)).scalar_one())


def test_the_wheel_alone_passes_the_production_steps_of_the_readme(
    bare: BareRoot, stack: Stack, engine: Engine, tmp_path: Path
) -> None:
    create_shared_schema(engine)
    port = free_port()
    environment = {
        **stack.redis.environment(),
        **stack.fcm.environment(),
        "DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "GATEWAY_PORT": str(port),
        "FLOWER_PORT": str(free_port()),
    }
    for variable in ("GOOGLE_APPLICATION_CREDENTIALS", "SSL_CERT_FILE"):
        shutil.copy(environment[variable], bare.root / "etc" / variable)
        environment[variable] = f"/etc/{variable}"
    (bare.root / "root/settings").write_text("".join(f"{variable}={value}\n" for variable, value in environment.items()))
    bare.run(INSTALL)
    bare.run(f"cd /opt/chat-workers\n{ENV}\ncat /root/settings >> .env\n{CHECK}")
    with engine.begin() as connection:
        load_chat(connection, users=10, conversations=10, notifications=10, quiet=0, bad_tokens=0)
    script = f"cd /opt/chat-workers\n. .venv/bin/activate\n{START}"
    process = Process(bare.command(script), CLEAN, tmp_path / "honcho.log").start()
    try:
        process.wait_until(lambda: sent(engine) == 10, "all rows were SENT", every=0.5)
        process.wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "the gateway answered")
    finally:
        process.kill()
