"""A blur of the input that its downscaler does not explain: estimated, then assumed."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.operators import Downscaler
from pulse_exp.sharpness import cosine_transform

PINV_CUTOFF = 0.1
"""Singular values below this part of the largest count as zero: what a blur leaves a tenth of is
lost in the rounding of the input."""


def blur_matrices(sigmas: Float[Tensor, " B"], side: int) -> Float[Tensor, "B side side"]:
    """For each standard deviation, in pixels, what blurs an axis of `side` pixels, mirrored at its
    ends: the cosine transform at f cycles a pixel times exp(−2π²σ²f²). The identity for 0."""
    cosines = cosine_transform(side)
    frequency = torch.arange(side, dtype=torch.float64) / (2 * side)
    variance = sigmas.double().cpu().square()[:, None]
    decay = torch.exp(-2 * math.pi**2 * variance * frequency.square())
    matrices = cosines.T @ (decay[:, :, None] * cosines)
    matrices[variance[:, 0] == 0] = torch.eye(side, dtype=torch.float64)
    return matrices.float().to(sigmas.device)


class Blurred:
    """A `Downscaler` of square images, and after it a Gaussian blur of each low-res image.

    A blur before the reduction is nearly the same, and the estimate is in low-res pixels.

    Args:
        downscaler: one whose results are pictures.
        blurs: `blur_matrices` of the images; one fits all.
    """

    is_image = True

    def __init__(self, downscaler: Downscaler, blurs: Float[Tensor, "B n n"]) -> None:
        self.downscaler, self.blurs = downscaler, blurs
        self.factor = downscaler.factor

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return self.downscaler.output_size(height, width)

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        return self._blurred(self.downscaler(images), self.blurs)

    def observed(self, lr: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 h w"]:
        return self.downscaler.observed(lr)

    def pseudo_inverse(self, lr: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 3 H W"]:
        inverse = torch.linalg.pinv(self.blurs, rtol=PINV_CUTOFF)
        return self.downscaler.pseudo_inverse(self._blurred(lr, inverse))

    def _blurred(self, lr: Tensor, matrices: Tensor) -> Tensor:
        along = matrices[:, None].to(lr)
        return along @ lr @ along.mT
