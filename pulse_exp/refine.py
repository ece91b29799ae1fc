"""What may be done to a result after its search; the records keep both downscaling errors."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.bilateral import gaussian, joint_bilateral_enlargement, share_of_signal
from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.objective import Objective
from pulse_exp.operators import Downscaler
from pulse_exp.problem import Candidate
from pulse_exp.rows import move
from pulse_exp.seeding import random_generator


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


class BilateralBackProjection:
    """Gives the result the colours of the input without crossing the edges of what it shows.

    Each round, every pixel is given a mean of the low-res differences y − A x of the 3×3 low-res
    pixels about it, those weighing most that are near and of its own colour: iterative back
    projection (Irani & Peleg 1991) through a joint bilateral kernel (Kopf et al. 2007; Dai et al.
    2007). Skin takes from skin and background from background, where `BackProjection` rings. What
    differs by far before the first round is in the wrong place, not of the wrong colour, and
    counts little: repainted, it would be a blot; what differs as noise does counts nothing. So the
    downscaling error falls but does not vanish.

    The blocks of a compressed input are painted in: they are no white noise. Measurements that
    are no picture leave the result as it is.

    Args:
        rounds: how many times.
        colour_spread: distance in RGB, each in [0, 1], that is far: the standard deviation of the
            kernel in colour, and of the weight of a difference in its size.
    """

    def __init__(self, rounds: int, colour_spread: float) -> None:
        self.rounds, self.colour_spread = rounds, colour_spread

    def __call__(
        self,
        sr: Float[Tensor, "1 3 H W"],
        lr: Float[Tensor, "1 3 h w"],
        candidate: Candidate,
        downscaler: Downscaler,
        objective: Objective | None,
    ) -> Float[Tensor, "1 3 H W"]:
        if not downscaler.is_image:
            return sr
        difference = lr - downscaler(sr)
        trust = gaussian(difference, self.colour_spread) * share_of_signal(difference)
        for _ in range(self.rounds):
            sr_lr = downscaler(sr)
            difference = trust * (lr - sr_lr)
            sr = sr + joint_bilateral_enlargement(difference, sr_lr, sr, self.colour_spread)
        return sr


class PivotalTuning:
    """A small change of the synthesis network's weights for one row (Roich et al. 2021).

    The latent stays; Adam lowers the downscaling error plus `locality` times the mean squared
    change of the image of a random latent nearby, a new one at each step. Rows share nothing: each
    has a copy of the generator to itself, dropped when its image is made.

    Args:
        steps, learning_rate: of Adam on the weights.
        locality: weight of the second term.
        reach: how far the nearby latent is on the way to a random draw, in [0, 1]; the paper
            goes a fixed length of 30, which depends on the generator.
    """

    def __init__(self, steps: int, learning_rate: float, locality: float, reach: float) -> None:
        self.steps, self.learning_rate = steps, learning_rate
        self.locality, self.reach = locality, reach

    def __call__(
        self,
        sr: Float[Tensor, "1 3 H W"],
        lr: Float[Tensor, "1 3 h w"],
        candidate: Candidate,
        downscaler: Downscaler,
        objective: Objective | None,
    ) -> Float[Tensor, "1 3 H W"]:
        if objective is None:
            raise UserError("refine=pivotal_tuning needs a search: a baseline has no generator")
        variables, constants = (
            move({name: value[None] for name, value in candidate.variables.items()}, lr.device),
            move(candidate.constants, lr.device),
        )
        noise = objective.noise.inputs(objective.generator, variables, constants)
        original = objective.generator
        tuned = copy.deepcopy(original).requires_grad_(True)

        def image(generator: Generator) -> Tensor:
            return objective.latent.image(generator, {**constants, **variables}, noise)

        ws = objective.latent.ws({**constants, **variables}).detach()
        rng = random_generator("pivotal tuning", candidate.image, candidate.restart)
        # The mapping's weights get no gradient, so Adam leaves them alone.
        adam = torch.optim.Adam(tuned.parameters(), lr=self.learning_rate)
        for _ in range(self.steps):
            loss = (downscaler(image(tuned)) - lr).square().mean()
            if self.locality:
                with torch.no_grad():
                    z = torch.randn(1, original.z_dim, generator=rng).to(ws)
                    near = torch.lerp(ws, original.mapping(z), self.reach)
                    kept = original.synthesis(near, noise)
                loss = loss + self.locality * (tuned.synthesis(near, noise) - kept).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            return image(tuned)
