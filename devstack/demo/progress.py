"""The progress of the workers: rows by status, pushes a second, the oldest row that waits, and the pushes accepted."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from sqlalchemy import Engine, text

from devstack.demo.screen import Screen
from devstack.emulators.client import Emulator

# Between two samples, and between two lines where no picture moves.
SAMPLE_SECONDS = 0.25
LINE_SECONDS = 2.0
RATE_SECONDS = 3.0
# The longest wait between two tries that the demo's faults lead to is a third of this.
STALL_SECONDS = 60.0

STATUSES = ("PENDING", "SENT", "FAILED", "BOUNCED")
COLOURS = {"PENDING": "white", "SENT": "green", "FAILED": "yellow", "BOUNCED": "magenta"}

# Both by idx_delivery_status; of FAILED rows there are few.
COUNTS = text("SELECT delivery_status, COUNT(*) AS n FROM chat_notifications GROUP BY delivery_status")
GAVE_UP = text("SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'FAILED' AND error_message LIKE 'gave up:%'")
# Rows older than 24 h are given up, so they do not wait.
OLDEST = text("""
    SELECT TIMESTAMPDIFF(SECOND, MIN(created_at), NOW()) FROM chat_notifications
    WHERE delivery_status IN ('PENDING', 'FAILED') AND created_at > NOW() - INTERVAL 24 HOUR
""")


@dataclass(frozen=True, slots=True)
class Sample:
    """The counts of one moment. Times are in seconds, `at` on the monotonic clock."""

    at: float
    rows: dict[str, int]
    gave_up: int
    oldest: int
    accepted: int

    @property
    def unsettled(self) -> int:
        """Rows that can still change: a FAILED one is tried again unless it was given up."""
        return self.rows["PENDING"] + self.rows["FAILED"] - self.gave_up


def take(engine: Engine, emulator: Emulator) -> Sample:
    """Read the counts of this moment."""
    with engine.connect() as connection:
        counts = {row.delivery_status: row.n for row in connection.execute(COUNTS)}
        gave_up = connection.execute(GAVE_UP).scalar_one()
        oldest = connection.execute(OLDEST).scalar_one() or 0
    rows = {status: counts.get(status, 0) for status in STATUSES}
    return Sample(time.monotonic(), rows, gave_up, oldest, emulator.stats().count("accepted"))


def watch(
    screen: Screen, look: Callable[[], Sample], waits: Callable[[Sample], object], tell: Callable[[Sample], str] = lambda _: ""
) -> Sample:
    """Show samples while a sample still `waits`, unless nothing has changed for STALL_SECONDS; return the last one.

    `tell` is asked at each sample whether there is something to say above them.
    """
    sample = look()
    began, changed, written, recent = sample.at, sample.at, sample.at, deque([sample])
    live = Live(console=screen.console, auto_refresh=False, transient=True) if screen.live else None
    with live or nullcontext():
        while waits(sample) and sample.at - changed < STALL_SECONDS:
            time.sleep(SAMPLE_SECONDS)
            before, sample = sample, look()
            if sample.rows != before.rows:
                changed = sample.at
            recent.append(sample)
            while len(recent) > 2 and sample.at - recent[0].at > RATE_SECONDS:
                recent.popleft()
            rate = (sample.accepted - recent[0].accepted) / (sample.at - recent[0].at)
            if said := tell(sample):
                screen.note(said, style="bold")
            if live:
                live.update(_picture(sample, sample.at - began, rate), refresh=True)
            elif sample.at - written >= LINE_SECONDS:
                written = sample.at
                screen.note(_line(sample, rate))
    return sample


def _line(sample: Sample, rate: float) -> str:
    counts = "  ".join(f"{status} {rows:,}" for status, rows in sample.rows.items())
    return f"{counts}  {rate:,.0f} pushes/s"


def _picture(sample: Sample, seconds: float, rate: float) -> RenderableType:
    total, margin = sum(sample.rows.values()), " " * 10
    table = Table.grid(padding=(0, 2))
    for status, count in _counts(sample).items():
        colour = COLOURS[status]
        bar = ProgressBar(total, sample.rows[status], width=40, complete_style=colour, finished_style=colour)
        table.add_row(f"{margin}{status}", bar, count)
    figures = f"{rate:,.0f} pushes/s  oldest waiting {sample.oldest} s  accepted by the emulator {sample.accepted:,}"
    return Group(table, f"{seconds:6.1f} s  {figures}")


def _counts(sample: Sample) -> dict[str, str]:
    """Return the rows by status, and of the FAILED ones how many are not tried again."""
    counts = {status: f"{rows:,}" for status, rows in sample.rows.items()}
    counts["FAILED"] = f"{sample.rows['FAILED'] - sample.gave_up:,} to retry, {sample.gave_up:,} given up"
    return counts
