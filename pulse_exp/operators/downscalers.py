"""Downscalers: what the search assumes has happened to the image.

Each maps `[B, 3, H, W]` to `[B, 3, H / factor, W / factor]`, is linear and keeps constant images.
All are centred: low-res pixel i covers high-res pixels `i·factor ... (i + 1)·factor − 1`
(`Nearest` takes one of them).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_exp.operators import in_range
from pulse_exp.operators.filters import (
    box,
    cropping_matrix,
    cubic,
    lanczos3,
    nearest_matrix,
    reflecting_matrix,
    triangle,
)
from pulse_exp.operators.separable import Separable


class Bicubic(Separable):
    """PULSE's downscaler (Menon et al. 2020): cubic, a = −0.5, antialiased, reflect padding.

    4·factor taps for an even factor, equal to the released code. For an odd factor that code is
    off by half a high-res pixel; this one stays centred (4·factor − 1 taps).
    """

    def axis_matrix(self, size: int) -> Tensor:
        return reflecting_matrix(size, size // self.factor, cubic, 2)


class BicubicPil(Separable):
    """Pillow's bicubic reduction, in float arithmetic and without clamping.

    It differs from `Bicubic` only at the edges: the filter is cut there, not mirrored.
    """

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, size // self.factor, cubic, 2)


class Bilinear(Separable):
    """Pillow's bilinear reduction: antialiased, a triangle 2·factor wide."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, size // self.factor, triangle, 1)


class Area(Separable):
    """The mean of each factor×factor block (CSGM's super-resolution operator)."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, size // self.factor, box, 0.5)


class Lanczos(Separable):
    """Pillow's Lanczos reduction: antialiased, 6·factor wide."""

    def axis_matrix(self, size: int) -> Tensor:
        return cropping_matrix(size, size // self.factor, lanczos3, 3)


class Nearest(Separable):
    """One pixel of each block, the one just past its middle, as Pillow does; it aliases."""

    def axis_matrix(self, size: int) -> Tensor:
        return nearest_matrix(size, size // self.factor)


class Gaussian(Separable):
    """Gaussian blur, then one sample a block; reflect padding, cut at 4 sigma.

    Args:
        factor: high-res pixels for one low-res pixel.
        sigma: standard deviation in low-res pixels; 0.4 is the customary 1.6 high-res pixels
            at ×4.
    """

    def __init__(self, factor: int, sigma: float = 0.5) -> None:
        super().__init__(factor)
        self.sigma = in_range("downscaler.sigma", sigma, 0.1, 4)

    def axis_matrix(self, size: int) -> Tensor:
        def kernel(x: Tensor) -> Tensor:
            return torch.exp(-0.5 * (x / self.sigma).square())

        return reflecting_matrix(size, size // self.factor, kernel, 4 * self.sigma)


KINDS: dict[str, type[Separable]] = {
    "bicubic": Bicubic,
    "bicubic_pil": BicubicPil,
    "bilinear": Bilinear,
    "area": Area,
    "lanczos": Lanczos,
    "nearest": Nearest,
    "gaussian": Gaussian,
}
"""By the name that the configuration uses."""
