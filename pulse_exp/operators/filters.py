"""Resampling filters, and the matrix that applies one along an axis of pixels.

A kernel is a profile over distances in output pixels (in input pixels when enlarging). Stretching
it over the input when reducing is what makes it antialias.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Kernel = Callable[[Tensor], Tensor]


def box(x: Tensor) -> Tensor:
    """The plain average, radius 1/2."""
    return ((x > -0.5) & (x <= 0.5)).to(x.dtype)


def triangle(x: Tensor) -> Tensor:
    """Linear interpolation, radius 1."""
    return (1 - x.abs()).clamp(min=0)


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = −0.5, radius 2."""
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x.square() + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def lanczos3(x: Tensor) -> Tensor:
    """Sinc windowed by a wider sinc, radius 3."""
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), torch.zeros_like(x))


def reflect(index: Tensor, size: int) -> Tensor:
    """Mirrors indices outside `0 ... size − 1` at the edge pixels, as often as needed."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.remainder(2 * (size - 1))
    return torch.minimum(index, 2 * (size - 1) - index)


def reflecting_matrix(
    size: int, out: int, kernel: Kernel, support: float
) -> Float[Tensor, "out size"]:
    """The filter from `size` to `out` pixels, mirroring the image at its edges."""
    index, weights = _taps(size, out, kernel, support)
    return _matrix(reflect(index, size), weights, size)


def cropping_matrix(
    size: int, out: int, kernel: Kernel, support: float
) -> Float[Tensor, "out size"]:
    """The filter from `size` to `out` pixels, cut at the edges and renormalised, as Pillow does."""
    index, weights = _taps(size, out, kernel, support)
    weights = weights * ((index >= 0) & (index < size))
    return _matrix(index.clamp(0, size - 1), weights, size)


def nearest_matrix(size: int, out: int) -> Float[Tensor, "out size"]:
    """One input pixel for each output pixel: the one under its middle, as in Pillow.

    A middle exactly between two pixels takes the later one; Pillow's sum of floats takes either.
    """
    taken = (2 * torch.arange(out) + 1) * size // (2 * out)
    return torch.eye(size, dtype=torch.float64)[taken]


def _taps(size: int, out: int, kernel: Kernel, support: float) -> tuple[Tensor, Tensor]:
    """Input indices (some outside the image) and kernel values for each output pixel."""
    scale = size / out
    stretch = max(scale, 1.0)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * scale - 0.5
    radius = int(support * stretch) + 1
    index = centre.floor().long()[:, None] + torch.arange(-radius, radius + 1)
    return index, kernel((index - centre[:, None]) / stretch)


def _matrix(index: Tensor, weights: Tensor, size: int) -> Tensor:
    weights = weights / weights.sum(dim=1, keepdim=True)
    matrix = torch.zeros(len(index), size, dtype=torch.float64)
    return matrix.scatter_add_(1, index, weights)
