"""Downscalers: what the search assumes has happened to the image.

Each maps `[B, 3, H, W]` to `[B, 3, H / factor, W / factor]`, is linear and keeps constant images.
All are centred: low-res pixel i covers high-res pixels `i·factor ... (i + 1)·factor − 1`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.operators.separable import Separable, cropping_matrix, reflecting_matrix

MIN_SIGMA = 0.1
"""A narrower Gaussian is `nearest` by another name."""


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = −0.5, radius 2."""
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x.square() + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def triangle(x: Tensor) -> Tensor:
    """Linear interpolation, radius 1."""
    return (1 - x.abs()).clamp(min=0)


def box(x: Tensor) -> Tensor:
    """Nearest neighbour stretched: the plain average, radius 1/2."""
    return ((x > -0.5) & (x <= 0.5)).to(x.dtype)


def lanczos3(x: Tensor) -> Tensor:
    """Windowed sinc, radius 3."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


class Bicubic(Separable):
    """PULSE's downscaler (Menon et al. 2020): cubic, a = −0.5, antialiased, reflect padding.

    4·factor taps for an even factor, equal to the released code. For an odd factor that code is
    off by half a high-res pixel; this one stays centred (4·factor − 1 taps).
    """

    def axis_matrix(self, size: int) -> Tensor:
        return reflecting_matrix(size, self.factor, cubic, 2)


class BicubicPil(Separable):
    """Pillow's bicubic reduction, in float arithmetic and without clamping.

    It differs from `Bicubic` only at the edges: the filter is cut there, not mirrored.
    """

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, self.factor, cubic, 2)


class Bilinear(Separable):
    """Pillow's bilinear reduction: antialiased, a triangle 2·factor wide."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, self.factor, triangle, 1)


class Area(Separable):
    """The mean of each factor×factor block (CSGM's super-resolution operator)."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, self.factor, box, 0.5)


class Lanczos(Separable):
    """Pillow's Lanczos reduction: antialiased, six lobes wide."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, self.factor, lanczos3, 3)


class Nearest(Separable):
    """Takes the pixel just past each block's middle, as Pillow does; it aliases."""

    def axis_matrix(self, size: int) -> Tensor:
        taken = torch.arange(size // self.factor) * self.factor + self.factor // 2
        return torch.eye(size, dtype=torch.float64)[taken]


class Gaussian(Separable):
    """Gaussian blur, then every factor-th pixel; reflect padding, cut at 4 sigma.

    Args:
        factor: high-res pixels for one low-res pixel.
        sigma: standard deviation in low-res pixels: 0.4 is the customary 1.6 high-res pixels
            at ×4.
    """

    def __init__(self, factor: int, sigma: float = 0.5) -> None:
        super().__init__(factor)
        if not MIN_SIGMA <= sigma < math.inf:
            raise UserError(
                f"downscaler.sigma must be at least {MIN_SIGMA} low-res pixels, not {sigma}"
            )
        self.sigma = sigma

    def axis_matrix(self, size: int) -> Tensor:
        def kernel(x: Tensor) -> Tensor:
            return torch.exp(-0.5 * (x / self.sigma).square())

        return reflecting_matrix(size, self.factor, kernel, 4 * self.sigma)
