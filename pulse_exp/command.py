"""What `run.py` does around a job: help, composing, errors in one line, the exit status."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from pulse_exp.cells import Cell

CONF = Path(__file__).parents[1] / "conf"

TASKS = {
    "search": "pulse_exp.pipeline:run",
    "align": "pulse_exp.align:run",
    "convert": "pulse_exp.weight_files:convert",
    "sample": "pulse_exp.weight_files:sample",
    "measure": "pulse_exp.measure:run",
    "report": "pulse_exp.report:run",
}
"""`task=` -> `module:function(config, words, folder) -> exit status`."""


def main() -> int:
    """Runs the command line: 0 all rows searched, 1 some failed, 2 command or config wrong."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        from pulse_exp.command_help import help_text

        print(help_text(CONF))
        return 0
    # Hydra then raises what is wrong with a command instead of printing it over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from pulse_exp import sweeps
    from pulse_exp.command_errors import explain
    from pulse_exp.config import register
    from pulse_exp.naming import register_resolvers

    register()
    register_resolvers()
    codes: list[int] = []

    def one_job(config: DictConfig) -> float | None:
        codes.append(1)  # what an interrupted job leaves
        codes[-1] = execute(config)
        return value(config) if config.optimize else codes[-1]

    job = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    stopped = False
    try:
        job(one_job)()
    except (HydraException, OmegaConfBaseException) as error:
        stopped = True
        print(f"error: {explain(error)}", file=sys.stderr)
    except SystemExit as stop:
        stopped = bool(stop.code)
    except Exception as error:  # a launcher lost a worker, or Hydra could not write its files
        stopped = True
        codes.append(1)
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
    if sweeps.launched is not None:
        return sweeps.launched.finish(stopped)
    return max(codes, default=2 if stopped else 0)


def execute(config: DictConfig) -> int:
    """One job; whatever goes wrong is printed as one line, and never stops a sweep."""
    from pulse_exp import sweeps
    from pulse_exp.cells import Cell, ending
    from pulse_exp.errors import BusyError, UserError

    cell = Cell(output_folder(), config, sweeps.current)
    began = time.time()
    try:
        return attempt(config, cell)
    except (KeyboardInterrupt, SystemExit) as stop:
        print("\nInterrupted: the same command goes on from here.", file=sys.stderr)
        cell.ended({**ending(1, "", began), "state": "interrupted"})
        raise SystemExit(1) from stop
    except Exception as error:
        if config.debug:
            traceback.print_exc()
        known = isinstance(error, UserError)
        text = str(error) if known else f"{type(error).__name__}: {error} (debug=true shows where)"
        print(f"error: {text}", file=sys.stderr)
        code = error.exit_code if isinstance(error, UserError) else 1
        if not isinstance(error, BusyError):
            cell.ended(ending(code, text, began))
        return code


def attempt(config: DictConfig, cell: Cell) -> int:
    """Checks the configuration and does its task, unless exactly that was done already."""
    from hydra.core.hydra_config import HydraConfig

    from pulse_exp.cells import ending
    from pulse_exp.complaints import complaints
    from pulse_exp.config import choices
    from pulse_exp.errors import UserError

    began = time.time()
    wrong = complaints(config)
    if wrong:
        raise UserError("\n       ".join(wrong))
    words = choices(config, HydraConfig.get().runtime.choices)
    if config.dry_run:
        return task(config.task)(config, words, cell.folder)
    if config.task == "search" and cell.is_finished():
        print(f"All searches are done already; see {cell.folder / 'panel.png'}")
        cell.ended(ending(0, "", began, worked=False))
        return 0
    with cell.claimed():
        cell.began()
        code = task(config.task)(config, words, cell.folder)
        cell.ended(ending(code, "", began))
        return code


def output_folder() -> Path:
    """Where this job's results go."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def task(name: str) -> Callable[[Any, dict[str, str], Path], int]:
    """The function behind `task=`."""
    from pulse_exp.errors import UserError

    if name not in TASKS:
        raise UserError(f"task={name}: choose one of {', '.join(TASKS)}")
    module, _, function = TASKS[name].partition(":")
    return getattr(import_module(module), function)


def value(config: DictConfig) -> float | None:
    """What `optimize=` names: its mean over the images of this job's finished rows.

    Of an image's restarts the selected one counts. None, which a sweeper takes for a failed
    trial, where no row has the value.
    """
    from statistics import fmean

    from pulse_exp.config import config_hash
    from pulse_exp.records import RECORDS, RecordFile

    values = [
        row[config.optimize]
        for row in RecordFile(output_folder() / RECORDS)
        if row["config_hash"] == config_hash(config)
        and row.get("selected")
        and row.get(config.optimize) is not None
    ]
    return fmean(values) if values else None
