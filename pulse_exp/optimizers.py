"""Optimizers over rows: the step of one row never depends on another's.

Unlike torch.optim, all state has the row as its first dimension and every row has its own count
and learning rate, so that rows of different age share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pulse_exp.rows import Rows, scaled


class Optimizer:
    """A rule for one variable at a time.

    Attributes:
        learning_rate: the base rate; schedules and phases multiply it.
        sphere: whether every vector of a variable is brought back to its first norm after a step.
    """

    learning_rate: float
    sphere: bool = False

    def start(self, variables: Mapping[str, Tensor]) -> Rows:
        """The optimizer's memory of new rows."""
        state = {name: self.start_one(value) for name, value in variables.items()}
        if self.sphere:
            for name, value in variables.items():
                state[name]["radius"] = norms(value)
        return state

    def step(
        self,
        variables: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        state: Rows,
        rates: Mapping[str, Tensor],
    ) -> tuple[dict[str, Tensor], Rows]:
        """The variables and the state after a step.

        Args:
            rates: for each variable the factor on the learning rate `[B]`; where it is 0 neither
                the variable nor its state changes.
        """
        moved, after = {}, {}
        for name, value in variables.items():
            rate = self.learning_rate * rates[name]
            new, memory = self.step_one(value, gradients[name], state[name], rate)
            if self.sphere:
                new = new * (state[name]["radius"] / norms(new))
                memory["radius"] = state[name]["radius"]
            free = rates[name] != 0
            moved[name] = torch.where(free.view(-1, *[1] * (new.ndim - 1)), new, value)
            after[name] = {
                key: torch.where(free.view(-1, *[1] * (m.ndim - 1)), m, state[name][key])
                for key, m in memory.items()
            }
        return moved, after

    def start_one(self, value: Tensor) -> Rows:
        raise NotImplementedError

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        raise NotImplementedError


def norms(value: Tensor) -> Tensor:
    """Norms of a row's vectors: over every dimension after the second, kept for broadcasting.

    A latent `[B, n, d]` has n vectors, a noise input `[B, 1, H, W]` is one (released PULSE code).
    """
    dims = tuple(range(2, value.ndim))
    return (value.square().sum(dim=dims, keepdim=True) + 1e-9).sqrt()


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), equal to torch.optim.Adam for each row."""

    def __init__(
        self, learning_rate: float, betas: tuple[float, float], eps: float, sphere: bool
    ) -> None:
        self.learning_rate, self.eps, self.sphere = learning_rate, eps, sphere
        self.beta1, self.beta2 = betas

    def start_one(self, value: Tensor) -> Rows:
        return {
            "count": torch.zeros(len(value), device=value.device),
            "mean": torch.zeros_like(value),
            "square": torch.zeros_like(value),
        }

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        count = state["count"] + 1
        mean = torch.lerp(gradient, state["mean"], self.beta1)
        square = torch.lerp(gradient.square(), state["square"], self.beta2)
        unbiased_square = scaled(square, 1 / (1 - self.beta2**count))
        direction = mean / (unbiased_square.sqrt() + self.eps)
        new = value - scaled(direction, rate / (1 - self.beta1**count))
        return new, {"count": count, "mean": mean, "square": square}
