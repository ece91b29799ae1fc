"""Corrections of an image by a low-res one: enlarged along its edges, and told from noise."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

QUIETEST = 0.59
"""The 5 % quantile of local mean squares in unit white noise, 16 to 128 pixels a side."""


class JointBilateralEnlargement:
    """Low-res values at the size of a guide: of the 3×3 low-res pixels about a pixel, a mean
    weighted by the quadratic B-spline of their distance and a Gaussian of their colours against
    the pixel's (Kopf et al. 2007).

    Where none of the nine has a colour like it, distance alone decides. Linear in the values: the
    weights, nine for each pixel of the guide, are worked out once.
    """

    def __init__(
        self,
        colours: Float[Tensor, "B 3 h w"],
        guide: Float[Tensor, "B 3 H W"],
        colour_spread: float,
    ) -> None:
        height, width = colours.shape[-2:]
        # A block's rows and columns get axes of their own: [B, 3, h, rows, w, columns].
        blocks = guide.unflatten(2, (height, -1)).unflatten(4, (width, -1))
        self.block = rows, columns = blocks.shape[3], blocks.shape[5]
        down, across = spline(rows, guide), spline(columns, guide)
        weights = []
        for colour, (y, x) in zip(neighbours(colours), product(range(3), range(3)), strict=True):
            alike = gaussian(blocks - colour[:, :, :, None, :, None], colour_spread) + 1e-4
            weights.append(alike * (down[y][:, None, None] * across[x]))
        # A matrix for each block: [B, h, w, rows · columns, 9].
        stacked = torch.cat(weights, dim=1).permute(0, 2, 4, 3, 5, 1).flatten(3, 4)
        self.weights = (stacked / stacked.sum(-1, keepdim=True)).contiguous()

    def __call__(self, values: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 H W"]:
        near = torch.stack(neighbours(values)).permute(1, 3, 4, 0, 2)  # [B, h, w, 9, 3]
        blocks = (self.weights @ near).unflatten(3, self.block)
        return blocks.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def neighbours(lr: Float[Tensor, "B 3 h w"]) -> list[Float[Tensor, "B 3 h w"]]:
    """For each place in 3×3, row by row, every pixel's neighbour there; at the border itself."""
    height, width = lr.shape[-2:]
    lr = F.pad(lr, (1, 1, 1, 1), mode="replicate")
    places = product(range(3), range(3))
    return [lr[:, :, y : y + height, x : x + width] for y, x in places]


def gaussian(difference: Float[Tensor, "B 3 *size"], spread: float) -> Float[Tensor, "B 1 *size"]:
    """exp(-|d|² / (2 spread²)) of colour differences d."""
    return torch.exp(difference.square().sum(1, keepdim=True) / (-2 * spread**2))


def contrast(image: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
    """Largest less smallest value of the 3×3 pixels about each, a mean over the channels."""
    largest, smallest = (sign * F.max_pool2d(sign * image, 3, 1, 1) for sign in (1, -1))
    return (largest - smallest).mean(1, keepdim=True)


def share_of_signal(difference: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 1 h w"]:
    """How much of each pixel's difference is more than noise, in [0, 1]: a Wiener gain."""
    noise = noise_variance(difference)
    power = local_mean(difference.square())
    return (1 - noise[:, None, None, None] / power.clamp(min=1e-12)).clamp(min=0)


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
