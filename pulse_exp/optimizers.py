"""Optimizers and samplers over rows: the step of one row never depends on another's.

Unlike torch.optim, all state has the row as its first dimension and every row has its own count
and learning rate, so that rows of different age share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pulse_exp.rows import Rows, scaled


class Optimizer:
    """A rule for one variable at a time.

    Attributes:
        learning_rate: the base rate; schedules and phases multiply it.
        sphere: whether every vector of a variable is brought back to its first norm after a step.
        samples: whether the last point is the result, a draw from the posterior, not the best one.
    """

    learning_rate: float
    sphere: bool = False
    samples: bool = False

    def start(self, variables: Mapping[str, Tensor]) -> Rows:
        """The optimizer's memory of new rows."""
        state = {name: self.start_one(value) for name, value in variables.items()}
        if self.sphere:
            for name, value in variables.items():
                state[name]["radius"] = norms(value)
        return state

    def redraw(
        self, state: Rows, rngs: Sequence[torch.Generator], progress: Sequence[float]
    ) -> Rows:
        """The state with fresh randomness for the next step; optimizers have none.

        Args:
            rngs: one for each row, fresh at every step.
            progress: how much of its search each row has behind it, in [0, 1).
        """
        return state

    def step(
        self,
        variables: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        state: Rows,
        rates: Mapping[str, Tensor],
        units: Mapping[str, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Rows]:
        """The variables and the state after a step.

        Args:
            rates: for each variable the factor on the learning rate `[B]`; where it is 0 neither
                the variable nor its state changes.
            units: for some variables the unit `[n, d]` of each coordinate: the rule moves
                variable / unit, as if the search had been written in these.
        """
        moved, after = {}, {}
        for name, value in variables.items():
            rate = self.learning_rate * rates[name]
            gradient, unit = gradients[name], (units or {}).get(name)
            if unit is None:
                new, memory = self.step_one(value, gradient, state[name], rate)
            else:
                new, memory = self.step_one(value / unit, gradient * unit, state[name], rate)
                new = new * unit
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


class Adamax(Adam):
    """Adam with the infinity norm (Kingma & Ba 2015), equal to torch.optim.Adamax."""

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        count = state["count"] + 1
        mean = torch.lerp(gradient, state["mean"], self.beta1)
        largest = torch.maximum(self.beta2 * state["square"], gradient.abs() + self.eps)
        new = value - scaled(mean / largest, rate / (1 - self.beta1**count))
        return new, {"count": count, "mean": mean, "square": largest}


class SGD(Optimizer):
    """Gradient descent, with momentum if it is not 0, equal to torch.optim.SGD."""

    def __init__(self, learning_rate: float, momentum: float, sphere: bool) -> None:
        self.learning_rate, self.momentum, self.sphere = learning_rate, momentum, sphere

    def start_one(self, value: Tensor) -> Rows:
        return {"velocity": torch.zeros_like(value)}

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        velocity = self.momentum * state["velocity"] + gradient
        return value - scaled(velocity, rate), {"velocity": velocity}


class NormalisedGradientDescent(Optimizer):
    """Every vector moves by the learning rate along its gradient, however long that is
    (Poirier-Ginter & Lalonde 2023)."""

    def __init__(self, learning_rate: float, sphere: bool) -> None:
        self.learning_rate, self.sphere = learning_rate, sphere

    def start_one(self, value: Tensor) -> Rows:
        return {}

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        length = torch.linalg.vector_norm(gradient, dim=tuple(range(2, value.ndim)), keepdim=True)
        direction = torch.where(length > 0, gradient / length, 0)
        return value - scaled(direction, rate), {}


class LBFGS(Optimizer):
    """Limited-memory BFGS with a fixed step length (Nocedal & Wright, algorithm 7.4).

    Each variable of each row has a history of its own and there is no line search, which would
    make rows wait for one another: equal to torch.optim.LBFGS(max_iter=1) called once a step.

    Args:
        history: how many past steps shape the next one.
    """

    def __init__(self, learning_rate: float, history: int, sphere: bool) -> None:
        self.learning_rate, self.history, self.sphere = learning_rate, history, sphere

    def start_one(self, value: Tensor) -> Rows:
        batch, size = value.shape[0], value[0].numel()
        return {
            "count": torch.zeros(batch, device=value.device),
            "value": torch.zeros_like(value),
            "gradient": torch.zeros_like(value),
            "moves": value.new_zeros(batch, self.history, size),
            "changes": value.new_zeros(batch, self.history, size),
            "curvatures": value.new_zeros(batch, self.history),
            "scale": value.new_ones(batch),
        }

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        memory = self.remember(value, gradient, state)
        direction = newton_direction(gradient.flatten(1), memory).view_as(value)
        # Before any curvature is known the step's length is bounded instead.
        cautious = (1 / gradient.abs().flatten(1).sum(1)).clamp(max=1)
        length = rate * torch.where(state["count"] > 0, 1, cautious)
        return value + scaled(direction, length), memory

    def remember(self, value: Tensor, gradient: Tensor, state: Rows) -> Rows:
        """The history with the last move, where that move met positive curvature."""
        move = (value - state["value"]).flatten(1)
        change = (gradient - state["gradient"]).flatten(1)
        curvature = (move * change).sum(1)
        use = (state["count"] > 0) & (curvature > 1e-10)

        def appended(key: str, new: Tensor) -> Tensor:
            shifted = torch.cat([state[key][:, 1:], new[:, None]], dim=1)
            return torch.where(use.view(-1, *[1] * new.ndim), shifted, state[key])

        return {
            "count": state["count"] + 1,
            "value": value,
            "gradient": gradient,
            "moves": appended("moves", move),
            "changes": appended("changes", change),
            "curvatures": appended("curvatures", curvature),
            "scale": torch.where(use, curvature / change.square().sum(1), state["scale"]),
        }


def newton_direction(gradient: Tensor, memory: Rows) -> Tensor:
    """-H g by the two-loop recursion; `gradient` `[B, N]`. Empty places of the history are 0."""
    moves, changes = memory["moves"].unbind(1), memory["changes"].unbind(1)
    known = memory["curvatures"] > 0
    inverse = torch.where(known, 1 / memory["curvatures"], 0).unbind(1)
    direction, weights = -gradient, []
    for move, change, factor in reversed(list(zip(moves, changes, inverse, strict=True))):
        weight = factor * (move * direction).sum(1)
        direction = direction - scaled(change, weight)
        weights.append(weight)
    direction = scaled(direction, memory["scale"])
    for move, change, factor in zip(moves, changes, inverse, strict=True):
        direction = direction + scaled(move, weights.pop() - factor * (change * direction).sum(1))
    return direction


class Langevin(Optimizer):
    """Unadjusted Langevin: x' = x - η ∇U + sqrt(2 η T) ξ samples exp(-U / T), U the objective.

    On the sphere the step is brought back to its norm, which to the order of η is Langevin
    dynamics there. The chain has no rejection, so its error is of the order of η.

    Args:
        learning_rate: η.
        temperature: T; 1 samples the posterior if the objective is its negative logarithm.
        hot: annealing begins at `hot` times the temperature ...
        cooling: ... and ends, geometrically, after this share of the steps; 0 anneals nothing.
    """

    samples = True

    def __init__(
        self, learning_rate: float, temperature: float, hot: float, cooling: float, sphere: bool
    ) -> None:
        self.learning_rate, self.temperature, self.sphere = learning_rate, temperature, sphere
        self.hot, self.cooling = hot, cooling

    def temperature_at(self, progress: float) -> float:
        """T after `progress` of the search, in [0, 1)."""
        left = max(0.0, 1 - progress / self.cooling) if self.cooling else 0.0
        return self.temperature * self.hot**left

    def redraw(
        self, state: Rows, rngs: Sequence[torch.Generator], progress: Sequence[float]
    ) -> Rows:
        fresh = {}
        for name, memory in state.items():
            old = memory["noise"]
            noise = [
                self.temperature_at(share) ** 0.5 * torch.randn(old.shape[1:], generator=rng)
                for rng, share in zip(rngs, progress, strict=True)
            ]
            fresh[name] = {**memory, "noise": torch.stack(noise).to(old)}
        return fresh

    def start_one(self, value: Tensor) -> Rows:
        return {"noise": torch.zeros_like(value)}

    def step_one(
        self, value: Tensor, gradient: Tensor, state: Rows, rate: Tensor
    ) -> tuple[Tensor, Rows]:
        new = value - scaled(gradient, rate) + scaled(state["noise"], (2 * rate).sqrt())
        return new, {"noise": state["noise"]}
