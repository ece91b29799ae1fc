"""Data terms: how far the downscaled result is from the low-res input, one value a row."""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_exp.objective import Point, Term
from pulse_exp.rows import Rows


class L2(Term):
    """Mean squared error; with `floor="eps"` it is constant below eps (PULSE's clamp, a row)."""

    def __init__(self, weight: float = 1.0, floor: str = "none") -> None:
        self.weight, self.floor = weight, floor

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return point.lr_mse.clamp(min=point.eps) if self.floor == "eps" else point.lr_mse


class L1(Term):
    """Mean absolute error."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return (point.sr_lr - point.lr).abs().flatten(1).mean(1)


class ConstrainedL2(Term):
    """μ · L2 / eps with a multiplier μ for each row: "the lowest penalty subject to L2 <= eps".

    After each step μ grows by `rate` where L2 > eps and shrinks by it elsewhere: multiplicative
    dual ascent on the constraint, so that no weight has to be tuned for an image or a factor.
    """

    def __init__(self, start: float, rate: float) -> None:
        self.first, self.rate = start, rate

    def start(self, batch: int) -> Rows:
        return {"multiplier": torch.full((batch,), self.first)}

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return state["multiplier"] * point.lr_mse / point.eps

    def update(self, point: Point, state: Rows) -> Rows:
        above = point.lr_mse.detach() > point.eps
        factor = torch.where(above, self.rate, 1 / self.rate).to(state["multiplier"].dtype)
        return {"multiplier": state["multiplier"] * factor}
