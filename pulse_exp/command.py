"""What `run.py` does around a job: help, composing, errors in one line, the exit status."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

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

    from pulse_exp.command_errors import explain
    from pulse_exp.config import register
    from pulse_exp.naming import register_resolvers

    register()
    register_resolvers()
    outcomes: list[int] = []
    job = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    try:
        job(lambda config: outcomes.append(execute(config)))()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return 2 if stop.code and not outcomes else int(bool(stop.code))
    return max(outcomes, default=0)


def execute(config: DictConfig) -> int:
    """One job; whatever goes wrong is printed as one line, and never stops a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from pulse_exp.config import choices, complaints
    from pulse_exp.errors import UserError

    hydra_config = HydraConfig.get()
    try:
        wrong = complaints(config)
        if wrong:
            raise UserError("\n       ".join(wrong))
        folder = Path(hydra_config.runtime.output_dir)
        words = choices(config, hydra_config.runtime.choices)
        return task(config.task)(config, words, folder)
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on from here.", file=sys.stderr)
        return 1
    except Exception as error:
        if config.debug:
            traceback.print_exc()
        known = isinstance(error, UserError)
        text = str(error) if known else f"{type(error).__name__}: {error} (debug=true shows where)"
        print(f"error: {text}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else 1


def task(name: str) -> Callable[[Any, dict[str, str], Path], int]:
    """The function behind `task=`."""
    from pulse_exp.errors import UserError

    if name not in TASKS:
        raise UserError(f"task={name}: choose one of {', '.join(TASKS)}")
    module, _, function = TASKS[name].partition(":")
    return getattr(import_module(module), function)
