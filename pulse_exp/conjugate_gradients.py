"""Linear equations whose matrix is only known by what it does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(
    matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int
) -> Tensor:
    """An x with `matrix(x)` near `right`, from 0, by conjugate gradients (Hestenes & Stiefel 1952).

    Args:
        matrix: symmetric, positive definite.
        right: the right side, of any shape; one system of equations.
        iterations: at most; fewer where nothing is left to explain.
    """
    x, rest = torch.zeros_like(right), right
    direction, power = rest, rest.square().sum()
    for _ in range(iterations):
        if not power > 0:
            break
        moved = matrix(direction)
        length = power / (direction * moved).sum()
        x, rest = x + length * direction, rest - length * moved
        before, power = power, rest.square().sum()
        direction = rest + power / before * direction
    return x
