"""The benchmark's report as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pulse_exp.benchmark.measurements import Report
from pulse_exp.benchmark.networks import BASELINE


def show(report: Report) -> None:
    """Prints the machine, then a table of each thing measured."""
    console = Console()
    on, ceiling = report["machine"], report["ceilings"]
    console.print(
        f"{on['device']}, {on['threads']} of {on['cores']} cores, load {on['load']:.1f}, "
        f"torch {on['torch']}\nceilings: {ceiling['flops'] / 1e9:.0f} GFLOP/s in a float32 matrix "
        f"product, {ceiling['bandwidth'] / 1e9:.1f} GB/s read and written in a copy\n"
    )
    console.print(counted(report), "")
    console.print(step_times(report), "")
    console.print(batch_times(report), "")
    console.print(overheads(report), "")
    if "faces" in report:
        console.print(faces(report), "")
    if not on["device"].startswith("NVIDIA"):
        console.print("Not measured here: anything on a GPU.")


def table(title: str, *columns: str) -> Table:
    """An empty table: words on the left, numbers on the right."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left", no_wrap=not number)
    return made


def counted(report: Report) -> Table:
    side = report["resolution"]
    made = table(
        f"One step counted: forward, and back to the style vectors, {side}²",
        *("generator", "GFLOP forward", "back", "GB least", "GB by layers", "floor s"),
    )
    for name, row in report["counts"].items():
        flop = f"{row['forward_flop'] / 1e9:.2f}", f"{row['backward_flop'] / 1e9:.2f}"
        moved = f"{row['least'] / 1e9:.2f}", f"{row['moved'] / 1e9:.2f}"
        made.add_row(name, *flop, *moved, f"{row['floor']:.3g}")
    return made


def step_times(report: Report) -> Table:
    side, base = report["resolution"], report["steps"][BASELINE]
    made = table(
        f"One step measured, {side}²: median seconds, least processor seconds",
        *("generator", "seconds", "floor / seconds", "plain / this"),
        *("processor s", "plain / this", "peak GB"),
    )
    for name, row in report["steps"].items():
        floor, peak = report["counts"][name.split()[0]]["floor"], report["peak_memory"].get(name)
        share = "" if "bf16" in name else f"{floor / row['seconds']:.0%}"
        made.add_row(
            name,
            *(f"{row['seconds']:.3g}", share, f"{base['seconds'] / row['seconds']:.1f}"),
            *(f"{row['least_cpu']:.3g}", f"{base['least_cpu'] / row['least_cpu']:.1f}"),
            f"{peak / 1e9:.2f}" if peak else "",
        )
    return made


def batch_times(report: Report) -> Table:
    sizes = next(iter(report["batches"].values()))
    made = table("Seconds a row as the batch grows (processor s)", "generator", *sizes)
    for name, by_batch in report["batches"].items():
        made.add_row(name, *(f"{r['seconds']:.3g} ({r['cpu']:.3g})" for r in by_batch.values()))
    return made


def overheads(report: Report) -> Table:
    made = table(
        "A search's own share of a step (no generator)",
        *("resolution", "search ms", "downscaling and error ms", "between ms", "processor ms"),
    )
    for row in report["overhead"]:
        parts = [row["search"]["seconds"], row["bare"]["seconds"], row["seconds"]]
        parts.append(row["search"]["cpu"] - row["bare"]["cpu"])
        made.add_row(f"{row['resolution']}²", *(f"{1000 * part:.2f}" for part in parts))
    return made


def faces(report: Report) -> Table:
    made = table("Whole searches", "generator", "batch", "faces", "s a face", "faces a second")
    for name, row in report["faces"].items():
        each = row["seconds_a_face"]
        counts = str(row["batch"]), str(row["faces"])
        made.add_row(name, *counts, f"{each:.3g}", f"{1 / each:.3g}")
    return made
