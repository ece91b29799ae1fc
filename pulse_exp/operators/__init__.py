"""What happens to an image before it is seen, and what a search assumes has happened."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError


class Downscaler(Protocol):
    """A linear measurement `y = A x` that a search may assume; differentiable.

    It treats each image of a batch alone and keeps its dtype and device.

    Attributes:
        factor: high-res side divided by low-res side; 1 for a mask.
        is_image: the result is a picture in [0, 1] (up to a filter's overshoot), so it may be
            clamped and rounded to 8 bits. Random measurements are not pictures.
    """

    factor: int
    is_image: bool

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result; a UserError when the factor does not divide them."""
        ...

    def __call__(self, images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 h w"]:
        """`A x`."""
        ...

    def observed(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 h w"]:
        """What such a measurement can show of `lr` (projection onto A's range): all of it, except
        that a mask hides its pixels again, after noise for example."""
        ...

    def pseudo_inverse(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 H W"]:
        """An image that measures as `lr`, for the range-null-space correction
        `x + A⁺(y − A x)` (DDNM, Wang et al. 2022), which changes only what A sees."""
        ...


def divided_size(height: int, width: int, factor: int) -> tuple[int, int]:
    """`(height / factor, width / factor)`.

    Raises:
        UserError: the factor does not divide both.
    """
    if height % factor or width % factor:
        raise UserError(
            f"downscaler.factor={factor} does not divide an image of {height}×{width} "
            "(height × width); choose a factor that divides both sides"
        )
    return height // factor, width // factor


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> float:
    """The value, if it lies in [low, high] and is finite; a UserError otherwise."""
    if not low <= value <= high or value == float("inf"):
        limit = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise UserError(f"{name}={value}: must be {limit}")
    return value
