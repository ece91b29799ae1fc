"""How blurred a picture is, by its power spectrum beside those of sharp pictures of its kind."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_SIDE = 16
"""Pixels a side below which a spectrum is too short to tell."""

BANDS = 8
"""Equal bands of frequency from `LOWEST` to 0.5 cycles a pixel."""

LOWEST = 0.1
"""Cycles a pixel; below, pictures differ by more than a blur does."""

NOTICEABLE = 0.5
"""Pixels of blur that sharp pictures are not mistaken to have: of 512 draws of the FFHQ generator
and 31 sharp photographs, at 16 and 32 pixels a side, none reaches 0.45. Of the photographs a
true blur of 0.5 is noticed in more than half, one of 1 in all, as 0.9 to 1.1."""


def log_power(images: Float[Tensor, "B 3 n n"]) -> Float[Tensor, "B bands"]:
    """Logarithms of the mean powers of the grey picture's cosine transform in each band.

    The transform (orthonormal DCT-II) continues a picture by its mirror image: no edge at the
    border.
    """
    grey = images.detach().double().cpu().mean(1)
    side = grey.shape[-1]
    position = torch.arange(side, dtype=torch.float64)
    cosines = torch.cos(math.pi / side * position[:, None] * (position + 0.5)) * math.sqrt(2 / side)
    cosines[0] /= math.sqrt(2)
    power = (cosines @ grey @ cosines.T).square()
    frequency = torch.cartesian_prod(position, position).norm(dim=1) / (2 * side)
    # The addend keeps frequencies on a band's edge out of rounding's hands.
    band = torch.floor((frequency - LOWEST) * BANDS / (0.5 - LOWEST) + 1e-9)
    members = torch.stack([band == index for index in range(BANDS)]).double()
    mean = power.flatten(1) @ (members / members.sum(1, keepdim=True)).T
    return mean.clamp(min=1e-12).log()


def blur_beside(
    sharp: Float[Tensor, " bands"], images: Float[Tensor, "B 3 n n"]
) -> Float[Tensor, " B"]:
    """Standard deviation in pixels of the Gaussian blur of each picture, 0 where it is sharper.

    A blur of σ multiplies the power at f cycles a pixel by exp(−4π²σ²f²), so σ² is the slope of
    the logarithm of the powers' ratio over −4π²f², by least squares. Noise and 8 bits fill the
    high frequencies: noisy inputs seem sharp, a blur of 2 pixels seems one of 0.7 and a blur of 3
    none.

    Args:
        sharp: the mean of `log_power` over sharp pictures of the same size.
    """
    width = (0.5 - LOWEST) / BANDS
    middle = LOWEST + width * (torch.arange(BANDS, dtype=torch.float64) + 0.5)
    decay = -4 * math.pi**2 * middle.square()
    decay -= decay.mean()
    variance = (log_power(images) - sharp) @ decay / decay.square().sum()
    return variance.clamp(min=0).sqrt()
