"""Blurs of the truth before it is reduced: motion, focus, Gaussian. Lengths in high-res pixels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.operators import in_range
from pulse_exp.operators.filters import reflect

SAMPLES = 8
"""Points a pixel, along each axis, with which a shape is drawn into a kernel."""


def blur(image: Float[Tensor, "C H W"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "C H W"]:
    """Convolution with a square kernel of odd side, mirroring the image at its edges."""
    radius = kernel.shape[-1] // 2
    rows, columns = (
        reflect(torch.arange(-radius, size + radius), size).to(image.device)
        for size in image.shape[-2:]
    )
    padded = image.float()[:, rows][:, :, columns]
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(padded), s=size)
    return torch.fft.irfft2(spectrum, s=size)[:, 2 * radius :, 2 * radius :].to(image.dtype)


def line_kernel(length: float, angle: float) -> Float[Tensor, "k k"]:
    """An even line through the middle. `length` in pixels; `angle` in degrees, anticlockwise from
    the image's horizontal. Antialiased: each of its points is shared by the four pixels around.
    """
    radius = math.ceil(length / 2) + 1
    count = SAMPLES * math.ceil(length)
    along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * length
    x = along * math.cos(math.radians(angle)) + radius
    y = -along * math.sin(math.radians(angle)) + radius
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    left, top = x.floor().long(), y.floor().long()
    for i, weight_y in ((0, 1 - (y - top)), (1, y - top)):
        for j, weight_x in ((0, 1 - (x - left)), (1, x - left)):
            kernel.index_put_((top + i, left + j), weight_y * weight_x, accumulate=True)
    return kernel / kernel.sum()


def disc_kernel(radius: float) -> Float[Tensor, "k k"]:
    """An even disc, the image of a point out of focus; `radius` in pixels, antialiased."""
    reach = math.ceil(radius)
    count = SAMPLES * (2 * reach + 1)
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) / SAMPLES - reach - 0.5
    inside = (axis[:, None].square() + axis.square() <= radius**2).double()
    kernel = inside.unflatten(1, (-1, SAMPLES)).unflatten(0, (-1, SAMPLES)).sum((1, 3))
    return kernel / kernel.sum()


def gaussian_kernel(sigma_x: float, sigma_y: float, angle: float = 0.0) -> Float[Tensor, "k k"]:
    """A normal density cut at 4 sigma; standard deviations in pixels along axes turned by `angle`
    degrees anticlockwise."""
    radius = math.ceil(4 * max(sigma_x, sigma_y))
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = cosine * x + sine * y, cosine * y - sine * x
    kernel = torch.exp(-0.5 * ((along / sigma_x).square() + (across / sigma_y).square()))
    return kernel / kernel.sum()


class MotionBlur:
    """A camera moved along a straight line.

    Args:
        length: of the line, in high-res pixels; the paper's is 100 at 1024².
        angle: of the line, in degrees anticlockwise from the horizontal; None (as in the paper)
            draws one for each image.
    """

    stage = "hr"

    def __init__(self, length: float = 100.0, angle: float | None = None) -> None:
        self.length = in_range("degradation.motion_blur.length", length, 1)
        self.angle = angle

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        angle = self.angle
        if angle is None:
            angle = 180 * float(torch.rand((), generator=rng))
        return blur(image, line_kernel(self.length, angle))


class GaussianBlur:
    """`sigma`: standard deviation in high-res pixels."""

    stage = "hr"

    def __init__(self, sigma: float = 32.0) -> None:
        self.sigma = in_range("degradation.gaussian_blur.sigma", sigma, 0.1)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        return blur(image, gaussian_kernel(self.sigma, self.sigma))


class Defocus:
    """A lens out of focus. `radius`: of the circle of confusion, in high-res pixels."""

    stage = "hr"

    def __init__(self, radius: float = 48.0) -> None:
        self.radius = in_range("degradation.defocus.radius", radius, 0.5)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        return blur(image, disc_kernel(self.radius))
