"""Whatever the project installs by pip, or tells anyone to, is locked: by version and hash, at one version in all locks."""

import re
import subprocess

import pytest

from devstack.folder import PROJECT

LOCKS = {path.name: path.read_text() for path in (PROJECT / "requirements").glob("*.txt")}
ENTRY = re.compile(r"([\w.-]+)(?:\[[\w,-]+\])?==([\w.+]+)(?: ; [^\\]+?)?(?: \\?\s*--hash=sha256:[0-9a-f]{64})+")
INSTALLS = re.compile(r'\bpip install\b([^`"\n\\]*)')
# The project itself, whose dependencies come from a lock.
OURS = re.compile(r"--no-deps (--no-build-isolation --editable \.|~/chat_workers-\*\.whl)")
FROM_LOCKS = re.compile(r"--require-hashes( -r requirements/[a-z]+\.txt)+")


def pins(lock: str) -> dict[str, str]:
    """Return the version of each package in a lock, and see that nothing else is in it."""
    entries = [entry for entry in re.split(r"\n(?=\S)", LOCKS[lock].rstrip()) if not entry.startswith("#")]
    found = [ENTRY.fullmatch(entry) for entry in entries]
    assert [entry for entry, match in zip(entries, found, strict=True) if not match] == []
    return {match[1]: match[2] for match in found if match}


def test_every_installation_is_from_a_lock() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    told = [
        (name, " ".join(word for word in words.split() if word not in {"--quiet", "--no-cache-dir"}))
        for name in tracked
        if not name.startswith("tests/") and (PROJECT / name).is_file()
        for words in INSTALLS.findall((PROJECT / name).read_text(errors="replace"))
    ]
    assert len(told) > 8
    assert [one for one in told if not OURS.fullmatch(one[1]) and not FROM_LOCKS.fullmatch(one[1])] == []
    assert {lock for _, words in told for lock in re.findall(r"requirements/(\S+)", words)} <= LOCKS.keys()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_versions_with_their_hashes_and_nothing_else(lock: str) -> None:
    assert pins(lock)


@pytest.mark.parametrize(("lock", "beside"), [("runtime.txt", "telemetry.txt"), ("telemetry.txt", "dev.txt")])
def test_a_host_with_traces_has_what_was_tested_and_what_others_have(lock: str, beside: str) -> None:
    assert pins(lock).items() <= pins(beside).items()
