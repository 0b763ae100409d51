"""The programs that each service needs, their Debian packages, and the installation of what is missing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.errors import StackError

# program -> Debian package, by service
PROGRAMS = {
    "mariadb": {
        "mariadbd": "mariadb-server-core",
        "mariadb-install-db": "mariadb-server-core",
        "my_print_defaults": "mariadb-client-core",
        "mariadb": "mariadb-client-core",
        "mariadb-dump": "mariadb-client",
        # What the documented commands restore a backup with.
        "openssl": "openssl",
        "zstd": "zstd",
    },
    "redis": {"redis-server": "redis-server"},
    "clamd": {"clamd": "clamav-daemon"},
    # No services, but what the tests read pages and alert rules with, and what the benchmarks compare the workers with.
    "tests": {
        "chromium": "chromium",
        "chromedriver": "chromium-driver",
        "promtool": "prometheus",
        "curl": "curl",
        "node": "nodejs",
        "systemd-analyze": "systemd",
        "faketime": "faketime",
        "locale-gen": "locales",
    },
    "bench": {
        "clamdscan": "clamdscan",
        "pt-archiver": "percona-toolkit",
        "h2load": "nghttp2-client",
        "node": "nodejs",
        "npm": "npm",
    },
    # npm fetches Directus, and the Node that it needs; the compiler is for its one native module without a binary.
    "directus": {"npm": "npm", "node": "nodejs", "g++": "g++", "make": "make"},
    "deploy": {"systemd-nspawn": "systemd-container", "debootstrap": "debootstrap"},
    # python -m devstack.mysql fetches it.
    "mysql": {"debootstrap": "debootstrap"},
    "release": {"debootstrap": "debootstrap"},
}
EVERY_SERVICE = {"setpriv": "util-linux"}

# The units that Debian starts for these packages, at once and at each boot; the stack needs the programs alone.
UNITS = {
    "redis-server": ["redis-server.service"],
    "prometheus": ["prometheus.service"],
    "clamav-daemon": ["clamav-daemon.service", "clamav-daemon.socket", "clamav-freshclam.service"],
}
UNIT_FOLDERS = [Path("/lib/systemd/system"), Path("/usr/lib/systemd/system")]

POLICY = Path("/usr/sbin/policy-rc.d")
POLICY_TEXT = "#!/bin/sh\n# Made by devstack for the time of an installation; remove it if no installation runs.\nexit 101\n"

# Folders that an ordinary user's PATH may lack.
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def find(program: str) -> str:
    """Return the path of a program. Raise StackError, naming its package, if it is not on this machine."""
    if path := _which(program, _search_path()):
        return path
    packages = {name: package for needs in PROGRAMS.values() for name, package in needs.items()} | EVERY_SERVICE
    raise StackError(_sentence({program: packages[program]}))


def ensure(services: Iterable[str], *, search_path: str | None = None, may_install: bool | None = None) -> None:
    """Install with apt-get, as root, what is missing of the programs of these services.

    Raise StackError, with the command to run, if something is missing and cannot be installed by this user.
    """
    search_path = _search_path() if search_path is None else search_path
    needs = dict(EVERY_SERVICE)
    for service in services:
        needs |= PROGRAMS.get(service, {})
    missing = {program: package for program, package in needs.items() if not _which(program, search_path)}
    if not missing:
        return
    if may_install is None:
        may_install = os.geteuid() == 0 and _which("apt-get", search_path) is not None
    if not may_install:
        raise StackError(_sentence(missing))
    _install(sorted(set(missing.values())))


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), SYSTEM_FOLDERS])


def _which(program: str, search_path: str) -> str | None:
    return shutil.which(program, path=search_path)


def _sentence(missing: dict[str, str]) -> str:
    programs = ", ".join(missing)
    packages = " ".join(sorted(set(missing.values())))
    verb = "is" if len(missing) == 1 else "are"
    return f"{programs} {verb} missing; install with: sudo apt-get install --no-install-recommends {packages}"


def _install(packages: list[str]) -> None:
    print(f"Installing {', '.join(packages)} with apt-get …", file=sys.stderr, flush=True)
    # --no-remove: a MySQL that conflicts with MariaDB stays; the person at the machine decides.
    install = ["install", "--yes", "--no-install-recommends", "--no-remove", *packages]
    units = [unit for package in packages for unit in UNITS.get(package, []) if not _has_unit(unit)]
    with _nothing_is_started():
        if _apt_get(install).returncode:
            # Package lists that are absent or out of date are the usual reason.
            _apt_get(["update"])
            done = _apt_get(install)
            if done.returncode:
                raise StackError(f"apt-get could not install {', '.join(packages)}. It said:\n{done.stdout.strip()}")
    if units and shutil.which("systemctl"):
        subprocess.run(["systemctl", "--quiet", "disable", *units], check=False)


def _apt_get(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _has_unit(unit: str) -> bool:
    return any((folder / unit).exists() for folder in UNIT_FOLDERS)


@contextmanager
def _nothing_is_started() -> Iterator[None]:
    """Keep packages from starting their services while the context lasts, by Debian's own means (invoke-rc.d(8))."""
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
