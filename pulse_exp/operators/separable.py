"""Linear operators that act on rows and columns alone: `A x = R x Cᵀ` with two small matrices.

A dense `[h, H]` matrix product is faster than a strided convolution at every factor from 2 to 64
on a 1024×1024 image, and it makes the pseudo-inverse of the whole operator exact:
`(R ⊗ C)⁺ = R⁺ ⊗ C⁺`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError

Kernel = Callable[[Tensor], Tensor]
"""A filter's profile over distances measured in low-res pixels; zero outside its support."""

PINV_CUTOFF = 1e-4
"""Singular values below this part of the largest count as zero, so that noise is not blown up."""


class Separable:
    """A linear downscaler; a subclass says what one axis of `size` pixels is multiplied with.

    It acts on each image and channel alone, is differentiable, and keeps dtype and device.

    Attributes:
        factor: pixels of the high-res side for one of the low-res side.
        is_image: the output is an image in [0, 1] (up to overshoot) that may be clamped and saved.
    """

    is_image = True

    def __init__(self, factor: int) -> None:
        if factor < 1:
            raise UserError(f"downscaler.factor must be a whole number from 1 on, not {factor}")
        self.factor = factor
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def axis_matrix(self, size: int) -> Float[Tensor, "size//factor size"]:
        """The operator on one axis, in float64."""
        raise NotImplementedError

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result.

        Raises:
            UserError: the factor does not divide the size.
        """
        return divided_size(height, width, self.factor)

    def __call__(self, images: Float[Tensor, "*B H W"]) -> Float[Tensor, "*B h w"]:
        """`[B, 3, H, W]` (or any leading axes) to `[B, 3, H / factor, W / factor]`."""
        height, width = images.shape[-2:]
        self.output_size(height, width)
        rows, columns = self._matrix(height, images), self._matrix(width, images)
        return rows @ images @ columns.mT

    def pseudo_inverse(self, lr: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B H W"]:
        """`A⁺ y`: the smallest image whose downscaled version is nearest to `lr`.

        `x + A⁺(y − A x)` corrects only what the downscaler sees (range-null-space decomposition,
        DDNM, Wang et al. 2022).
        """
        height, width = lr.shape[-2] * self.factor, lr.shape[-1] * self.factor
        rows, columns = (self._matrix(size, lr, inverse=True) for size in (height, width))
        return rows @ lr @ columns.mT

    def _matrix(self, size: int, like: Tensor, inverse: bool = False) -> Tensor:
        key = (size, like.dtype, like.device, inverse)
        if key not in self._cache:
            with torch.inference_mode(False):  # else a later search could not differentiate it
                matrix = self.axis_matrix(size)
                if inverse:
                    matrix = torch.linalg.pinv(matrix, rtol=PINV_CUTOFF)
                self._cache[key] = matrix.to(like.dtype).to(like.device)
        return self._cache[key]


def divided_size(height: int, width: int, factor: int) -> tuple[int, int]:
    """`(height / factor, width / factor)`, or a UserError when the factor does not divide them."""
    if height % factor or width % factor:
        raise UserError(
            f"downscaler.factor={factor} does not divide an image of {height}×{width} "
            "(height × width); choose a factor that divides both sides"
        )
    return height // factor, width // factor


def reflect(index: Tensor, size: int) -> Tensor:
    """Mirrors indices outside `0 ... size − 1` at the edge pixels, as often as needed."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (size - 1))
    return torch.minimum(index, 2 * (size - 1) - index)


def filter_weights(size: int, factor: int, kernel: Kernel, support: float) -> tuple[Tensor, Tensor]:
    """Pixel indices (some outside the image) and kernel values under each low-res pixel.

    The kernel is stretched by `factor`, which makes it an antialiasing filter, and sampled at
    pixel centres. Both results are `[size / factor, taps]`; `support` is the kernel's radius.
    """
    centre = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    radius = int(support * factor) + 1
    offsets = torch.arange(-radius, radius + 1)
    index = centre.floor().long()[:, None] + offsets
    return index, kernel((index - centre[:, None]) / factor)


def reflecting_matrix(size: int, factor: int, kernel: Kernel, support: float) -> Tensor:
    """Filter matrix `[size / factor, size]` that mirrors the image at its edges."""
    index, weights = filter_weights(size, factor, kernel, support)
    weights = weights / weights.sum(dim=1, keepdim=True)
    matrix = torch.zeros(size // factor, size, dtype=torch.float64)
    return matrix.scatter_add_(1, reflect(index, size), weights)


def cropping_matrix(size: int, factor: int, kernel: Kernel, support: float) -> Tensor:
    """Filter matrix `[size / factor, size]` that cuts the filter at the edges, as Pillow does."""
    index, weights = filter_weights(size, factor, kernel, support)
    weights = weights * ((index >= 0) & (index < size))
    weights = weights / weights.sum(dim=1, keepdim=True)
    matrix = torch.zeros(size // factor, size, dtype=torch.float64)
    return matrix.scatter_add_(1, index.clamp(0, size - 1), weights)
