"""A sheet of samples: whether weights are right is seen in a minute."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.seeding import random_generator

MEAN_DRAWS = 10_000
CELL = 256
"""Largest side of one sample on the sheet, in pixels."""


@torch.no_grad()
def sample_sheet(
    generator: Generator, count: int = 16, truncation: float = 0.7, seed: int = 0
) -> Float[Tensor, "3 H W"]:
    """`count` samples in rows as wide as the sheet is high, at most `CELL` pixels each.

    Args:
        truncation: 1 draws from the whole distribution; less pulls every style vector towards the
            mean one, which is estimated from seeded draws where the generator does not know it.
        seed: of the latents; sample i is the same for every `count`.

    Returns:
        The sheet on the CPU, in [0, 1].
    """
    mean = mean_style(generator)
    cells = []
    for i in range(count):
        z = torch.randn(1, generator.z_dim, generator=random_generator(seed, "sample", i))
        ws = generator.mapping(z.to(mean))
        image = generator.synthesis(mean + truncation * (ws - mean)).clamp(0, 1).float().cpu()
        side = min(generator.resolution, CELL)
        cells.append(F.interpolate(image, (side, side), mode="area")[0])
    columns = math.ceil(math.sqrt(count))
    cells += [torch.zeros_like(cells[0])] * (-count % columns)
    rows = [torch.cat(cells[i : i + columns], dim=2) for i in range(0, len(cells), columns)]
    return torch.cat(rows, dim=1)


def mean_style(generator: Generator) -> Float[Tensor, " w_dim"]:
    """The mean style vector, as the generator knows it or estimated from seeded draws."""
    if generator.w_mean is not None:
        return generator.w_mean
    z = torch.randn(MEAN_DRAWS, generator.z_dim, generator=random_generator(0, "mean"))
    return generator.mapping(z.to(next(generator.parameters())))[:, 0].mean(dim=0)
