"""What is shown and saved while a search runs; none of it changes the search."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

if TYPE_CHECKING:
    from pulse_exp.objective import Point
    from pulse_exp.search import LatentSearch


class SearchProgress(pl.Callback):
    """A bar over all steps of all searches with loss, downscaling error and time left.

    Where standard error is no terminal it prints a plain line every `seconds` instead.
    """

    def __init__(self, searches: int, steps: int, seconds: float = 15.0) -> None:
        self.searches, self.steps, self.seconds = searches, steps, seconds
        self.done = 0
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("search"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
            TextColumn("loss {task.fields[loss]:.4g}  error {task.fields[error]:.2e}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task = self.bar.add_task(
            "search", total=max(1, searches * steps), loss=float("nan"), error=float("nan")
        )
        self.began = self.said = time.monotonic()

    def finished(self) -> None:
        """A search has left; the steps it did not need no longer count."""
        self.done += 1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.console.is_terminal:
            self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        point = pl_module.point
        if point is None:
            return
        running = sum(min(slot.age, self.steps) for slot in pl_module.slots)
        completed = self.done * self.steps + running
        now = time.monotonic()
        if self.console.is_terminal:
            if now - self.said < 0.2 and pl_module.slots:
                return
            self.said = now
            error, loss = means(point)
            self.bar.update(self.task, completed=completed, loss=loss, error=error)
        elif now - self.said >= self.seconds:
            self.said = now
            error, loss = means(point)
            total = self.searches * self.steps
            left = (now - self.began) / max(1, completed) * (total - completed)
            print(
                f"search {completed}/{total} steps, loss {loss:.4g}, error {error:.2e}, "
                f"{left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def stop(self) -> None:
        """Ends the bar, also after a failure."""
        self.bar.stop()


def means(point: Point) -> tuple[float, float]:
    """Downscaling error and loss, averaged over the rows."""
    return float(point.lr_mse.detach().mean()), float(point.total.detach().mean())


class SearchCurves(pl.Callback):
    """Means of every term over the batch, and pictures of it, to the experiment logger."""

    def __init__(self, every_steps: int, images_every_steps: int) -> None:
        self.every, self.images_every = every_steps, images_every_steps
        self.tick = 0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        logger, point = trainer.logger, pl_module.point
        before = self.tick
        self.tick += pl_module.steps_per_call
        if logger is None or point is None:
            return
        if crossed(before, self.tick, self.every):
            terms = {**point.terms, "loss": point.total, "lr_mse": point.lr_mse}
            values = {f"search/{name}": float(v.detach().mean()) for name, v in terms.items()}
            values["search/lr_mse_worst"] = float(point.lr_mse.detach().max())
            logger.log_metrics(values, step=self.tick)
        if crossed(before, self.tick, self.images_every) and pl_module.slots:
            log_images(logger, "search/samples", self.samples(pl_module), self.tick)

    @torch.no_grad()
    def samples(self, search: LatentSearch, most: int = 8) -> list[Tensor]:
        from pulse_exp.rows import select

        rows = select(search.rows, torch.arange(min(most, len(search.slots))))
        images = search.objective.image(rows, rows["variables"]).clamp(0, 1)
        side = min(256, images.shape[-1])
        return list(torch.nn.functional.adaptive_avg_pool2d(images, side).float().cpu())


def crossed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return every > 0 and before // every != after // every


def log_images(logger: Logger, key: str, images: Sequence[Any], step: int | None = None) -> None:
    """Sends pictures (tensors `[3, H, W]` in [0, 1], or files) where the logger can show them."""
    from pulse_exp.images import read_image, to_bytes

    tensors = [read_image(image) if isinstance(image, Path) else image for image in images]
    if isinstance(logger, WandbLogger):
        from PIL import Image

        pictures = [Image.fromarray(to_bytes(image)) for image in tensors]
        logger.log_image(key, pictures, step=step)
    elif isinstance(logger, TensorBoardLogger):
        for number, image in enumerate(tensors):
            logger.experiment.add_image(f"{key}/{number}", image.clamp(0, 1), step or 0)


class Checkpoints(pl.Callback):
    """Saves the running searches every so many seconds, so that a kill costs no more than that.

    Args:
        path: the checkpoint's file.
        seconds: how often; 0 = never.
        made_by: what a checkpoint must have been made by to be taken up again.
    """

    def __init__(self, path: Path, seconds: float, made_by: str) -> None:
        self.path, self.seconds, self.made_by = path, seconds, made_by
        self.saved = time.monotonic()
        self.complained = False

    def resume(self, search: LatentSearch, wanted: Collection[tuple[str, int]]) -> None:
        """Gives the search its saved rows back; a file that cannot be used is dropped."""
        if not self.path.is_file():
            return
        try:
            checkpoint = torch.load(self.path, map_location="cpu", weights_only=True)
            if checkpoint["made_by"] != self.made_by:
                raise ValueError("made by another version")
            search.load(checkpoint, wanted)
        except Exception as error:  # whatever a damaged file may raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self.say(f"{self.path} cannot be used ({reason}); its searches start again")
            self.clear()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        if self.seconds and time.monotonic() - self.saved >= self.seconds:
            self.save(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """A polite request to end, such as before preemption, comes between two steps."""
        if self.seconds and isinstance(exception, SIGTERMException):
            self.save(trainer)

    def save(self, trainer: pl.Trainer) -> None:
        """Writes the file whole or not at all; a full disk is said once and stops nothing."""
        part = self.path.with_suffix(".part")
        try:
            trainer.save_checkpoint(part)
            part.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch raises the latter for a full disk
            part.unlink(missing_ok=True)
            if not self.complained:
                self.say(f"{self.path} cannot be written ({error}); the search goes on without")
            self.complained = True
        self.saved = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        checkpoint["made_by"] = self.made_by

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """All searches are in the records: nothing is left to resume."""
        self.path.unlink(missing_ok=True)
