"""The command line of the benchmark: what is measured, in which order, and the tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_exp.errors import UserError

if TYPE_CHECKING:
    import torch

    from pulse_exp.benchmark.steps import Variant

Report = dict[str, Any]
BASELINE = "plain"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the json; 2 for a wrong command."""
    options = parser().parse_args(arguments)
    if options.quick:
        options.generators = options.generators or "toy"
        options.resolution, options.repeats = min(options.resolution, 64), min(options.repeats, 2)
    try:
        report = measure(options)
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
    add("--batches", default="1,2,4", help="images in a step whose times are compared (1,2,4)")
    add("--repeats", type=int, default=5, help="of each measurement, after a warm-up (5)")
    add("--threads", type=int, help="processor threads (PyTorch's choice)")
    add("--compile", action="store_true", help="measure torch.compile too (a minute each on a CPU)")
    add("--faces", type=int, default=0, help="also search so many faces (two batches on a GPU)")
    add("--steps", type=int, default=100, help="steps of a face (100)")
    add("--json", type=Path, metavar="FILE", help="write every number there")
    add("--quick", action="store_true", help="the toy generator at 64²: does it run?")
    return found


def measure(options: argparse.Namespace) -> Report:
    """Every number of one run, as it goes into the json."""
    import torch

    from pulse_exp.benchmark import ceilings, counts, networks, steps, whole_search

    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [n for n in (options.generators or "mobile_stylegan,stylegan1,toy").split(",") if n]
    batches = [int(batch) for batch in options.batches.split(",")]
    report: Report = {"machine": machine(device), "resolution": options.resolution}
    with progress() as say:
        say("the machine's ceilings")
        ceiling = ceilings.measure_ceilings(device, size=512 if options.quick else 2048)
        report["ceilings"] = asdict(ceiling)
        report["counts"] = {}
        for name in [BASELINE, *names]:
            say(f"counting {name}")
            counted = counts.count(networks.build(name, options.resolution))
            floor = ceiling.floor(counted.flop, counted.least)
            report["counts"][name] = {**asdict(counted), "least": counted.least, "floor": floor}

        variants = ways(names, options.resolution, options.compile, device)
        prepared = {v.name: steps.prepare(v, device) for v in variants}
        timings = steps.interleave(prepared, options.repeats, device, say)
        report["steps"] = {name: timing_row(timing) for name, timing in timings.items()}
        del prepared

        report["batches"] = {}
        for variant in variants[1:]:
            if variant.compiled:
                continue
            sizes = {str(b): replace(variant, batch=b) for b in batches}
            by_batch = {b: steps.prepare(v, device) for b, v in sizes.items()}
            timings = steps.interleave(
                by_batch,
                max(1, options.repeats // 2),
                device,
                lambda line, name=variant.name: say(f"{name}, batch {line}"),  # type: ignore[misc]
            )
            report["batches"][variant.name] = {
                b: {k: v / int(b) for k, v in timing_row(timing).items()}
                for b, timing in timings.items()
            }

        report["peak_memory"] = {}
        for variant in [] if options.quick else variants:
            say(f"memory of {variant.name}")
            report["peak_memory"][variant.name] = steps.peak_memory(variant, device)

        report["overhead"] = []
        for side in sorted({64, options.resolution}):
            say(f"a search without a generator at {side}²")
            overhead = whole_search.measure_overhead(side, 10 if options.quick else 60, device)
            row = {"search": timing_row(overhead.search), "bare": timing_row(overhead.bare)}
            report["overhead"].append({"resolution": side, "seconds": overhead.seconds, **row})

        if options.faces or device.type == "cuda":
            report["faces"] = faces(options, variants[1:], device, say)
    return report


def ways(names: Sequence[str], resolution: int, compiled: bool, device: torch.device) -> list[Any]:
    """The baseline, then each generator in every way that is worth comparing on the device."""
    from pulse_exp.benchmark.steps import Variant

    found = [Variant(BASELINE, resolution)]
    for name in names:
        for precision in ("float32", "bf16"):
            found.append(Variant(name, resolution, precision))
            if compiled or device.type == "cuda":
                found.append(Variant(name, resolution, precision, compiled=True))
    return found


def faces(
    options: argparse.Namespace, variants: Sequence[Variant], device: torch.device, say: Any
) -> Report:
    """Whole searches with the batch that the program chooses."""
    from pulse_exp.batch_sizes import default_batch_size
    from pulse_exp.benchmark import networks, whole_search
    from pulse_exp.generators.acceleration import accelerate

    found = {}
    for variant in variants:
        generator = networks.build(variant.generator, variant.resolution).to(device)
        generator = accelerate(generator, variant.precision, variant.compiled)
        batch = default_batch_size(generator, device)
        count = options.faces or 2 * batch
        say(f"{variant.name}: searching {count} faces, {batch} at a time")
        if device.type == "cuda":  # tuning and compiling are not the search's
            whole_search.search_faces(generator, batch, batch, 3, device)
        seconds, candidates = whole_search.search_faces(
            generator, count, batch, options.steps, device, steps_per_call=10
        )
        assert len(candidates) == count
        found[variant.name] = {
            "batch": batch,
            "faces": len(candidates),
            "seconds_a_face": seconds / len(candidates),
        }
    return found


def machine(device: torch.device) -> Report:
    import torch

    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def timing_row(timing: Any) -> dict[str, float]:
    """Medians by the clock and of processor time, and the least of the latter."""
    return {"seconds": timing.median, "cpu": timing.cpu_median, "least_cpu": min(timing.cpu)}


@contextmanager
def progress() -> Iterator[Any]:
    """Says what is measured now: one changing line, or a line each where there is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:

        def say(line: str) -> None:
            status.update(line)
            if not console.is_terminal:
                print(line, file=sys.stderr, flush=True)

        yield say


def show(report: Report) -> None:
    """The tables of a report."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    side, on, ceiling = report["resolution"], report["machine"], report["ceilings"]
    console.print(
        f"{on['device']}, {on['threads']} of {on['cores']} cores, load {on['load']:.1f}, "
        f"torch {on['torch']}\nceilings: {ceiling['flops'] / 1e9:.0f} GFLOP/s in a float32 matrix "
        f"product, {ceiling['bandwidth'] / 1e9:.1f} GB/s read and written in a copy\n"
    )

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            made.add_column(column, justify="right" if number else "left", no_wrap=not number)
        return made

    work = table(
        f"One step counted: forward, and back to the style vectors, {side}²",
        *("generator", "GFLOP forward", "back", "GB least", "GB by layers", "floor s"),
    )
    for name, row in report["counts"].items():
        flop = f"{row['forward_flop'] / 1e9:.2f}", f"{row['backward_flop'] / 1e9:.2f}"
        bytes_ = f"{row['least'] / 1e9:.2f}", f"{row['moved'] / 1e9:.2f}"
        work.add_row(name, *flop, *bytes_, f"{row['floor']:.3g}")
    console.print(work, "")

    timed = table(
        f"One step measured, {side}²: median seconds, least processor seconds",
        *("generator", "seconds", "floor / seconds", "plain / this"),
        *("processor s", "plain / this", "peak GB"),
    )
    base = report["steps"][BASELINE]
    for name, row in report["steps"].items():
        floor = report["counts"][name.split()[0]]["floor"]
        share = "" if "bf16" in name else f"{floor / row['seconds']:.0%}"
        timed.add_row(
            name,
            *(f"{row['seconds']:.3g}", share, f"{base['seconds'] / row['seconds']:.1f}"),
            *(f"{row['least_cpu']:.3g}", f"{base['least_cpu'] / row['least_cpu']:.1f}"),
            f"{report['peak_memory'][name] / 1e9:.2f}" if name in report["peak_memory"] else "",
        )
    console.print(timed, "")

    some = next(iter(report["batches"].values()))
    rows = table("Seconds a row as the batch grows (processor s)", "generator", *some)
    for name, by_batch in report["batches"].items():
        cells = [f"{row['seconds']:.3g} ({row['cpu']:.3g})" for row in by_batch.values()]
        rows.add_row(name, *cells)
    console.print(rows, "")

    own = table(
        "A search's own share of a step (no generator)",
        *("resolution", "search ms", "downscaling and error ms", "between ms", "processor ms"),
    )
    for row in report["overhead"]:
        parts = [row["search"]["seconds"], row["bare"]["seconds"], row["seconds"]]
        parts.append(row["search"]["cpu"] - row["bare"]["cpu"])
        own.add_row(f"{row['resolution']}²", *(f"{1000 * part:.2f}" for part in parts))
    console.print(own, "")
    if "faces" in report:
        whole = table("Whole searches", "generator", "batch", "faces", "s a face", "faces a second")
        for name, row in report["faces"].items():
            each = row["seconds_a_face"]
            whole.add_row(
                name, str(row["batch"]), str(row["faces"]), f"{each:.3g}", f"{1 / each:.3g}"
            )
        console.print(whole, "")
    if not on["device"].startswith("NVIDIA"):
        console.print("Not measured here: anything on a GPU.")
