"""Experiment loggers by name. Weights & Biases works with no account: its run stays offline."""

from __future__ import annotations

import netrc
import os
import sys
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from pulse_exp.errors import UserError

SECONDS_TO_BEGIN, SECONDS_TO_FINISH = 30.0, 120.0
"""How long a W&B server may take to answer at the start, and to take what is left at the end."""


def build_logger(config: DictConfig, folder: Path, name: str, job: dict[str, Any]) -> Logger | None:
    """The logger that `logger=` names, or None.

    Args:
        config: the `logger` node.
        folder: the run's output folder.
        name: the run's name.
        job: the whole configuration as plain values, stored with the run.
    """
    if config.name == "wandb":
        return _wandb(config, folder, name, job)
    if config.name == "csv":
        return CSVLogger(str(folder), name="csv", version="")
    if config.name == "tensorboard":
        try:
            return TensorBoardLogger(str(folder), name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError("logger=tensorboard: run `pip install tensorboard` first") from error
    return None


def _wandb(config: DictConfig, folder: Path, name: str, job: dict[str, Any]) -> Logger:
    mode = config.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")
    import wandb

    def begin(mode: Literal["online", "offline"]) -> Logger:
        experiment = wandb.init(
            name=name,
            project=config.project,
            entity=config.entity,
            dir=str(folder),
            mode=mode,
            config=job,
            reinit="finish_previous",
            settings=wandb.Settings(
                silent=True,
                init_timeout=SECONDS_TO_BEGIN,
                finish_timeout=SECONDS_TO_FINISH,
                finish_timeout_raises=True,
            ),
        )
        return WandbLogger(experiment=experiment)

    if mode != "online":
        return begin("offline")
    try:
        return begin("online")
    except wandb.errors.Error as error:
        reason = (str(error).splitlines() or ["no answer"])[0]
        print(f"W&B cannot be reached ({reason}): runs stay offline", file=sys.stderr)
        os.environ["WANDB_MODE"] = "offline"  # so that the next cell of a sweep does not wait again
        return begin("offline")


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def close_logger(logger: Logger | None, status: str) -> str | None:
    """Finishes the run, also after a failure; returns a line on how to upload an offline one."""
    if logger is None:
        return None
    logger.finalize(status)
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        folder, offline = Path(run.dir).parent, run.settings._offline
        try:
            run.finish(exit_code=0 if status == "success" else 1)
        except Exception:  # the server is gone: all is on the disk, and the records are ours
            offline = True
        if offline:
            return f"wandb sync {folder}"
    return None
