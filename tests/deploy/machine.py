"""A Debian machine: a root by debootstrap, booted by systemd-nspawn, with a network of its own that has loopback alone."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Self

from devstack.folder import PROJECT
from devstack.programs import find
from tests.processes import Process, wait_until

FOLDER = PROJECT / ".devstack" / "deploy"
SUITE = "bookworm"
# No package index is within the machine's reach: the same files, from a folder.
PIP = "[global]\nno-index = true\nfind-links = /srv/wheels\ndisable-pip-version-check = true\n"
# Beside a minimal Debian with systemd: the services of docs/installation.md's host, and what its first step installs.
PACKAGES = (
    "systemd,systemd-sysv,dbus,ca-certificates,curl,git,openssl,python3-venv,"
    "mariadb-server,mariadb-client,redis-server,clamav-daemon,clamav-freshclam,"
    "podman,podman-compose,crun,netavark,aardvark-dns,iptables"
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")
# Longer than the TimeoutStopSec of any unit: one that is still going down refuses every later command.
STOP_SECONDS = 300
# Who had it shut down, and what is waited for.
GOING_DOWN = "journalctl --boot --no-pager --lines 20 --grep 'Received SIG|Stopping|shutdown|reboot'; systemctl list-jobs"


def debian(packages: str) -> Path:
    """Return a minimal root with these packages, which debootstrap makes once, from the mirror that it takes by itself."""
    root = FOLDER / f"debian-{sha256(packages.encode()).hexdigest()[:12]}"
    if not root.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = root.with_suffix(".part")
        subprocess.run(["rm", "-rf", "--one-file-system", part], check=True)
        subprocess.run([find("debootstrap"), "--variant=minbase", f"--include={packages}", SUITE, part], check=True)
        part.rename(root)
    return root


def locked_wheels() -> Path:
    """Return what the locks name, as files; fetched once, by this machine's own settings of pip."""
    # Without the markers: this Python, whose version pip asks them for, is another than the machine's.
    locks = "".join((PROJECT / "requirements" / name).read_text() for name in ("runtime.txt", "build.txt"))
    text = re.sub(r" ; [^\\]*", " ", locks)
    folder = FOLDER / f"wheels-{sha256(text.encode()).hexdigest()[:12]}"
    if not folder.exists():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        requirements = part / "requirements.txt"
        requirements.write_text(text)
        download = [sys.executable, "-m", "pip", "download", "-qqq", "--no-deps", "--dest", str(part)]
        subprocess.run([*download, "--require-hashes", "--requirement", str(requirements)], check=True)
        part.rename(folder)
    return folder


class Machine:
    """A copy of such a root, from its first boot to its end."""

    def __init__(self, root: Path, log: Path, **mounts: Path) -> None:
        """`mounts` are shown read-only as /srv/NAME."""
        self.root, self._log = root, log
        subprocess.run(["cp", "--archive", "--reflink=auto", debian(PACKAGES), root], check=True)
        binds = [f"--bind-ro={path}:/srv/{name}" for name, path in mounts.items()]
        command = [find("systemd-nspawn"), "--quiet", "--register=no", "--keep-unit", "--private-network", "--boot"]
        # A name of its own, though nobody registers it: nspawn locks roots and names.
        command += ["--console=pipe", f"--machine=chat-workers-{os.getpid()}", f"--directory={root}", *binds]
        self._nspawn = Process(command, {"PATH": PATH}, log)

    def boot(self) -> Self:
        self._nspawn.start()
        self._nspawn.wait_until(self._is_up, "systemd had started everything")
        return self

    def _is_up(self) -> bool:
        return bool(self._nspawn.children) and self.run("systemctl is-system-running", check=False).stdout.strip() in {
            "running",
            "degraded",
        }

    def within(self, *namespaces: str, pid: int | None = None) -> list[str]:
        """Return the command that goes before one which is to run in the namespaces of the machine, or of a process there."""
        return [find("nsenter"), f"--target={pid or self._nspawn.children[0]}", *namespaces, "--"]

    def run(
        self, script: str, *, check: bool = True, pid: int | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a script of bash in the machine, as root."""
        done = subprocess.run(
            [*self.within(*NAMESPACES, pid=pid), "/bin/bash", "-c", script],
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
            f"{self.run(GOING_DOWN, check=False).stdout if 'destructive' in done.stderr else ''}"
        )
        return done

    def says(self, script: str) -> str:
        return self.run(script).stdout.strip()

    def reboot(self) -> None:
        self.run("systemctl reboot", check=False)
        self._nspawn.wait(STOP_SECONDS)
        self.boot()

    def end(self) -> None:
        """Power it off, and remove its root."""
        with suppress(subprocess.TimeoutExpired):
            if self._nspawn.runs:
                self._nspawn.stop()
        self._nspawn.kill()
        wait_until(lambda: not self._nspawn.runs, "the machine had ended")
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
