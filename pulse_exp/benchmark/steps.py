"""One step of each generator, measured side by side."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from pulse_exp.benchmark.ceilings import wait_for
from pulse_exp.benchmark.networks import build
from pulse_exp.generators.acceleration import accelerate
from pulse_exp.generators.base import Generator
from pulse_exp.operators.downscalers import Bicubic

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Variant:
    """A way to run a generator."""

    generator: str
    resolution: int
    precision: str = "float32"
    compiled: bool = False
    batch: int = 1

    @property
    def name(self) -> str:
        words = [self.generator]
        words += [self.precision] * (self.precision != "float32")
        words += ["compiled"] * self.compiled
        return " ".join(words)


@dataclass
class Timing:
    """Seconds of each repeat: by the clock, and of all threads of the process together."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        return statistics.median(self.cpu)


def prepare(variant: Variant, device: torch.device) -> Step:
    """A step: image, downscaling to 32² (or a quarter), squared error, gradient of the styles."""
    generator = build(variant.generator, variant.resolution).to(device)
    return step_of(
        accelerate(generator, variant.precision, variant.compiled), variant.batch, device
    )


def step_of(generator: Generator, batch: int, device: torch.device) -> Step:
    rng = torch.Generator().manual_seed(0)
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, generator=rng).to(device)
    downscaler = Bicubic(max(4, generator.resolution // 32))
    ws.requires_grad_()

    def step() -> Tensor:
        lr = downscaler(generator.synthesis(ws).float())
        return torch.autograd.grad((lr - 0.5).square().mean(), ws)[0]

    return step


def interleave(
    steps: Mapping[str, Step],
    repeats: int,
    device: torch.device,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Timing]:
    """Times of the steps, taken in turns so that a busy moment hits all of them."""
    timings = {name: Timing() for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            say(f"{name}, " + (f"repeat {number} of {repeats}" if number else "warm-up"))
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            wait_for(device)
            if number:
                timings[name].wall.append(time.perf_counter() - wall)
                timings[name].cpu.append(time.process_time() - cpu)
    return timings


def peak_memory(variant: Variant, device: torch.device) -> int:
    """Bytes of two steps at the most, the network included: of the tensors on a GPU, on a CPU of a
    fresh process that does nothing else."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        step = prepare(variant, device)
        step()
        step()
        return torch.cuda.max_memory_allocated(device)
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_process, (variant, torch.get_num_threads()))


def _peak_of_process(variant: Variant, threads: int) -> int:
    torch.set_num_threads(threads)
    step = prepare(variant, torch.device("cpu"))
    step()
    step()
    if sys.platform == "linux":  # getrusage counts the parent's memory before the start too
        status = Path("/proc/self/status").read_text().split()
        return 1024 * int(status[status.index("VmHWM:") + 1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
