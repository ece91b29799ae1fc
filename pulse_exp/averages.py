"""The average of several results that all match one input (Menon et al. 2020, section 3).

The best guess under a squared loss is the mean of all images that downscale to the input. What
that does to a picture is measured here on finished restarts: averages of k of them, as runs of
their own with the same records and pictures.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from pulse_exp.images import read_image, write_image
from pulse_exp.measure import Downscalers, MeasuredRun
from pulse_exp.metrics.base import METRICS
from pulse_exp.operators import Downscaler
from pulse_exp.problem import Record
from pulse_exp.records import RECORDS, RecordFile

OWN = ("curves", "solved_step", "best_step", "steps", "seconds", "selected", "missing")
"""Keys of a search's record that an average has no value for."""


def write_averages(results: Path, into: Path, counts: Sequence[int]) -> list[Path]:
    """Averages the restarts of every run directly in `results`; returns the new run folders.

    Only restarts within eps are averaged, and only images with `max(counts)` of them take part, so
    that all averages are of the same images. Of n restarts, k are averaged in n // k disjoint
    groups, each a row. Its metrics are those that the searches have; `averaged` is k.
    """
    shutil.rmtree(into, ignore_errors=True)
    folders = []
    for run in sorted(path.parent for path in results.glob(f"*/{RECORDS}")):
        by_image: dict[str, list[Record]] = {}
        for row in RecordFile(run / RECORDS).read():
            if row["status"] == "solved":
                by_image.setdefault(row["image"], []).append(row)
        enough = [rows for rows in by_image.values() if len(rows) >= max(counts)]
        for count in counts:
            folder = into / f"{run.name}-{count}"
            if enough:
                average_run(run, folder, enough, count)
                folders.append(folder)
    return folders


def average_run(run: Path, folder: Path, images: Sequence[Sequence[Record]], count: int) -> None:
    """Writes and measures the averages of `count` restarts of each image as one run folder."""
    downscalers = Downscalers(run)
    shutil.copytree(run / ".hydra", folder / ".hydra")
    file = RecordFile(folder / RECORDS)
    for rows in images:
        image = rows[0]["image"]
        for kind in ("lr", "hr"):
            source = run / kind / f"{image}.png"
            if source.is_file():
                (folder / kind).mkdir(exist_ok=True)
                shutil.copy(source, folder / kind)
        file.append(list(averaged(run, folder, rows, count, downscalers[rows[0]])))
    names = [name for name in METRICS if name in images[0][0]]
    for _ in MeasuredRun(folder, names, torch.device("cpu")).measure():
        pass


def averaged(
    run: Path, folder: Path, rows: Sequence[Record], count: int, downscaler: Downscaler
) -> Iterator[Record]:
    """Writes the averages of one image and gives their records, without metrics."""
    lr = read_image(run / "lr" / f"{rows[0]['image']}.png")
    for group in range(len(rows) // count):
        members = rows[group * count : (group + 1) * count]
        paths = [run / "sr" / f"{row['image']}-{row['restart']}.png" for row in members]
        mean = torch.stack([read_image(path) for path in paths]).mean(dim=0)
        write_image(mean, folder / "sr" / f"{rows[0]['image']}-{group}.png")
        error = float((downscaler(mean[None])[0] - lr).square().mean())
        first = {k: v for k, v in members[0].items() if k not in (*OWN, *METRICS)}
        name = f"{first['config_hash']} averaged {count}"
        yield {
            **first,
            "restart": group,
            "averaged": count,
            "status": "solved" if error <= first["eps"] else "unsolved",
            "lr_mse": error,
            "config_hash": hashlib.sha256(name.encode()).hexdigest()[:12],
        }
