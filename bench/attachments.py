"""Throughput of the sweep, by a real worker, beside `clamdscan --stream --multiscan` over the same files; memory by file size.

`python -m bench.attachments` prints the table and writes bench/results/attachments.{json,txt}. clamd has one signature here, so
that what is measured is the workers' share and not the signatures'.
"""

import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from sqlalchemy import Engine, text

from bench.place import place
from db.create import create_shared_schema
from db.engine import create_engine
from db.migrate import migrate
from devstack import programs
from devstack.stack import Stack

RESULTS = Path(__file__).with_name("results")
KIB, MIB, GIB = 2**10, 2**20, 2**30

# As uploads to a chat are: many photos and scans, some documents, few videos. Share, smallest and largest in bytes.
MIX = ((0.2, 1 * KIB, 20 * KIB), (0.55, 50 * KIB, 600 * KIB), (0.2, 600 * KIB, 3 * MIB), (0.05, 3 * MIB, 20 * MIB))
SIZES = {"1 KB": KIB, "1 MB": MIB, "100 MB": 100 * MIB, "1 GB": GIB}
LARGE = {"ATTACHMENTS_LARGEST_BYTES": str(1100 * MIB), "CLAMD_SCAN_SECONDS": "300"}
LARGE_CLAMD = {"StreamMaxLength": "1100M", "MaxFileSize": "2000M", "MaxScanSize": "2000M", "MaxScanTime": "300000"}

# Peak memory of a process that has scanned one file, with its helper's, and before it.
PROBE = """
import re, sys, time
from pathlib import Path
from tasks.attachments import looks, run, scannable
def peak():
    pids = ["self", *(helper._process.pid for helper in looks._free.queue if helper._process)]
    return sum(int(re.search("VmHWM:(.*) kB", Path(f"/proc/{pid}/status").read_text())[1]) for pid in pids)
scannable._tested[run._process().clamd.version()] = scannable.Fitness(frozenset(), time.monotonic())
run.scan_one(int(sys.argv[1]))
before = peak()
assert run.scan_one(int(sys.argv[2])).verdicts == {"clean": 1}
print(before, peak())
"""


def make_files(folder: Path, count: int, seed: int = 1) -> int:
    """Write `count` files of the mix; return their bytes. No two are alike, so that none is known already."""
    chance, total = random.Random(seed), 0
    shares = [share for share, _, _ in MIX]
    for number in range(count):
        _, smallest, largest = chance.choices(MIX, shares)[0]
        size = chance.randint(smallest, largest)
        (folder / f"{number}").write_bytes(chance.randbytes(size))
        total += size
    return total


def add_rows(engine: Engine, urls: list[str]) -> None:
    """Write a row for each file, as the API does, and forget all earlier ones."""
    with engine.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for table in ("message_attachments", "worker_scans"):
            connection.execute(text(f"DELETE FROM {table}"))
        insert = "INSERT INTO message_attachments (message_id, uploaded_by_id, file_name, file_url) VALUES (1, 1, 'a', :url)"
        connection.execute(text(insert), [{"url": url} for url in urls])


def unscanned(engine: Engine) -> int:
    """Return how many rows have no verdict of clean."""
    with engine.connect() as connection:
        query = text("SELECT COUNT(*) FROM message_attachments WHERE NOT (scanned_for_virus AND is_safe)")
        return int(connection.execute(query).scalar_one())


def cpu_seconds(*pids: int) -> float:
    """Return the CPU time that these processes and their living children have used (proc(5), /proc/pid/stat)."""
    total = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it, or its child, has just ended
                total += cpu_seconds(*map(int, (thread / "children").read_text().split()))
    return total


def by_clamdscan(stack: Stack, folder: Path) -> tuple[float, float]:
    """Return the seconds that clamdscan takes for the folder, and the CPU seconds of clamdscan and clamd."""
    began, own = time.monotonic(), os.times()
    before = cpu_seconds(stack.clamd.pid)
    configuration = f"--config-file={stack.clamd.data}/clamd.conf"
    done = subprocess.run(
        ["clamdscan", configuration, "--stream", "--multiscan", "--quiet", str(folder)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    took, after = time.monotonic() - began, os.times()
    scanner = after.children_user + after.children_system - own.children_user - own.children_system
    return took, cpu_seconds(stack.clamd.pid) - before + scanner


def by_worker(engine: Engine, stack: Stack, environment: dict[str, str], urls: list[str]) -> tuple[float, float]:
    """Return the seconds from the sweep's message until the last row is written, by a worker that is up, and the CPU seconds
    of the worker, clamd, MariaDB and Redis.
    """
    options = ["-Q", "attachments", "--concurrency", "2", "--loglevel", "WARNING"]
    add_rows(engine, urls[:1])
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "workers.app", "worker", *options], env=environment)
    nudge = [sys.executable, "-c", "from workers.app import app; [app.send_task('tasks.attachments.sweep') for _ in range(2)]"]
    try:
        subprocess.run(nudge, env=environment, check=True)
        while unscanned(engine):
            time.sleep(0.1)
        add_rows(engine, urls)
        subprocess.run(nudge, env=environment, check=True)
        pids = (worker.pid, stack.clamd.pid, stack.mariadb.pid, stack.redis.pid)
        began, before = time.monotonic(), cpu_seconds(*pids)
        while unscanned(engine):
            time.sleep(0.05)
        return time.monotonic() - began, cpu_seconds(*pids) - before
    finally:
        worker.terminate()
        worker.wait()


def memory(engine: Engine, environment: dict[str, str], folder: Path) -> dict[str, tuple[float, float]]:
    """Return by file size the peak memory in MiB of a process before and after the scan of such a file."""
    found = {}
    for name, size in SIZES.items():
        for file, length in (("small", 1), ("large", size)):
            (folder / file).write_bytes(os.urandom(1))
            os.truncate(folder / file, length)
        add_rows(engine, ["/small", "/large"])
        with engine.connect() as connection:
            ids = [str(row.id) for row in connection.execute(text("SELECT id FROM message_attachments ORDER BY id"))]
        probe = subprocess.run([sys.executable, "-c", PROBE, *ids], env=environment, capture_output=True, check=True, text=True)
        before, after = probe.stdout.split()[-2:]
        found[name] = (int(before) / 1024, int(after) / 1024)
    return found


@click.command()
@click.option("--files", default=1500, show_default=True, help="Uploads of a chat's usual mix.")
@click.option("--rounds", default=3, show_default=True, help="Each contestant's best of so many, in turn.")
def main(files: int, rounds: int) -> None:
    """Measure, print one table and write the results."""
    programs.ensure(["bench"])
    with Stack("bench-attachments", ["mariadb", "redis", "clamd"]) as stack:
        folder = stack.clamd.data / "uploads"
        folder.mkdir()
        engine = create_engine(stack.environment["DATABASE_URL"])
        create_shared_schema(engine)
        migrate(engine)
        environment = {
            **os.environ,
            **stack.environment,
            "ATTACHMENTS_URL": f"file://{folder}",
            "LOG_LEVEL": "WARNING",
        }
        size = make_files(folder, files)
        urls = [f"/{number}" for number in range(files)]
        seconds: dict[str, list[tuple[float, float]]] = {"clamdscan": [], "worker": []}
        for _ in range(rounds):
            # In turns, since the machine may be busy with something else for a while. A restart empties clamd's cache.
            for name in seconds:
                stack.clamd.restart()
                took = by_clamdscan(stack, folder) if name == "clamdscan" else by_worker(engine, stack, environment, urls)
                seconds[name].append(took)
        best = {name: min(taken) for name, taken in seconds.items()}
        stack.clamd.configure(LARGE_CLAMD)
        stack.clamd.restart()
        report({
            "files": files,
            "bytes": size,
            "seconds": seconds,
            "ratio": best["clamdscan"][0] / best["worker"][0],
            "cpu_ratio": best["clamdscan"][1] / best["worker"][1],
            "memory_mib": memory(engine, {**environment, **LARGE}, folder),
        })  # fmt: skip
        engine.dispose()


def report(found: dict[str, Any]) -> None:
    """Print the table and write it beside the figures."""
    lines = [
        f"measured: {place()}",
        f"{found['files']} files, {found['bytes'] / MIB:.0f} MiB, best of {len(found['seconds']['worker'])}",
    ]
    for name, taken in found["seconds"].items():
        best, cpu = min(taken)
        files, mebibytes = found["files"] / best, found["bytes"] / MIB / best
        lines.append(f"{name:<12} {best:7.2f} s {files:8.0f} files/s {mebibytes:8.0f} MiB/s {cpu:7.2f} s of CPU")
    lines.append(f"worker beside clamdscan --stream --multiscan, end to end: {found['ratio']:.2f} (goal 0.90)")
    lines.append(f"by CPU time of all processes, whatever else the machine does: {found['cpu_ratio']:.2f}")
    lines += [
        f"peak memory with a file of {name:<7} {before:6.1f} -> {after:6.1f} MiB"
        for name, (before, after) in found["memory_mib"].items()
    ]
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "attachments.txt").write_text("\n".join(lines) + "\n")
    (RESULTS / "attachments.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
