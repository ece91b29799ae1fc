"""What the machine can do: its fastest matrix product and its fastest copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Ceilings:
    """`flops`: FLOP/s of a large matrix product; `bandwidth`: bytes/s a copy reads and writes."""

    flops: float
    bandwidth: float

    def floor(self, flop: int, least: int) -> float:
        """Seconds that the work takes at least: arithmetic and memory at their ceilings, side by
        side, so the larger of the two."""
        return max(flop / self.flops, least / self.bandwidth)


def measure_ceilings(
    device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 5, size: int = 2048
) -> Ceilings:
    """Both ceilings, the best of some repeats."""
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    product = torch.empty_like(a)
    source = torch.zeros(size * size * 8, device=device)
    target = torch.zeros_like(source)
    seconds = fastest(lambda: torch.mm(a, b, out=product), repeats, device)
    copying = fastest(lambda: target.copy_(source), repeats, device)
    return Ceilings(2 * size**3 / seconds, 2 * source.numel() * 4 / copying)


def fastest(function: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds of the fastest call, after one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        function()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
