"""The command line of the benchmark: measures, prints the tables, writes the json."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pulse_exp.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the json; 2 for a wrong command."""
    options = parser().parse_args(arguments)
    if options.json and not options.json.parent.is_dir():
        print(f"error: --json {options.json}: there is no such folder", file=sys.stderr)
        return 2
    if options.quick:
        options.generators = options.generators or "toy"
        options.resolution, options.repeats = min(options.resolution, 64), min(options.repeats, 2)
    from pulse_exp.benchmark.measurements import measure
    from pulse_exp.benchmark.tables import show

    try:
        with progress() as say:
            report = measure(options, say)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m pulse_exp.benchmark", description="How fast a step and a search are."
    )
    add = found.add_argument
    add("--generators", default="", help="names, comma-separated (mobile_stylegan,stylegan1,toy)")
    add("--resolution", type=int, default=1024, help="side of the images (1024)")
    words = "images in a step whose times are compared (1,2,4)"
    add("--batches", type=sizes, default=[1, 2, 4], help=words)
    add("--repeats", type=int, default=5, help="of each measurement, after a warm-up (5)")
    add("--threads", type=int, help="processor threads (PyTorch's choice)")
    add("--compile", action="store_true", help="measure torch.compile too (a minute each on a CPU)")
    add("--faces", type=int, default=0, help="also search so many faces (two batches on a GPU)")
    add("--steps", type=int, default=100, help="steps of a face (100)")
    add("--json", type=Path, metavar="FILE", help="write every number there")
    add("--quick", action="store_true", help="the toy generator at 64²: does it run?")
    return found


def sizes(text: str) -> list[int]:
    """Whole numbers from 1 on, comma-separated."""
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < 1:
        raise ValueError(text)
    return numbers


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Says what is measured now: one changing line, or a line each where there is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:

        def say(line: str) -> None:
            status.update(line)
            if not console.is_terminal:
                print(line, file=sys.stderr, flush=True)

        yield say
