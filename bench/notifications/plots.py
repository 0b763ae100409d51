"""The same results as PNG plots."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes

from bench.notifications import contestants as c
from bench.notifications.report import Results

mpl.use("Agg")

from matplotlib import pyplot as plt

WIDTH, DPI = 9, 110


def draw(found: Results, folder: Path, stem: str) -> list[Path]:
    """Write a plot of each part that was measured; return the files."""
    parts = (
        ("throughput", found.runs, _throughput),
        ("scaling", found.runs, _scaling),
        ("latency", found.latencies, _latency),
        ("growth", found.costs, _growth),
        ("memory", found.memory, _memory),
        ("transports", found.transports, _transports),
    )
    written = []
    for name, measured, plot in parts:
        if measured:
            figure, axes = plt.subplots(figsize=(WIDTH, WIDTH * 0.5))
            plot(found, axes)
            figure.tight_layout()
            path = folder / f"{stem}-{name}.png"
            figure.savefig(path, dpi=DPI, metadata={"Software": None})
            plt.close(figure)
            written.append(path)
    return written


def _bars(axes: Axes, names: list[str], values: list[float], label: str, marked: list[bool]) -> None:
    bars = axes.barh(names, values, color=["tab:blue" if mark else "tab:grey" for mark in marked])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=8)


def _throughput(found: Results, axes: Axes) -> None:
    names = [f"{run.name}, {run.processes}p" for run in found.runs]
    _bars(axes, names, [run.rate for run in found.runs], "rows a second", [run.name == c.OURS for run in found.runs])


def _scaling(found: Results, axes: Axes) -> None:
    for run in found.runs:
        if run.name == c.OURS:
            seconds, counts = zip(*run.per_second, strict=True)
            axes.plot(seconds, counts, marker=".", label=f"{run.processes} processes: {run.rate:,.0f} rows/s")
    axes.set_xlabel("seconds from the first message")
    axes.set_ylabel("messages in that second")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def _latency(found: Results, axes: Axes) -> None:
    for latency in found.latencies:
        shares = [100 * (i + 1) / len(latency.samples) for i in range(len(latency.samples))]
        axes.plot(latency.samples, shares, label=f"{latency.name}: p50 {latency.p50:.1f}, p99 {latency.p99:.1f} ms")
    axes.set_xscale("log")
    axes.set_xlabel("ms from commit and nudge to the provider")
    axes.set_ylabel("% of rows")
    axes.legend(fontsize=8)


def _growth(found: Results, axes: Axes) -> None:
    axes.barh([cost.what for cost in found.costs], [cost.ratio for cost in found.costs], color="tab:blue")
    axes.axvline(1.3, color="tab:red", linestyle="--", label="goal")
    axes.invert_yaxis()
    axes.set_xlabel(f"cost at {found.sizes[1]:,} rows over cost at {found.sizes[0]:,}")
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)


def _memory(found: Results, axes: Axes) -> None:
    sent, rss = zip(*found.memory, strict=True)
    axes.plot(sent, rss)
    axes.set_xlabel("rows sent")
    axes.set_ylabel("MiB resident")
    axes.set_ylim(bottom=0)


def _transports(found: Results, axes: Axes) -> None:
    rates = [carried.rate for carried in found.transports]
    _bars(axes, [x.name for x in found.transports], rates, "messages a second", [i == 0 for i in range(len(rates))])
