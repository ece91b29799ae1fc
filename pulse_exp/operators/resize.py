"""Pillow's resampling to any size on float tensors: baselines without a search, and panels."""

from __future__ import annotations

from functools import lru_cache

from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.operators.filters import (
    box,
    cropping_matrix,
    cubic,
    lanczos3,
    nearest_matrix,
    triangle,
)

KINDS = ("nearest", "area", "bilinear", "bicubic", "lanczos")
FILTERS = {
    "area": (box, 0.5),
    "bilinear": (triangle, 1.0),
    "bicubic": (cubic, 2.0),
    "lanczos": (lanczos3, 3.0),
}


def resize(
    images: Float[Tensor, "*B h w"], size: tuple[int, int], kind: str
) -> Float[Tensor, "*B H W"]:
    """`images` at `size = (H, W)`, larger or smaller, equal to Pillow's `resize` in mode F.

    `bicubic` and `lanczos` overshoot at edges: the result is not clamped to [0, 1].

    Raises:
        UserError: the kind is unknown.
    """
    if kind not in KINDS:
        raise UserError(f"no resampling named {kind!r}; choose one of {', '.join(KINDS)}")
    height, width = images.shape[-2:]
    rows, columns = _axis_matrix(height, size[0], kind), _axis_matrix(width, size[1], kind)
    return rows.to(images) @ images @ columns.to(images).mT


@lru_cache(maxsize=64)
def _axis_matrix(size: int, out: int, kind: str) -> Tensor:
    if kind == "nearest":
        return nearest_matrix(size, out)
    return cropping_matrix(size, out, *FILTERS[kind])
