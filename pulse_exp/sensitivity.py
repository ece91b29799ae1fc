"""What a low-res image sees of a latent space, worked out once from the generator's own images.

A unit step along one direction may turn the head, along another move a strand of hair: the
curvature of the downscaling error, 2 JᵀJ with the Jacobian J of the low-res pixels, spans many
orders of magnitude. Its mean over the generator's images tells a search before it begins along
which directions to step, and how far: a Gauss-Newton preconditioner, taken as an average.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import DeviceMemoryError
from pulse_exp.generators.base import Generator
from pulse_exp.seeding import random_generator
from pulse_exp.starts import pooled
from pulse_exp.style_statistics import kept, synthesis_fingerprint, tracked

SIDE = 32
"""Pixels a side of the low-res images, at most: measured once, it serves every factor."""


@dataclass
class Sensitivity:
    """Principal directions of each layer's vector, and last of one vector that all layers share.

    Attributes:
        directions: orthonormal columns, for each of the n layers and the shared vector.
        strengths: the mean square change of a low-res pixel for a unit step along each.
    """

    directions: Float[Tensor, "n+1 d d"]
    strengths: Float[Tensor, "n+1 d"]


def low_res_sensitivity(
    generator: Generator,
    ws_at: Callable[[Float[Tensor, "B n d"]], Float[Tensor, "B num_ws w_dim"]],
    draws: int,
    space: str,
) -> Sensitivity:
    """The sensitivity of coordinates that are standard normal: measured once, kept in the cache.

    Args:
        ws_at: style vectors of the coordinates.
        draws: how many images it is taken from.
        space: tells the coordinates apart from others of the same generator.
    """
    name = f"sensitivity-{space}-{draws}-{synthesis_fingerprint(generator)}"
    made = kept(generator, name, lambda: vars(measure(generator.exact, ws_at, draws)))
    return Sensitivity(**made)


def measure(
    generator: Generator,
    ws_at: Callable[[Float[Tensor, "B n d"]], Float[Tensor, "B num_ws w_dim"]],
    draws: int,
) -> Sensitivity:
    """E[Jᵀ J] = E[Jᵀ r (Jᵀ r)ᵀ] for white noise r on the low-res pixels; one r for each draw.

    Raises:
        DeviceMemoryError: one image's gradient does not fit the device.
    """
    device = next(generator.parameters()).device
    rng = random_generator("sensitivity")
    layers, d = generator.num_ws, generator.w_dim
    products = torch.zeros(layers + 1, d, d, dtype=torch.float64)
    quick = draws * generator.resolution**2 < 2**26
    description = f"what a low-res image sees, from {draws} images of the generator (once)"
    for _ in tracked(range(draws), description, quick):
        shared = torch.randn(1, 1, d, generator=rng).to(device)
        coordinates = shared.repeat(1, layers, 1).requires_grad_(True)
        try:
            image = pooled(generator.synthesis(ws_at(coordinates)), SIDE)
            noise = torch.randn(image.shape, generator=rng).to(device)
            gradient = torch.autograd.grad((image * noise).sum(), coordinates)[0]
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceMemoryError from error
        gradient = gradient[0].double().cpu()
        gradient = torch.cat([gradient, gradient.sum(0, keepdim=True)])
        products += gradient[:, :, None] * gradient[:, None, :]
    strengths, directions = torch.linalg.eigh(products / (draws * image.numel()))
    return Sensitivity(directions.float(), strengths.clamp(min=0).float())
