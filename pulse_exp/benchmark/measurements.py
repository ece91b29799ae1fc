"""What the benchmark measures, and in which order."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from pulse_exp.batch_sizes import default_batch_size
from pulse_exp.benchmark import ceilings, counts, networks, steps, whole_search
from pulse_exp.benchmark.networks import BASELINE
from pulse_exp.benchmark.steps import Timing, Variant
from pulse_exp.generators.acceleration import accelerate

Report = dict[str, Any]
Say = Callable[[str], None]


def measure(options: argparse.Namespace, say: Say) -> Report:
    """Every number of one run, as it goes into the json."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [n for n in (options.generators or "mobile_stylegan,stylegan1,toy").split(",") if n]
    variants = ways(names, options.resolution, options.compile, device)
    report: Report = {"machine": machine(device), "resolution": options.resolution}
    report |= limits(names, options, device, say)
    report["steps"] = step_times(variants, options.repeats, device, say)
    report["batches"] = batch_times(variants[1:], options, device, say)
    report["peak_memory"] = {} if options.quick else peaks(variants, device, say)
    report["overhead"] = overheads(options, device, say)
    if options.faces or device.type == "cuda":
        report["faces"] = faces(options, variants[1:], device, say)
    return report


def machine(device: torch.device) -> Report:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def ways(
    names: Sequence[str], resolution: int, compiled: bool, device: torch.device
) -> list[Variant]:
    """The baseline, then each generator in every way that is worth comparing on the device."""
    found = [Variant(BASELINE, resolution)]
    for name in names:
        for precision in ("float32", "bf16"):
            found.append(Variant(name, resolution, precision))
            if compiled or device.type == "cuda":
                found.append(Variant(name, resolution, precision, compiled=True))
    return found


def limits(
    names: Sequence[str], options: argparse.Namespace, device: torch.device, say: Say
) -> Report:
    """What the machine can do, and what a step of each generator asks of it at least."""
    say("the machine's ceilings")
    ceiling = ceilings.measure_ceilings(device, size=512 if options.quick else 2048)
    found = {}
    for name in [BASELINE, *names]:
        say(f"counting {name}")
        counted = counts.count(networks.build(name, options.resolution))
        floor = ceiling.floor(counted.flop, counted.least)
        found[name] = {**asdict(counted), "least": counted.least, "floor": floor}
    return {"ceilings": asdict(ceiling), "counts": found}


def step_times(variants: Sequence[Variant], repeats: int, device: torch.device, say: Say) -> Report:
    """A step of each variant, measured in turns."""
    prepared = {v.name: steps.prepare(v, device) for v in variants}
    timings = steps.interleave(prepared, repeats, device, say)
    return {name: timing_row(timing) for name, timing in timings.items()}


def batch_times(
    variants: Sequence[Variant], options: argparse.Namespace, device: torch.device, say: Say
) -> Report:
    """Steps with several rows at a time, of each variant that is not compiled."""
    repeats = max(1, options.repeats // 2)
    return {
        variant.name: times_a_row(variant, options.batches, repeats, device, say)
        for variant in variants
        if not variant.compiled
    }


def times_a_row(
    variant: Variant, sizes: Sequence[int], repeats: int, device: torch.device, say: Say
) -> Report:
    """A step's time divided by its rows, by their number."""
    prepared = {str(n): steps.prepare(replace(variant, batch=n), device) for n in sizes}
    timings = steps.interleave(
        prepared, repeats, device, lambda line: say(f"{variant.name}, batch {line}")
    )
    return {
        size: {key: seconds / int(size) for key, seconds in timing_row(timing).items()}
        for size, timing in timings.items()
    }


def peaks(variants: Sequence[Variant], device: torch.device, say: Say) -> Report:
    """The most memory that a step of each variant takes, in bytes."""
    found = {}
    for variant in variants:
        say(f"memory of {variant.name}")
        found[variant.name] = steps.peak_memory(variant, device)
    return found


def overheads(options: argparse.Namespace, device: torch.device, say: Say) -> list[Report]:
    """What a search does besides the generator, at a small size and at the chosen one."""
    found = []
    for side in sorted({64, options.resolution}):
        say(f"a search without a generator at {side}²")
        overhead = whole_search.measure_overhead(side, 10 if options.quick else 60, device)
        row = {"search": timing_row(overhead.search), "bare": timing_row(overhead.bare)}
        found.append({"resolution": side, "seconds": overhead.seconds, **row})
    return found


def faces(
    options: argparse.Namespace, variants: Sequence[Variant], device: torch.device, say: Say
) -> Report:
    """Whole searches with the batch that the program chooses."""
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


def timing_row(timing: Timing) -> dict[str, float]:
    """Medians by the clock and of processor time, and the least of the latter."""
    return {"seconds": timing.median, "cpu": timing.cpu_median, "least_cpu": min(timing.cpu)}
