"""The whole story: images go in at one end, records come out at the other."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment
from rich.console import Console

from pulse_exp import metrics
from pulse_exp.baselines import baseline_candidate
from pulse_exp.batch_sizes import remember
from pulse_exp.building import (
    batch_key,
    batch_size_for,
    build,
    build_dataset,
    build_degradation,
    build_downscaler,
    build_generator,
    build_objective,
    pick_device,
)
from pulse_exp.callbacks import Checkpoints, SearchCurves, SearchProgress, log_images
from pulse_exp.cells import part_of
from pulse_exp.config import config_hash
from pulse_exp.data import Dataset
from pulse_exp.errors import UserError
from pulse_exp.evaluation import Evaluation, Problems
from pulse_exp.generators.base import Generator
from pulse_exp.loggers import build_logger, close_logger
from pulse_exp.panel import write_panel
from pulse_exp.paste_back import paste_results
from pulse_exp.photos import Photos
from pulse_exp.problem import Candidate, Record
from pulse_exp.records import RECORDS, RecordFile, git_commit, row_key, versions
from pulse_exp.search import LatentSearch, Settings, Start
from pulse_exp.summary import print_summary

log = logging.getLogger(__name__)

SEARCHED = ("generator", "noise", "latent", "prior", "loss", "optimizer", "schedule", "phases")
"""The choices that a baseline makes no use of."""


@dataclass
class Run:
    """What every stage of one run shares."""

    config: DictConfig
    words: dict[str, str]
    folder: Path
    device: torch.device
    generator: Generator
    dataset: Dataset
    logger: Any = None

    @property
    def hash(self) -> str:
        return config_hash(self.config)


def run(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """Searches every image of the data that is not in the records yet.

    Args:
        config: a composed job without complaints.
        words: the word chosen in each group.
        folder: where results go; what is there already is kept and continued.

    Returns:
        The exit status: 0 if all rows were searched, 1 if some failed.
    """
    quiet_lightning()
    device = pick_device(config.trainer.accelerator)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    generator = build_generator(config, device)
    this = Run(config, words, folder, device, generator, build_dataset(config, generator))
    groups, unusable = group_by_factor(this)
    if config.dry_run:
        return rehearse(this, groups)
    refuse_foreign_results(this)
    done = finished_rows(this)
    if not any(missing(this, image, done) for image in this.dataset.ids):
        Console().print(f"All {len(done)} searches are in {folder} already; nothing to do.")
        return report(this, None)
    this.logger = build_logger(config.logger, folder, folder.name, plain(config))
    status = "failed"
    try:
        for factor, images in groups.items():
            restore(this, factor, images, done)
        for image, reason in unusable.items():
            evaluation(this, None).failed(image, range(config.search.restarts), reason)
        code = report(this, this.logger)
        status = "success"
        return code
    finally:
        line = close_logger(this.logger, status)
        if line:
            Console().print(f"[dim]To upload the run: {line}[/]", soft_wrap=True)


def group_by_factor(this: Run) -> tuple[dict[int, list[str]], dict[str, str]]:
    """Images by downscaling factor, and those whose size fits none with the reason."""
    groups: dict[int, list[str]] = {}
    unusable: dict[str, str] = {}
    for index, image in enumerate(this.dataset.ids):
        try:
            factor = this.dataset.factor(index) or this.config.downscaler.factor
            groups.setdefault(factor, []).append(image)
        except UserError as error:
            unusable[image] = str(error)
    return groups, unusable


def restore(this: Run, factor: int, images: Sequence[str], done: set[tuple[str, int]]) -> None:
    """Everything for the images of one factor, from the low-res input to the records."""
    results = evaluation(this, factor)
    todo = {image: rows for image in images if (rows := missing(this, image, done))}
    waiting = starts(results, todo)
    if this.config.baseline:
        enlarge(this, results, waiting)
    else:
        search(this, results, todo, waiting, factor)


def enlarge(this: Run, results: Evaluation, waiting: Iterator[Start]) -> None:
    """What a baseline makes of the inputs, without a search."""
    baseline = build(next(iter(this.config.baseline.values())))
    eps = this.config.search.eps
    for start in waiting:
        problem = results.problems[start.image]
        results.add(baseline_candidate(baseline, problem, start.restart, results.downscaler, eps))


def search(
    this: Run,
    results: Evaluation,
    todo: Mapping[str, Sequence[int]],
    waiting: Iterator[Start],
    factor: int,
) -> None:
    """Every search of one factor as one Lightning `fit`, from its checkpoint if there is one."""
    config, total = this.config, sum(map(len, todo.values()))
    results.objective = build_objective(config, this.generator, results.downscaler)
    progress = SearchProgress(total, config.search.steps)
    checkpoints = Checkpoints(
        this.folder / f"search{part_of(config)}-{factor}.ckpt",
        config.trainer.checkpoint_seconds,
        made_by=f"{this.hash}, {versions()}, {git_commit()}",
    )

    def finished(candidate: Candidate) -> None:
        results.add(candidate)
        progress.finished()

    def shrunk(size: int) -> None:
        print(f"memory full: the search goes on with {size} at a time", file=sys.stderr)
        remember(batch_key(this.generator, this.device), size)

    searches = LatentSearch(
        objective=results.objective,
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        phases=build(config.phases),
        settings=Settings(config.search.steps, config.search.eps, config.search.stop, config.seed),
        waiting=waiting,
        batch_size=batch_size_for(config, this.generator, this.device),
        finished=finished,
        shrunk=shrunk,
        steps_per_call=config.trainer.steps_per_call or (10 if this.device.type == "cuda" else 1),
    )
    checkpoints.resume(searches, {(image, r) for image, rows in todo.items() for r in rows})
    for slot, _ in searches.aside:
        results.expect(slot.image, len(todo[slot.image]))
    trainer = build_trainer(this, [progress, checkpoints])
    try:
        trainer.fit(searches)
    finally:
        progress.stop()
    checkpoints.clear()


def build_trainer(this: Run, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Lightning's trainer without what is for training networks."""
    every = this.config.logger
    return pl.Trainer(
        accelerator="gpu" if this.device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=1,
        logger=this.logger or False,
        callbacks=[SearchCurves(every.every_steps, every.images_every_steps), *callbacks],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        # One process a search: what it finds of a cluster around it is not its business.
        plugins=[LightningEnvironment()],
    )


def evaluation(this: Run, factor: int | None) -> Evaluation:
    """The way from candidates to records for one factor."""
    config, resolution = this.config, this.generator.resolution
    factor = factor or config.downscaler.factor
    downscaler = build_downscaler(config, factor, resolution)
    shared: Record = {
        "seed": config.seed,
        **this.words,
        "factor": factor,
        "side": resolution,
        "lr_side": resolution // factor,
        "eps": config.search.eps,
        "config_hash": this.hash,
        "git_commit": git_commit(),
        "versions": versions(),
        "device": str(this.device.type),
    }
    if config.baseline:
        shared |= dict.fromkeys(SEARCHED, "none")
    return Evaluation(
        folder=this.folder,
        shared=shared,
        problems=Problems(this.dataset, build_degradation(config, downscaler), config.seed),
        metrics=[metrics.load(name) for name in config.metrics],
        downscaler=downscaler,
        refinements={str(name): build(node) for name, node in config.refine.items()},
        objective=None,
        device=this.device,
    )


def missing(this: Run, image: str, done: set[tuple[str, int]]) -> list[int]:
    """The restarts of an image that are still to be run."""
    return [r for r in range(this.config.search.restarts) if (image, r) not in done]


def starts(results: Evaluation, todo: Mapping[str, Sequence[int]]) -> Iterator[Start]:
    """The searches to be run, one image's restarts together; bad images become records."""
    for image, restarts in todo.items():
        try:
            problem = results.problems[image]
        except UserError as error:
            results.failed(image, restarts, str(error))
            continue
        results.expect(image, len(restarts))
        for restart in restarts:
            yield Start(image, restart, problem.lr)


def finished_rows(this: Run) -> set[tuple[str, int]]:
    """(image, restart) of this configuration's rows that need no second search."""
    return {
        (row["image"], row["restart"])
        for row in RecordFile(this.folder / RECORDS)
        if row["config_hash"] == this.hash and row["status"] != "failed"
    }


def refuse_foreign_results(this: Run) -> None:
    """One folder holds one configuration: pictures of another would be overwritten.

    Raises:
        UserError: the folder's records are of another configuration.
    """
    others = {r["config_hash"] for r in RecordFile(this.folder / RECORDS)} - {this.hash}
    if others:
        raise UserError(
            f"{this.folder} holds results of another configuration; choose a new folder with "
            "hydra.run.dir=DIR, or delete this one"
        )


def report(this: Run, logger: Any) -> int:
    """The panel, the table at the end, the paths; returns the exit status."""
    latest: dict[tuple[str, int, str], Record] = {}
    wanted = set(this.dataset.ids)
    for row in RecordFile(this.folder / RECORDS):
        if row["config_hash"] == this.hash and row["image"] in wanted:
            latest[row_key(row)] = row
    rows = list(latest.values())
    results = evaluation(this, None)
    shown = [row for row in rows if row.get("selected")]
    if shown:
        write_panel([results.panel_row(row) for row in shown], this.folder / "panel.png")
    if this.config.paste_back and isinstance(this.dataset, Photos):
        selected = {row["image"]: sr for row in shown if (sr := results.panel_row(row).sr)}
        paste_results(this.dataset.faces, selected, this.folder / "pasted")
    known_blur = OmegaConf.select(this.config, "downscaler.sigma") or 0
    assumed = this.config.search
    print_summary(
        rows,
        this.folder,
        known_blur,
        blur_assumed=assumed.blur == "estimated",
        compression_assumed=assumed.compression == "estimated",
    )
    if logger is not None:
        solved = [row["status"] == "solved" for row in rows]
        logger.log_metrics({"summary/solved": sum(solved) / max(1, len(solved))})
        for key in ("lr_mse", "psnr", "lr_psnr", "niqe", "seconds"):
            values = [row[key] for row in rows if row.get(key) is not None]
            if values:
                logger.log_metrics({f"summary/{key}": sum(values) / len(values)})
        if shown:
            log_images(logger, "panel", [this.folder / "panel.png"])
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def rehearse(this: Run, groups: dict[int, list[str]]) -> int:
    """`dry_run=true`: builds everything, prints the plan, runs nothing."""
    config = this.config
    for factor in groups or [config.downscaler.factor]:
        results = evaluation(this, factor)
        if not config.baseline:
            build_objective(config, this.generator, results.downscaler)
            for group in ("optimizer", "schedule", "phases"):
                build(config[group])
    rows = len(this.dataset) * config.search.restarts
    side = this.generator.resolution
    lines = [f"{group:>12}  {word}" for group, word in this.words.items()]
    sizes = ", ".join(f"{side // f}×{side // f} ({len(i)})" for f, i in groups.items())
    lines += [
        f"{'device':>12}  {this.device}",
        f"{'images':>12}  {len(this.dataset)}: low-res {sizes} to {side}×{side}",
        f"{'searches':>12}  {rows} of {config.search.steps} steps, "
        f"{batch_size_for(config, this.generator, this.device)} at a time",
        f"{'finished':>12}  {len(finished_rows(this))}",
        f"{'folder':>12}  {this.folder}",
        f"{'config hash':>12}  {this.hash}",
    ]
    print("\n".join(lines))
    return 0


def plain(config: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def quiet_lightning() -> None:
    """Lightning speaks to people who train networks; what it says here would mislead."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*(LeafSpec|srun).*")
