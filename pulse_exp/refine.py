"""What may be done to a result after its search; the records keep both downscaling errors."""

from __future__ import annotations

import copy
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.bilateral import (
    JointBilateralEnlargement,
    contrast,
    gaussian,
    share_of_signal,
)
from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.objective import Objective
from pulse_exp.operators import Downscaler
from pulse_exp.operators.downscalers import Bicubic
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

    With r = y − A x, what the result x lacks of the input y, and c = w r, what of it is believed,
    the correction is B c + D⁺ w (c − A B c). B enlarges low-res values along the edges of x by a
    joint bilateral kernel (Kopf et al. 2007): skin takes from skin and background from background,
    where `BackProjection` alone rings. What the downscaler then still misses of c, its finest part,
    is added by the pseudo-inverse D⁺ of bicubic reduction: where A is that, full belief meets the
    input. The inverse of a reduction that blurs would turn the input's rounding into ripples. The
    belief w of a low-res pixel is a product of

    - the share of signal in the difference, the rest being noise;
    - 1 / (1 + (g / `edges`)⁶), where g is the contrast of the input or the result about the pixel:
      what differs at a silhouette is in the wrong place, not of the wrong colour;
    - exp(-|r|² / (2 `far`²)): what differs by far is missing in the result. Repainted, it would be
      a blot.

    So the downscaling error falls but does not vanish. The blocks of a compressed input are painted
    in: they are no white noise. Measurements that are no picture leave the result as it is.

    Args:
        colour_spread: standard deviation of the kernel in colour, as a distance in RGB.
        edges: the contrast at which half of a difference is believed.
        far: the difference, as a distance in RGB, from which it counts little.
    """

    def __init__(self, colour_spread: float, edges: float, far: float) -> None:
        self.colour_spread, self.edges, self.far = colour_spread, edges, far

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
        sr_lr = downscaler(sr)
        difference = lr - sr_lr
        belief = self.belief(difference, torch.maximum(contrast(lr), contrast(sr_lr)))
        believed = belief * difference
        along_edges = JointBilateralEnlargement(sr_lr, sr, self.colour_spread)(believed)
        rest = belief * (believed - downscaler(along_edges))
        factor = sr.shape[-1] // lr.shape[-1]
        return sr + along_edges + Bicubic(factor).pseudo_inverse(rest)

    def belief(
        self, difference: Float[Tensor, "1 3 h w"], contrasts: Float[Tensor, "1 1 h w"]
    ) -> Float[Tensor, "1 1 h w"]:
        """How much each low-res pixel's difference is believed, in [0, 1]."""
        silhouette = 1 + (contrasts / self.edges) ** 6
        return share_of_signal(difference) * gaussian(difference, self.far) / silhouette


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
