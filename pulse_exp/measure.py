"""`task=measure`: adds metrics to finished runs from their pictures, without searching again.

Reads the records, `sr/`, `lr/`, `hr/` and the run's own configuration, of which only the
downscaler is built; no generator is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from pulse_exp import metrics
from pulse_exp.building import build_downscaler, pick_device
from pulse_exp.compression import as_saved, cells
from pulse_exp.errors import UserError
from pulse_exp.images import read_image
from pulse_exp.metrics import Restoration, measure, measure_run
from pulse_exp.metrics.catalog import CATALOG
from pulse_exp.metrics.diversity import FaceDiversity, ImageDiversity
from pulse_exp.operators import Downscaler
from pulse_exp.operators.blurred import Blurred, blur_matrices
from pulse_exp.problem import Record
from pulse_exp.records import RECORDS, RecordFile
from pulse_exp.rows import Rows

COMPARING = (ImageDiversity, FaceDiversity)
"""Metrics whose value depends on the image's other restarts, which may have been added since."""

READING_INPUT = {"lr_psnr", "lr_ssim", "identity_lr", "skin_tone"}
"""Metrics that compare with the low-res input, which random measurements leave no picture of."""

Row = tuple[str, int, str]
"""Image, restart and config hash of a record."""


def run(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """Measures `metrics` on every finished search in `results`, a run or multirun folder.

    What a record has already is kept, but for the diversities, which are measured again over all
    restarts. Failed searches have no picture and stay as they are.

    Returns:
        The exit status: 0, or 1 if some run could not be measured.

    Raises:
        UserError: there are no records, or a metric's name is wrong.
    """
    runs = run_folders(config.results)
    for name in config.metrics:
        metrics.load(name)
    device = pick_device(config.trainer.accelerator)
    console, code = Console(), 0
    with Progress(console=Console(stderr=True), disable=not console.is_terminal) as progress:
        task = progress.add_task("measure", total=None)
        for number, path in enumerate(runs):
            progress.update(task, description=f"run {number + 1} of {len(runs)}")
            try:
                measured = MeasuredRun(path, config.metrics, device)
                for done, total in measured.measure():
                    progress.update(task, completed=done, total=total)
                console.print(f"{path}: {measured.account()}", markup=False, soft_wrap=True)
            except UserError as error:
                console.print(f"{path}: not measured: {error}", markup=False, soft_wrap=True)
                code = 1
    return code


def run_folders(results: str | Path) -> list[Path]:
    """The run folders at and below a folder.

    Raises:
        UserError: there are none.
    """
    root = Path(results).expanduser()
    found = sorted(path.parent for path in root.rglob(RECORDS))
    if not found:
        raise UserError(f"results={results}: no {RECORDS} in this folder or below")
    return found


@dataclass
class MeasuredRun:
    """One run folder and what has been measured of it.

    Attributes:
        names: the metrics wanted.
        added: by row, the new values and `None` for what is missing.
        reasons: by row, why a key is missing; None where it is not.
    """

    folder: Path
    names: Sequence[str]
    device: torch.device
    added: dict[Row, Record] = field(default_factory=dict)
    reasons: dict[Row, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.file = RecordFile(self.folder / RECORDS)
        finished = {key_of(row): row for row in self.file.read() if row["status"] != "failed"}
        self.rows = list(finished.values())
        self.metrics = [metrics.load(name) for name in self.names]
        self.downscalers = Downscalers(self.folder)

    def measure(self) -> Iterator[tuple[int, int]]:
        """Measures image by image, saying how many of how many are done, and writes the records,
        also when it is interrupted."""
        images: dict[tuple[str, str], list[Record]] = {}
        for row in self.rows:
            images.setdefault((row["image"], row["config_hash"]), []).append(row)
        try:
            for done, rows in enumerate(images.values()):
                yield done, len(images)
                self.measure_image(sorted(rows, key=lambda row: row["restart"]))
            self.measure_whole([min(rows, key=lambda r: r["lr_mse"]) for rows in images.values()])
        finally:
            self.file.change(self.changed)

    def measure_image(self, rows: Sequence[Record]) -> None:
        """All metrics of one image that one of its rows lacks, on all of its rows."""
        wanted = [
            (name, metric)
            for name, metric in zip(self.names, self.metrics, strict=True)
            if isinstance(metric, COMPARING)
            or any(row.get(key) is None for row in rows for key in metric.keys)
        ]
        if not wanted:
            return
        downscaler = self.downscalers[rows[0]]
        keys = [key for _, metric in wanted for key in metric.keys]
        values: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        try:
            restoration = self.restoration(rows, downscaler)
            if not downscaler.is_image:
                for name, metric in wanted:
                    if name in READING_INPUT:
                        missing |= dict.fromkeys(metric.keys, "the input is not a picture")
            possible = [metric for _, metric in wanted if not set(metric.keys) & set(missing)]
            values, absent = measure(possible, restoration)
            missing |= absent
        except UserError as error:
            missing = dict.fromkeys(keys, str(error))
        again = {k for _, m in wanted if isinstance(m, COMPARING) for k in m.keys}
        for number, row in enumerate(rows):
            lacking = [k for k in keys if row.get(k) is None or k in again]
            column = {k: values[k][number].item() if k in values else None for k in lacking}
            self.add(row, column, {k: why for k, why in missing.items() if k in lacking})

    def measure_whole(self, chosen: Sequence[Record]) -> None:
        """The metrics of the whole run, over the restart nearest to each image's input."""

        def restorations() -> Iterator[Restoration]:
            for row in chosen:
                yield self.restoration([row], self.downscalers[row])

        values, missing = measure_run(self.metrics, restorations)
        for row in self.rows:
            self.add(row, {**dict.fromkeys(missing), **values}, missing)

    def restoration(self, rows: Sequence[Record], downscaler: Downscaler) -> Restoration:
        """The pictures of one image's rows.

        Raises:
            UserError: one of them cannot be read.
        """
        image, count = rows[0]["image"], len(rows)
        paths = [self.folder / "sr" / f"{image}-{row['restart']}.png" for row in rows]
        sr = torch.stack([read_image(path) for path in paths]).to(self.device)
        lr = read_image(self.folder / "lr" / f"{image}.png").to(self.device)
        truth = self.folder / "hr" / f"{image}.png"
        hr = read_image(truth).to(self.device) if truth.is_file() else None
        return Restoration(
            sr=sr,
            lr=lr.expand(count, -1, -1, -1),
            sr_lr=as_saved(downscaler(sr), self.downscalers.observation(rows[0], lr)),
            hr=None if hr is None else hr.expand(count, -1, -1, -1),
            images=(image,) * count,
        )

    def add(self, row: Record, values: Record, reasons: Mapping[str, str]) -> None:
        self.added.setdefault(key_of(row), {}).update(values)
        self.reasons.setdefault(key_of(row), {}).update(reasons)

    def changed(self, row: Record) -> Record:
        """A record with what was measured of it; the row itself where that is nothing."""
        new = self.added.get(key_of(row))
        if not new or row["status"] == "failed":
            return row
        reasons = {k: w for k, w in missing_of(row).items() if k not in new}
        reasons |= self.reasons.get(key_of(row), {})
        changed = {**{k: v for k, v in row.items() if k != "missing"}, **new}
        if reasons:
            changed["missing"] = "; ".join(f"{key}: {why}" for key, why in reasons.items())
        return changed

    def account(self) -> str:
        """What was measured of how many records and what is missing, in one line."""
        found = [{k for k, v in row.items() if v is not None} for row in self.added.values()]
        keys, rows = set().union(*found), sum(map(bool, found))
        text = f"{', '.join(sorted(keys)) or 'nothing'} added to {rows} of {len(self.rows)} records"
        reasons = {f"{k}: {why}" for row in self.reasons.values() for k, why in row.items()}
        return "; missing: ".join([text, *sorted(reasons)])


class Downscalers:
    """The downscaler that the search of a record assumed, from its run's configuration."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".hydra" / "config.yaml"
        try:
            self.config = OmegaConf.load(self.path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror})") from error
        self.built: dict[tuple[int, int], Downscaler] = {}

    def __getitem__(self, row: Record) -> Downscaler:
        assert isinstance(self.config, DictConfig)
        size = row["factor"], row["side"]
        if size not in self.built:
            self.built[size] = build_downscaler(self.config, *size)
        downscaler = self.built[size]
        if OmegaConf.select(self.config, "search.blur") == "estimated" and row.get("lr_blur"):
            blur = torch.tensor([row["lr_blur"]])
            return Blurred(downscaler, blur_matrices(blur, row["lr_side"]))
        return downscaler

    def observation(self, row: Record, lr: Float[Tensor, "3 h w"]) -> Rows:
        """What the search of a record had of its input."""
        known = row.get("lr_jpeg") is not None
        if OmegaConf.select(self.config, "search.compression") != "estimated" or not known:
            return {"lr": lr[None]}
        return {"lr": lr[None], "file": cells(lr[None], torch.tensor([row["lr_jpeg"]]))}


def key_of(row: Record) -> Row:
    return row["image"], row["restart"], row["config_hash"]


def missing_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The reasons in a record's `missing`: "key: why; key: why", where a reason may hold "; "."""
    reasons: dict[str, str] = {}
    last = ""
    for part in str(row.get("missing") or "").split("; "):
        key, colon, why = part.partition(": ")
        if colon and key in CATALOG:
            reasons[last := key] = why
        elif last:
            reasons[last] += f"; {part}"
    return reasons
