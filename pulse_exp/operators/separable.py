"""Linear operators that act on rows and columns alone: `A x = R x Cᵀ` with two small matrices.

A dense `[h, H]` matrix product is faster than a strided convolution at every factor from 2 to 64
on a 1024×1024 image, and it makes the pseudo-inverse of the whole operator exact:
`(R ⊗ C)⁺ = R⁺ ⊗ C⁺`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.operators import divided_size, in_range

PINV_CUTOFF = 1e-4
"""Singular values below this part of the largest count as zero, so that noise is not blown up."""


def bilinear_matrix(size: int, enlarged: int) -> Float[Tensor, "enlarged size"]:
    """Bilinear interpolation of an axis of `size` pixels, as torch enlarges images."""
    return F.interpolate(torch.eye(size)[None], enlarged, mode="linear")[0].T


class Separable:
    """A `Downscaler` whose subclasses say what an axis of `size` pixels is multiplied with."""

    is_image = True

    def __init__(self, factor: int) -> None:
        in_range("downscaler.factor", factor, 1)
        self.factor = factor
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def axis_matrix(self, size: int) -> Float[Tensor, "size//factor size"]:
        """The operator on one axis, in float64."""
        raise NotImplementedError

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result; a UserError when the factor does not divide them."""
        return divided_size(height, width, self.factor)

    def __call__(self, images: Float[Tensor, "*B H W"]) -> Float[Tensor, "*B h w"]:
        """`[B, 3, H, W]` (or any leading axes) to `[B, 3, H / factor, W / factor]`."""
        height, width = images.shape[-2:]
        self.output_size(height, width)
        rows, columns = self._matrix(height, images), self._matrix(width, images)
        return rows @ images @ columns.mT

    def of_enlarged(self, images: Float[Tensor, "*B s t"], side: int) -> Float[Tensor, "*B h w"]:
        """`A x` of images enlarged to `side` × `side` by bilinear interpolation, which is separable
        as well: the enlarged images are never made."""
        rows, columns = (
            self._matrix(side, images) @ bilinear_matrix(size, side).to(images)
            for size in images.shape[-2:]
        )
        return rows @ images @ columns.mT

    def observed(self, lr: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B h w"]:
        return lr

    def pseudo_inverse(self, lr: Float[Tensor, "*B h w"]) -> Float[Tensor, "*B H W"]:
        """`A⁺ y`: the smallest image whose downscaled version is nearest to `lr`."""
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
