"""Learning-rate schedules and phases: tables over the steps, made once before a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    def __call__(self, step: int, steps: int) -> float:
        """The factor on the learning rate at `step`, 0 <= step < steps."""


class Fixed:
    """1 throughout."""

    def __call__(self, step: int, steps: int) -> float:
        return 1.0


class Linear1Cycle:
    """Up from a tenth and down again, once (PULSE, released code)."""

    def __call__(self, step: int, steps: int) -> float:
        return (9 * (1 - abs(step / steps - 0.5) * 2) + 1) / 10


class Linear1CycleDrop:
    """Up and down once over 90 % of the steps, then down to a thousandth (PULSE, released code)."""

    def __call__(self, step: int, steps: int) -> float:
        x = step / steps
        if x < 0.9:
            return (9 * (1 - abs(x / 0.9 - 0.5) * 2) + 1) / 10
        return 1 / 10 + (x - 0.9) / 0.1 * (1 / 1000 - 1 / 10)


class Ramped:
    """A linear warm-up, a plateau at 1, a linear ramp down to 0.

    Args:
        warm_up, ramp_down: shares of the steps, in [0, 1].
    """

    def __init__(self, warm_up: float, ramp_down: float) -> None:
        self.warm_up, self.ramp_down = warm_up, ramp_down

    def __call__(self, step: int, steps: int) -> float:
        up = (step + 1) / (self.warm_up * steps) if self.warm_up else 1.0
        down = (steps - step) / (self.ramp_down * steps) if self.ramp_down else 1.0
        return min(1.0, up, down)


class Cosine:
    """Half a cosine from 1 down to 0 (Loshchilov & Hutter 2017, without restarts)."""

    def __call__(self, step: int, steps: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * step / steps)


class CosineRamped(Ramped):
    """A linear warm-up times a ramp down of half a cosine (StyleGAN2's projector)."""

    def __call__(self, step: int, steps: int) -> float:
        up = min(1.0, (step + 1) / (self.warm_up * steps)) if self.warm_up else 1.0
        down = min(1.0, (steps - step) / (self.ramp_down * steps)) if self.ramp_down else 1.0
        return up * (0.5 - 0.5 * math.cos(math.pi * down))


def hold(rates: Tensor, share: float, rise: float = 0.0) -> Tensor:
    """Rates over the steps `[steps]`, 0 for the first `share` of them.

    Args:
        rise: the share of the steps over which they then grow to what they were.
    """
    steps = len(rates)
    since = torch.arange(steps) - round(share * steps) + 1
    return rates * (since / max(1, round(rise * steps))).clamp(0, 1)


class Phases:
    """A search as a sequence of stretches, each with its share of the steps and its variables."""

    def __init__(self, sequence: Sequence[dict[str, Any]]) -> None:
        self.sequence = list(sequence)

    def learning_rates(
        self, variables: Sequence[str], schedule: Schedule, steps: int
    ) -> dict[str, Tensor]:
        """For each variable its factor at every step `[steps]`; 0 where it does not move.

        The schedule runs anew in every phase. A variable `noise_3` is freed by its own name or
        by the name before its number, `noise`.
        """
        table = {name: torch.zeros(steps) for name in variables}
        total = sum(phase["share"] for phase in self.sequence)
        start, share = 0, 0.0
        for phase in self.sequence:
            share += phase["share"]
            end = round(steps * share / total)
            for step in range(start, end):
                factor = phase["learning_rate"] * schedule(step - start, end - start)
                for name in variables:
                    if {"all", name, name.split("_")[0]} & set(phase["free"]):
                        table[name][step] = factor
            start = end
        return table
