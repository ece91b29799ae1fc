"""What may be done to a result after its search; the records keep both downscaling errors."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from pulse_exp.objective import Objective
from pulse_exp.operators import Downscaler
from pulse_exp.problem import Candidate


class Refinement(Protocol):
    """Changes one row's image."""

    def __call__(
        self,
        sr: Float[Tensor, "1 3 H W"],
        lr: Float[Tensor, "1 3 h w"],
        candidate: Candidate,
        downscaler: Downscaler,
        objective: Objective | None,
    ) -> Float[Tensor, "1 3 H W"]:
        """The refined image; `candidate.variables` and `objective` give the search's end."""
        ...


class BackProjection:
    """Range-null-space correction: x + A⁺(y − A x), so that the result downscales to the input.

    Only what the downscaler sees is changed (DDNM: Wang et al. 2022, equation 9).
    """

    def __call__(
        self,
        sr: Float[Tensor, "1 3 H W"],
        lr: Float[Tensor, "1 3 h w"],
        candidate: Candidate,
        downscaler: Downscaler,
        objective: Objective | None,
    ) -> Float[Tensor, "1 3 H W"]:
        return sr + downscaler.pseudo_inverse(lr - downscaler(sr))
