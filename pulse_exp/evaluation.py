"""From candidates to results: selection, refinement, metrics, pictures, records."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.compression import as_saved
from pulse_exp.data import Dataset
from pulse_exp.errors import OutputError
from pulse_exp.images import write_image
from pulse_exp.metrics import Metric, Restoration, measure
from pulse_exp.objective import Objective
from pulse_exp.operators import Downscaler
from pulse_exp.operators.degradations import Chain
from pulse_exp.panel import PanelRow
from pulse_exp.problem import Candidate, Problem, Record
from pulse_exp.records import CURVES, RECORDS, RecordFile
from pulse_exp.refine import Refinement
from pulse_exp.rows import Rows, move
from pulse_exp.seeding import random_generator


class Problems:
    """The problems of a dataset, made when they are asked for and forgotten when they are done."""

    def __init__(self, dataset: Dataset, degradation: Chain, seed: int) -> None:
        self.dataset, self.degradation, self.seed = dataset, degradation, seed
        self.index = {image: number for number, image in enumerate(dataset.ids)}
        self.open: dict[str, Problem] = {}

    def __getitem__(self, image: str) -> Problem:
        """The problem of an image; raises UserError where it cannot be used."""
        if image not in self.open:
            sample = self.dataset.load(self.index[image])
            lr = sample.lr
            if lr is None:
                assert sample.hr is not None
                lr = self.degradation(sample.hr, random_generator(self.seed, image, "degradation"))
            self.open[image] = Problem(image, lr, sample.hr, sample.latent, sample.notes)
        return self.open[image]

    def close(self, image: str) -> None:
        self.open.pop(image, None)


@dataclass
class Evaluation:
    """Turns the candidates of one group of problems into files, once all of an image are there.

    Attributes:
        folder: the run's output folder.
        shared: what every record of the run carries (choices, eps, hash, versions ...).
        refinements: applied to the selected result of each restart, in order.
        expected: how many candidates each open image still waits for.
    """

    folder: Path
    shared: Record
    problems: Problems
    metrics: Sequence[Metric]
    downscaler: Downscaler
    refinements: Mapping[str, Refinement]
    objective: Objective | None
    device: torch.device

    def __post_init__(self) -> None:
        self.records = RecordFile(self.folder / RECORDS)
        self.curves = RecordFile(self.folder / CURVES)
        self.expected: dict[str, int] = {}
        self.candidates: dict[str, list[Candidate]] = {}

    def expect(self, image: str, restarts: int) -> None:
        self.expected[image] = restarts

    def failed(self, image: str, restarts: Sequence[int], reason: str) -> None:
        """Rows of an image that could not even be searched."""
        rows = [self.record(Candidate(image, restart, "failed", reason)) for restart in restarts]
        self.write(rows, [])

    def add(self, candidate: Candidate) -> None:
        """A search came back; its image is written when it was the last one expected."""
        together = self.candidates.setdefault(candidate.image, [])
        together.append(candidate)
        if len(together) < self.expected.get(candidate.image, 1):
            return
        self.finish(sorted(self.candidates.pop(candidate.image), key=lambda c: c.restart))
        self.expected.pop(candidate.image, None)
        self.problems.close(candidate.image)

    @torch.no_grad()
    def finish(self, candidates: Sequence[Candidate]) -> None:
        problem = self.problems[candidates[0].image]
        good = [c for c in candidates if c.status != "failed" and c.sr is not None]
        chosen = min(good, key=lambda c: c.lr_mse, default=None)
        downscaler, observation = self.assumed(problem.lr[None].to(self.device))
        images = [self.refined(candidate, downscaler, observation) for candidate in good]
        values, missing = self.measure(problem, images, downscaler, observation)
        records = {
            id(c): {
                "selected": c is chosen,
                **{key: column[row] for key, column in values.items()},
                **missing,
            }
            for row, c in enumerate(good)
        }
        try:
            write_image(problem.lr, self.folder / "lr" / f"{problem.image}.png")
            if problem.hr is not None:
                write_image(problem.hr, self.folder / "hr" / f"{problem.image}.png")
            for candidate, image in zip(good, images, strict=True):
                name = f"{candidate.image}-{candidate.restart}.png"
                write_image(image, self.folder / "sr" / name)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror})") from error
        rows = [self.record(c, problem, records.get(id(c), {})) for c in candidates]
        self.write(rows, [self.curve(c) for c in good])

    def refined(
        self, candidate: Candidate, downscaler: Downscaler, observation: Rows
    ) -> Float[Tensor, "3 H W"]:
        assert candidate.sr is not None
        sr, lr = candidate.sr[None].to(self.device), observation["lr"]
        for refinement in self.refinements.values():
            sr_lr = downscaler(sr)
            nearest = lr - (as_saved(sr_lr, observation) - sr_lr)  # that the file may be of
            with torch.enable_grad():
                sr = refinement(sr, nearest, candidate, downscaler, self.objective).detach()
        return sr[0].clamp(0, 1)

    def assumed(self, lr: Float[Tensor, "1 3 h w"]) -> tuple[Downscaler, Rows]:
        """What the search of an input assumed to have made it, and what it has of it."""
        if self.objective is None:
            return self.downscaler, {"lr": lr}
        observation = move(self.objective.observation(lr), self.device)
        return self.objective.measurement(observation), observation

    def measure(
        self,
        problem: Problem,
        images: Sequence[Tensor],
        downscaler: Downscaler,
        observation: Rows,
    ) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Columns of values, one a result, and what is missing with its reason."""
        if not images:
            return {}, {}
        sr = torch.stack(list(images))
        count = len(sr)
        lr = problem.lr.to(sr.device).expand(count, -1, -1, -1)
        hr = None if problem.hr is None else problem.hr.to(sr.device).expand(count, -1, -1, -1)
        sr_lr = as_saved(downscaler(sr), observation)
        restoration = Restoration(sr, lr, sr_lr, hr, (problem.image,) * count)
        values, missing = measure(self.metrics, restoration)
        columns: dict[str, list[Any]] = {key: v.tolist() for key, v in values.items()}
        if self.refinements:
            columns["lr_mse_refined"] = (sr_lr - lr).square().flatten(1).mean(1).tolist()
        if self.objective is not None:
            told = self.objective.told(problem.lr[None])
            columns |= {key: value.expand(count).tolist() for key, value in told.items()}
        absent: dict[str, Any] = dict.fromkeys(missing)
        if missing:
            absent["missing"] = "; ".join(f"{key}: {why}" for key, why in missing.items())
        return columns, absent

    def record(
        self,
        candidate: Candidate,
        problem: Problem | None = None,
        measured: Mapping[str, Any] | None = None,
    ) -> Record:
        """The flat row of one candidate."""
        return {
            "image": candidate.image,
            "restart": candidate.restart,
            "status": candidate.status,
            "reason": candidate.reason,
            "lr_mse": candidate.lr_mse,
            "psnr": None,
            "lr_psnr": None,
            "steps": candidate.steps,
            "best_step": candidate.best_step,
            "solved_step": candidate.solved_step,
            "seconds": round(candidate.seconds, 4),
            "peak_memory": peak_memory(self.device),
            **self.shared,
            **(problem.notes if problem else {}),
            **(measured or {}),
        }

    def curve(self, candidate: Candidate) -> Record:
        lists = {name: [float(f"{v:.6g}") for v in c] for name, c in candidate.curves.items()}
        return {
            "image": candidate.image,
            "restart": candidate.restart,
            "config_hash": self.shared["config_hash"],
            "step": list(range(len(next(iter(lists.values()), [])))),
            **lists,
        }

    def write(self, rows: Sequence[Record], curves: Sequence[Record]) -> None:
        """Curves first: a record says that everything of its row is there."""
        self.curves.append_new(curves)
        self.records.append_new(rows)

    def panel_row(self, record: Record) -> PanelRow:
        """The panel's row of one record."""
        image, restart = record["image"], record["restart"]
        sr = self.folder / "sr" / f"{image}-{restart}.png"
        hr = self.folder / "hr" / f"{image}.png"
        error = record["lr_mse"]
        low = f"{image}, {record['lr_side']} px"
        middle = record["status"] if error is None else f"{record['status']}, error {error:.2e}"
        if record.get("psnr") is not None:
            middle += f", PSNR {record['psnr']:.1f} dB"
        size = f"{record['side']} px"
        return PanelRow(
            lr=self.folder / "lr" / f"{image}.png",
            sr=sr if sr.is_file() else None,
            hr=hr if hr.is_file() else None,
            captions=(low, middle, size),
        )


def peak_memory(device: torch.device) -> float:
    """MiB so far: of this process on a CPU, of its allocations on a GPU."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
