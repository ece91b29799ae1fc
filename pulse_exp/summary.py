"""The short table at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
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
    if hint := blur_hint(rows, known_blur, blur_assumed):
        console.print(f"[yellow]blurred[/] {escape(hint)}", soft_wrap=True)
    if hint := compression_hint(rows, compression_assumed):
        console.print(f"[yellow]JPEG[/] {escape(hint)}", soft_wrap=True)
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


def blur_hint(rows: Sequence[Record], known_blur: float, assumed: bool) -> str:
    """Which inputs are more blurred than the downscaler explains, and what to try unless that is
    `assumed`; "" where none is. Of one blur after another the variances add up.
    """
    names, beyond = named(rows, "lr_blur")
    if not names:
        return ""
    told = f"{names}, by some {beyond:.1f} low-res pixels"
    if assumed:
        return f"{told}; their searches took it into account"
    sigma = min(4, hypot(known_blur, beyond))
    return (
        f"{told}, and so the results; try search.blur=estimated, "
        f"or downscaler=gaussian downscaler.sigma={sigma:.1f}"
    )


def compression_hint(rows: Sequence[Record], assumed: bool) -> str:
    """Which inputs were saved as JPEG, and what to try unless that is `assumed`."""
    names, quality = named(rows, "lr_jpeg")
    if not names:
        return ""
    told = f"{names}, of quality {quality:.0f} or so"
    if assumed:
        return f"{told}; their searches took it into account"
    return f"{told}: their blocks are taken for the face's; try search.compression=estimated"


def named(rows: Sequence[Record], key: str) -> tuple[str, float]:
    """The first inputs that have a `key` and how many have, and its median; "" where none has."""
    values = {row["image"]: row.get(key) or 0 for row in rows}
    having = [image for image, value in values.items() if value]
    if not having:
        return "", 0.0
    names = ", ".join(having[:3]) + (", ..." if len(having) > 3 else "")
    return f"{names}: {len(having)} of {len(values)} inputs", median(values[i] for i in having)


def number(value: Any, form: str) -> str:
    return "–" if value is None else form.format(value)
