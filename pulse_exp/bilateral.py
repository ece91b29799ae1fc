"""Corrections of an image by a low-res one: enlarged along its edges, and told from noise."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

QUIETEST = 0.59
"""The 5 % quantile of local mean squares in unit white noise, 16 to 128 pixels a side."""


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

    Of the noise's variance 1.5 times is more than pure noise reaches anywhere.
    """
    noise = noise_variance(difference)
    power = local_mean(difference.square())
    return (1 - 1.5 * noise[:, None, None, None] / power.clamp(min=1e-12)).clamp(min=0)


def noise_variance(image: Float[Tensor, "B 3 h w"]) -> Float[Tensor, " B"]:
    """The variance of an image's white noise, from where it shows least.

    Second differences along both axes are noise alone in smooth images and along straight edges
    (Immerkær 1996): the 5 % quantile of their mean squares over 5×5 pixels, which is `QUIETEST` of
    the variance in pure noise. 0 for what is too small to tell, less than 5×5 pixels; of large
    images some 128 windows a side are looked at.
    """
    if min(image.shape[-2:]) < 5:
        return image.new_zeros(len(image))
    detail = image.diff(n=2, dim=-1).diff(n=2, dim=-2) / 6  # unit noise stays unit noise
    stride = max(1, min(detail.shape[-2:]) // 128)
    return local_mean(detail.square(), stride).flatten(1).quantile(0.05, dim=1) / QUIETEST


def local_mean(values: Float[Tensor, "B 3 h w"], stride: int = 1) -> Float[Tensor, "B 1 h' w'"]:
    """Over channels and 5×5 pixels, of which fewer at the border, about every `stride`-th pixel."""
    return F.avg_pool2d(values.mean(1, keepdim=True), 5, stride, 2, count_include_pad=False)


def spline(factor: int, like: Tensor) -> Float[Tensor, "3 factor"]:
    """The quadratic B-spline from a block's pixels to the block before, its own, the next."""
    at = (torch.arange(factor, device=like.device, dtype=like.dtype) + 0.5) / factor - 0.5
    return torch.stack([(0.5 - at).square() / 2, 0.75 - at.square(), (0.5 + at).square() / 2])
