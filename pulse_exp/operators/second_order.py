"""A photo that was degraded twice: taken and saved badly, then shared and saved badly again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.operators import divided_size, in_range
from pulse_exp.operators.blurs import blur, gaussian_kernel
from pulse_exp.operators.degradations import jpeg
from pulse_exp.operators.resize import resize

WORKING_FACTOR = 4
"""Real-ESRGAN's ranges are meant for pixels a quarter of the low-res pixels' size."""

PHOTONS = 256

RESAMPLINGS = ("area", "bilinear", "bicubic")

Range = tuple[float, float]


@dataclass(frozen=True)
class Round:
    """The ranges of one round. `blur`: chance of a blur; `sigma`: of the blur, in pixels;
    `enlarge`, `reduce`: chances to change the size, `scale` by how much; `std`: Gaussian noise in
    8-bit levels; `shot`: factor on the shot noise of 256 photons at a value of 1; `quality`: of
    the JPEG; `grey_noise`: chance that the noise is the same in all channels."""

    blur: float
    sigma: Range
    enlarge: float
    reduce: float
    scale: Range
    std: Range
    shot: Range
    quality: Range = (30, 95)
    grey_noise: float = 0.4


FIRST = Round(1.0, (0.2, 3), 0.2, 0.7, (0.15, 1.5), std=(1, 30), shot=(0.05, 3))
SECOND = Round(0.8, (0.2, 1.5), 0.3, 0.4, (0.3, 1.2), std=(1, 25), shot=(0.05, 2.5))
"""Real-ESRGAN's ranges (Wang et al. 2021)."""


class SecondOrder:
    """Real-ESRGAN's second-order degradation (Wang et al. 2021): blur, resize, noise, JPEG, twice.

    The truth is first averaged down to four times the low-res side, where the published ranges
    are at home, and the second round ends at the low-res size. Kernels are Gaussian, half of them
    elongated; the original's generalised kernels and final sinc filter (ringing) are left out.

    Args:
        factor: of the whole reduction: the downscaler's.
    """

    stage = "reduction"

    def __init__(self, factor: int) -> None:
        self.factor = int(in_range("degradation.second_order.factor", factor, 1))

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        height, width = divided_size(image.shape[-2], image.shape[-1], self.factor)
        scale = min(WORKING_FACTOR, self.factor)
        image = resize(image, (height * scale, width * scale), "area")
        image = _blurred(image, FIRST, rng)
        image = _resized(image, FIRST, (height * scale, width * scale), rng)
        image = jpeg(_noisy(image, FIRST, rng), _integer(FIRST.quality, rng))
        image = _blurred(image, SECOND, rng)
        image = _resized(image, SECOND, (height * scale, width * scale), rng)
        image = _noisy(image, SECOND, rng)
        image = resize(image, (height, width), _choice(RESAMPLINGS, rng))
        return jpeg(image, _integer(SECOND.quality, rng))


def _blurred(image: Tensor, ranges: Round, rng: torch.Generator) -> Tensor:
    if not _chance(ranges.blur, rng):
        return image
    sigma_x = sigma_y = _uniform(ranges.sigma, rng)
    if _chance(0.5, rng):
        sigma_y = _uniform(ranges.sigma, rng)
    return blur(image, gaussian_kernel(sigma_x, sigma_y, _uniform((0, 180), rng)))


def _resized(image: Tensor, ranges: Round, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """`image` at `size` times a random scale."""
    chance, scale = _uniform((0, 1), rng), 1.0
    if chance < ranges.enlarge:
        scale = _uniform((1, ranges.scale[1]), rng)
    elif chance < ranges.enlarge + ranges.reduce:
        scale = _uniform((ranges.scale[0], 1), rng)
    height, width = (max(1, round(scale * side)) for side in size)
    return resize(image, (height, width), _choice(RESAMPLINGS, rng)).clamp(0, 1)


def _noisy(image: Tensor, ranges: Round, rng: torch.Generator) -> Tensor:
    """Normal or shot noise, half each; the same in all channels at times."""
    channels = 1 if _chance(ranges.grey_noise, rng) else 3
    if _chance(0.5, rng):
        std = _uniform(ranges.std, rng) / 255
        noise = std * torch.randn(channels, *image.shape[-2:], generator=rng)
    else:
        mean = image.float().cpu()
        mean = mean.mean(0, keepdim=True) if channels == 1 else mean
        noise = torch.poisson(mean * PHOTONS, generator=rng) / PHOTONS - mean
        noise = noise * _uniform(ranges.shot, rng)
    return (image + noise.to(image)).clamp(0, 1)


def _uniform(limits: Range, rng: torch.Generator) -> float:
    low, high = limits
    return low + (high - low) * float(torch.rand((), generator=rng))


def _integer(limits: Range, rng: torch.Generator) -> int:
    return round(_uniform(limits, rng))


def _chance(probability: float, rng: torch.Generator) -> bool:
    return _uniform((0, 1), rng) < probability


def _choice(names: tuple[str, ...], rng: torch.Generator) -> str:
    return names[int(torch.randint(len(names), (), generator=rng))]
