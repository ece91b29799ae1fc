"""Experiment loggers by name. Weights & Biases works with no account: its run stays offline."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from pulse_exp.errors import UserError


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

    experiment = wandb.init(
        name=name,
        project=config.project,
        entity=config.entity,
        dir=str(folder),
        mode="online" if mode == "online" else "offline",
        config=job,
        reinit="finish_previous",
        settings=wandb.Settings(silent=True),
    )
    return WandbLogger(experiment=experiment)


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
        run.finish(exit_code=0 if status == "success" else 1)
        if offline:
            return f"wandb sync {folder}"
    return None
