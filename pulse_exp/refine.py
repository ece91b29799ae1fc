"""What may be done to a result after its search; the records keep both downscaling errors."""

from __future__ import annotations

import copy
from itertools import product
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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


def joint_bilateral_enlargement(
    values: Float[Tensor, "B 3 h w"],
    colours: Float[Tensor, "B 3 h w"],
    guide: Float[Tensor, "B 3 H W"],
    colour_spread: float,
) -> Float[Tensor, "B 3 H W"]:
    """`values` at the size of `guide`: of the 3×3 low-res pixels about a pixel, a mean weighted by
    the quadratic B-spline of their distance and a Gaussian of `colours` against its colour.

    Where none of the nine has a colour like it, distance alone decides.
    """
    height, width = values.shape[-2:]
    # A block's rows and columns get axes of their own: [B, 3, h, rows, w, columns].
    blocks = guide.unflatten(2, (height, -1)).unflatten(4, (width, -1))
    down, across = (spline(blocks.shape[axis], guide) for axis in (3, 5))
    values, colours = (F.pad(lr, (1, 1, 1, 1), mode="replicate") for lr in (values, colours))
    total, weights = torch.zeros_like(blocks), torch.zeros_like(blocks[:, :1])
    for y, x in product(range(3), range(3)):
        value, colour = (
            lr[:, :, y : y + height, x : x + width, None].unsqueeze(3) for lr in (values, colours)
        )
        alike = gaussian(blocks - colour, colour_spread) + 1e-4
        weight = alike * (down[y][:, None, None] * across[x])
        total += weight * value
        weights += weight
    return (total / weights).flatten(4).flatten(2, 3)


def gaussian(difference: Float[Tensor, "B 3 *size"], spread: float) -> Float[Tensor, "B 1 *size"]:
    """exp(-|d|² / (2 spread²)) of colour differences d."""
    return torch.exp(difference.square().sum(1, keepdim=True) / (-2 * spread**2))


def share_of_signal(difference: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
    """How much of each pixel's difference is more than noise, in [0, 1]: a Wiener gain.

    The noise's variance is that of the second differences along both axes, which smooth images
    and straight edges do not have (Immerkær 1996), where they are least: the 5 % quantile of their
    mean squares over 5×5 pixels, of which 2.5 times is more than pure noise reaches anywhere.
    Images of less than 5×5 pixels are too small to tell.
    """
    channels = difference.shape[1]
    if min(difference.shape[-2:]) < 5:
        return torch.ones_like(difference[:, :1])
    step = torch.tensor([1.0, -2.0, 1.0]).to(difference)
    kernel = (torch.outer(step, step) / 6).expand(channels, 1, 3, 3)
    detail = F.conv2d(difference, kernel, groups=channels)
    noise = local_mean(detail.square()).flatten(1).quantile(0.05, dim=1)
    power = local_mean(difference.square())
    return (1 - 2.5 * noise[:, None, None, None] / power.clamp(min=1e-12)).clamp(min=0)


def local_mean(values: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
    """Over channels and 5×5 pixels, of which fewer at the border."""
    return F.avg_pool2d(values.mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)


def spline(factor: int, like: Tensor) -> Float[Tensor, "3 factor"]:
    """The quadratic B-spline from a block's pixels to the block before, its own, the next."""
    at = (torch.arange(factor, device=like.device, dtype=like.dtype) + 0.5) / factor - 0.5
    return torch.stack([(0.5 - at).square() / 2, 0.75 - at.square(), (0.5 + at).square() / 2])


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
