"""The short table at the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import hypot
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from pulse_exp.problem import Record

MOST_ROWS = 12
STYLES = {"solved": "green", "unsolved": "yellow", "failed": "red"}


def print_summary(
    rows: Sequence[Record],
    folder: Path,
    known_blur: float = 0,
    blur_assumed: bool = False,
    compression_assumed: bool = False,
) -> None:
    """Prints status, errors and seconds of the first rows, the totals, and where the files are.

    Args:
        known_blur: standard deviation, in low-res pixels, of the downscaler's blur.
        blur_assumed, compression_assumed: the search assumed the blur, the quality as JPEG, that
            it told of its inputs.
    """
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    several = any(row["restart"] for row in rows)
    table.add_column("image")
    if several:
        table.add_column("restart", justify="right")
    refined = any(row.get("lr_mse_refined") is not None for row in rows)
    headings = ["status", "error / eps", "LR-PSNR", "PSNR", "NIQE", "seconds"]
    if refined:
        headings.insert(2, "refined")
    for heading in headings:
        justify: JustifyMethod = "left" if heading == "status" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in rows[:MOST_ROWS]:
        status = row["status"]
        cells = [escape(row["image"]), *([str(row["restart"])] if several else [])]
        cells.append(f"[{STYLES[status]}]{status}[/]")
        cells.append(number(row["lr_mse"], "{:.2e}") + f" / {row['eps']:.0e}")
        if refined:
            cells.append(number(row.get("lr_mse_refined"), "{:.2e}"))
        cells += [number(row.get(key), "{:.2f}") for key in ("lr_psnr", "psnr", "niqe")]
        cells.append(number(row["seconds"], "{:.1f}"))
        table.add_row(*cells)
    console.print(table)
    if len(rows) > MOST_ROWS:
        console.print(f"... and {len(rows) - MOST_ROWS} more", style="dim")
    if len(rows) > 1:
        console.print(totals(rows))
    for line in hints(rows, known_blur, blur_assumed, compression_assumed):
        console.print(line, soft_wrap=True)
    for row in [row for row in rows if row["status"] == "failed"][:MOST_ROWS]:
        console.print(
            f"[red]failed[/] {escape(row['image'])}: {escape(row['reason'])}", soft_wrap=True
        )
    for name in ("panel.png", "records.jsonl", "sr", "pasted"):
        if (folder / name).exists():
            console.print(escape(str(folder / name)), soft_wrap=True, style="dim")


def totals(rows: Sequence[Record]) -> str:
    """One line over all rows."""
    count = {s: sum(row["status"] == s for row in rows) for s in STYLES}
    errors = [row["lr_mse"] for row in rows if row["lr_mse"] is not None]
    line = f"{len(rows)} searches: " + ", ".join(f"{n} {s}" for s, n in count.items() if n)
    return line + (f"; mean error {mean(errors):.2e}" if errors else "")


def hints(
    rows: Sequence[Record], known_blur: float, blur_assumed: bool, compression_assumed: bool
) -> Iterator[str]:
    """A line on inputs that are more blurred than the downscaler explains, one on JPEGs."""

    def deblur(beyond: float) -> str:
        sigma = min(4, hypot(known_blur, beyond))  # of one blur after another the variances add up
        return (
            ", and so the results; try search.blur=estimated, "
            f"or downscaler=gaussian downscaler.sigma={sigma:.1f}"
        )

    def deblock(quality: float) -> str:
        return ": their blocks are taken for the face's; try search.compression=estimated"

    width = "by some {:.1f} low-res pixels"
    quality = "of quality {:.0f} or so"
    blurred = hint(rows, "lr_blur", width, None if blur_assumed else deblur)
    compressed = hint(rows, "lr_jpeg", quality, None if compression_assumed else deblock)
    for kind, line in (("blurred", blurred), ("JPEG", compressed)):
        if line:
            yield f"[yellow]{kind}[/] {escape(line)}"


def hint(rows: Sequence[Record], key: str, told: str, remedy: Callable[[float], str] | None) -> str:
    """Which inputs have a `key` that the downscaler does not explain; "" where none has.

    Args:
        told: how the median of their values is said.
        remedy: what follows of it and what to try; None where the searches assumed it.
    """
    values = {row["image"]: row.get(key) or 0 for row in rows}
    having = [image for image, value in values.items() if value]
    if not having:
        return ""
    typical = median(values[image] for image in having)
    names = ", ".join(having[:3]) + (", ..." if len(having) > 3 else "")
    line = f"{names}: {len(having)} of {len(values)} inputs, {told.format(typical)}"
    return line + (remedy(typical) if remedy else "; their searches took it into account")


def number(value: Any, form: str) -> str:
    return "–" if value is None else form.format(value)
