"""Other linear measurements in the downscaler's place: inpainting and compressed sensing.

All follow the `Downscaler` protocol, so a search, a refinement or a baseline runs with them as it
does with a downscaler.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.operators import Downscaler, divided_size, in_range
from pulse_exp.seeding import random_generator

LARGEST_MATRIX = 2**31
"""Bytes (in float32) that a dense random matrix may take."""


class Identity:
    """Measures every pixel: the generator is searched for the image itself (inversion).

    Args:
        factor: 1; no reduction is possible.
    """

    is_image = True

    def __init__(self, factor: int = 1) -> None:
        if factor != 1:
            raise UserError(
                f"downscaler.factor={factor}: this measurement does not reduce the image; "
                "set downscaler.factor=1, or choose downscaler=masked_bicubic for a mask"
            )
        self.factor = factor

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def __call__(self, images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        return images

    def observed(self, lr: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        return lr

    def pseudo_inverse(self, lr: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        return lr


class Mask(Identity):
    """Sets the hidden pixels to 0 in all channels: inpainting, where the search knows the mask.

    Hidden pixels count in the downscaling error, with a difference of 0: with half of the pixels
    hidden, an eps of 1e-3 is 2e-3 on the visible ones.
    """

    def __init__(self, factor: int = 1) -> None:
        super().__init__(factor)
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def visible(self, height: int, width: int) -> Float[Tensor, "H W"]:
        """1 where a pixel is measured, 0 where it is hidden."""
        raise NotImplementedError

    def __call__(self, images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        key = (images.shape[-2:], images.dtype, images.device)
        if key not in self._cache:
            with torch.inference_mode(False):
                self._cache[key] = self.visible(*images.shape[-2:]).to(images)
        return images * self._cache[key]

    def observed(self, lr: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        return self(lr)

    def pseudo_inverse(self, lr: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
        """A mask is a projection and its own pseudo-inverse."""
        return self(lr)


class BlockMask(Mask):
    """Hides one rectangle. All four numbers are parts of the image's side, from 0 to 1.

    Args:
        factor: 1; no reduction is possible.
        top, left: where the hidden rectangle begins.
        height, width: how far it reaches; what lies outside the image is ignored.
    """

    def __init__(
        self,
        factor: int = 1,
        top: float = 0.25,
        left: float = 0.25,
        height: float = 0.5,
        width: float = 0.5,
    ) -> None:
        super().__init__(factor)
        self.top = in_range("downscaler.top", top, 0, 1)
        self.left = in_range("downscaler.left", left, 0, 1)
        self.height = in_range("downscaler.height", height, 0, 1)
        self.width = in_range("downscaler.width", width, 0, 1)

    def visible(self, height: int, width: int) -> Float[Tensor, "H W"]:
        visible = torch.ones(height, width)
        top, bottom = round(self.top * height), round((self.top + self.height) * height)
        left, right = round(self.left * width), round((self.left + self.width) * width)
        visible[top:bottom, left:right] = 0
        return visible


class RandomMask(Mask):
    """Hides each pixel with probability `rate`; one mask for all images, fixed by `seed`."""

    def __init__(self, factor: int = 1, rate: float = 0.5, seed: int = 0) -> None:
        super().__init__(factor)
        self.rate = in_range("downscaler.rate", rate, 0, 1)
        self.seed = seed

    def visible(self, height: int, width: int) -> Float[Tensor, "H W"]:
        rng = random_generator(self.seed, "random_mask", height, width)
        return (torch.rand(height, width, generator=rng) >= self.rate).float()


class GaussianMeasurements:
    """Compressed sensing (CSGM, Bora et al. 2017): m products with random Gaussian images.

    As many measurements as a downscaler of the same factor has numbers, laid out as its low-res
    image: m = 3·(H / factor)·(W / factor) of n = 3·H·W. Each mixes all pixels and channels. The
    entries of A are N(0, 1/n), not CSGM's N(0, 1/m): then the mean squared error of the
    measurements is, in expectation, that of the image, and eps keeps its meaning. The values are
    about N(0, mean(x²)): noise to the eye, not in [0, 1], not to be clamped or rounded.

    The matrix is dense, so the image must be small: reduce a large one first (`Composed`).

    Args:
        factor: the square root of n / m.
        seed: of the matrix, the same for all images.
    """

    is_image = False

    def __init__(self, factor: int = 2, seed: int = 0) -> None:
        in_range("downscaler.factor", factor, 1)
        self.factor, self.seed = factor, seed
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Layout of the measurements; a UserError when the matrix would be too large."""
        h, w = divided_size(height, width, self.factor)
        if 36 * h * w * height * width > LARGEST_MATRIX:
            raise UserError(
                f"gaussian_measurements: a random matrix for {height}×{width} pixels at factor "
                f"{self.factor} takes {36 * h * w * height * width / 2**30:.0f} GiB; reduce the "
                "image first (downscaler=reduced_gaussian_measurements) or measure fewer numbers "
                "(a larger factor)"
            )
        return h, w

    def __call__(self, images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 h w"]:
        height, width = images.shape[-2:]
        h, w = self.output_size(height, width)
        measured = images.flatten(-3) @ self._matrix(height, width, images).mT
        return measured.unflatten(-1, (3, h, w))

    def observed(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 h w"]:
        return lr

    def pseudo_inverse(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 H W"]:
        """`Aᵀ(A Aᵀ)⁻¹ y`, the smallest image with these measurements."""
        height, width = lr.shape[-2] * self.factor, lr.shape[-1] * self.factor
        matrix = self._matrix(height, width, lr)
        key = ("gram", height, width, lr.dtype, lr.device)
        if key not in self._cache:
            with torch.inference_mode(False):
                exact = matrix.double()
                self._cache[key] = torch.linalg.inv(exact @ exact.mT).to(matrix)
        image = lr.flatten(-3) @ self._cache[key] @ matrix
        return image.unflatten(-1, (3, height, width))

    def _matrix(self, height: int, width: int, like: Tensor) -> Tensor:
        key = (height, width, like.dtype, like.device)
        if key not in self._cache:
            m, n = 3 * height * width // self.factor**2, 3 * height * width
            rng = random_generator(self.seed, "gaussian_measurements", height, width)
            with torch.inference_mode(False):
                self._cache[key] = (torch.randn(m, n, generator=rng) / n**0.5).to(like)
        return self._cache[key]


class Composed:
    """A reduction, then another measurement: a mask on the low-res image, for example.

    Args:
        factor: of the whole.
        first: makes the reduction, given what is left of the factor.
        then: what is measured of the reduced image.
    """

    def __init__(self, factor: int, first: Callable[[int], Downscaler], then: Downscaler) -> None:
        if factor % then.factor:
            raise UserError(
                f"downscaler.factor={factor} is not a multiple of downscaler.then.factor="
                f"{then.factor}; choose one that is"
            )
        self.factor = factor
        self.first, self.then = first(factor // then.factor), then
        self.is_image = self.first.is_image and then.is_image

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        return self.then.output_size(*self.first.output_size(height, width))

    def __call__(self, images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 h w"]:
        return self.then(self.first(images))

    def observed(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 h w"]:
        return self.then.observed(lr)

    def pseudo_inverse(self, lr: Float[Tensor, "*B 3 h w"]) -> Float[Tensor, "*B 3 H W"]:
        """`A₁⁺ A₂⁺ y`: it measures exactly as `lr` because every downscaler has full row rank,
        but is not always the smallest such image."""
        return self.first.pseudo_inverse(self.then.pseudo_inverse(lr))
