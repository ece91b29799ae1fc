"""Degradations: what really happened to the image. The search never sees or differentiates them.

A step maps one image `[3, H, W]` in [0, 1] to another, keeps dtype and device, and takes all its
randomness from the generator it is given. Its `stage` says where it stands: "hr" before the
downscaling, on the truth; "reduction" in the place of the assumed downscaler; "lr" after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.operators import Downscaler, in_range
from pulse_exp.operators.downscalers import KINDS

STAGES = ("hr", "reduction", "lr")


class Degradation(Protocol):
    """One step of what happened to an image."""

    stage: str

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        """The degraded image; the same image and state of `rng` give the same result."""
        ...


class Chain:
    """From the truth to the low-res image that is observed.

    All "hr" steps in their order, then the downscaler (or the "reduction" step that replaces it),
    then all "lr" steps in their order. The image is clamped to [0, 1] after each of them and
    rounded to 8 bits at the end, as an image file holds it: what the search sees is what is
    saved. (Rounding adds 1.3e-6 to a mean squared error.) Pixels that the assumed measurement
    hides stay hidden. Measurements that are no image are neither clamped nor rounded.

    Args:
        steps: by name; the order is that of the mapping. Empty: the downscaler alone.
        downscaler: the one that the search assumes.

    Raises:
        UserError: more than one step would replace the downscaler, or a step that needs an image
            meets measurements that are none.
    """

    def __init__(self, steps: Mapping[str, Degradation], downscaler: Downscaler) -> None:
        by_stage = {stage: [s for s in steps.values() if s.stage == stage] for stage in STAGES}
        if len(by_stage["reduction"]) > 1:
            names = [name for name, step in steps.items() if step.stage == "reduction"]
            raise UserError(f"degradation={'+'.join(names)}: only one may replace the downscaler")
        if steps and not downscaler.is_image:
            raise UserError(
                f"degradation={'+'.join(steps)} acts on an image, but the downscaler's "
                "measurements are none; set degradation=none"
            )
        self.downscaler = downscaler
        self.before, self.after = by_stage["hr"], by_stage["lr"]
        self.reduction = by_stage["reduction"][0] if by_stage["reduction"] else None

    def __call__(self, hr: Float[Tensor, "3 H W"], rng: torch.Generator) -> Float[Tensor, "3 h w"]:
        """The observed low-res image; `rng` belongs to this image alone."""
        image = hr
        for step in self.before:
            image = step(image, rng).clamp(0, 1)
        if self.reduction is None:
            image = self.downscaler(image[None])[0]
        else:
            image = self.reduction(image, rng)
        expected = self.downscaler.output_size(*hr.shape[-2:])
        if image.shape[-2:] != expected:
            raise UserError(
                f"degradation gives {image.shape[-2]}×{image.shape[-1]} pixels where the "
                f"downscaler gives {expected[0]}×{expected[1]}; give both the same factor"
            )
        if not self.downscaler.is_image:
            return image
        for step in self.after:
            image = step(image.clamp(0, 1), rng)
        return quantise(self.downscaler.observed(image))


class WrongDownscaler:
    """Reduces the truth with an operator that the search does not assume.

    Args:
        factor: the same as that of the assumed downscaler.
        kind: a name in `downscalers.KINDS`.
    """

    stage = "reduction"

    def __init__(self, factor: int, kind: str = "area") -> None:
        if kind not in KINDS:
            raise UserError(
                f"degradation.wrong_downscaler.kind={kind}: choose one of {', '.join(KINDS)}"
            )
        self.downscaler = KINDS[kind](factor)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        return self.downscaler(image[None])[0]


class GaussianNoise:
    """Adds independent normal noise to every value. `std` in 8-bit levels (of 255); the paper's
    robustness figure has 25 and 50."""

    stage = "lr"

    def __init__(self, std: float = 25.0) -> None:
        self.std = in_range("degradation.gaussian_noise.std", std, 0)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        return image + torch.randn(image.shape, generator=rng).to(image) * (self.std / 255)


class Poisson:
    """Shot noise. `photons`: the mean count at a value of 1; the noise at x has the variance
    x / photons."""

    stage = "lr"

    def __init__(self, photons: float = 30.0) -> None:
        self.photons = in_range("degradation.poisson.photons", photons, 0.01)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        counts = torch.poisson(image.float().cpu() * self.photons, generator=rng)
        return (counts / self.photons).to(image)


class SaltAndPepper:
    """Turns pixels white or black, all channels together. `rate`: the part of all pixels, half
    of them white; the paper's is 0.05."""

    stage = "lr"

    def __init__(self, rate: float = 0.05) -> None:
        self.rate = in_range("degradation.salt_and_pepper.rate", rate, 0, 1)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        chance = torch.rand(image.shape[-2:], generator=rng).to(image.device)
        image = image.masked_fill(chance < self.rate, 0)
        return image.masked_fill(chance < self.rate / 2, 1)


class Jpeg:
    """Saves and reads the image as JPEG (Pillow, 4:2:0). `quality` from 1 to 95."""

    stage = "lr"

    def __init__(self, quality: int = 30) -> None:
        self.quality = int(in_range("degradation.jpeg.quality", quality, 1, 95))

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        return jpeg(image, self.quality)


class ColourCast:
    """Multiplies each channel by its own factor. `strength`: the factors are uniform in
    [1 − strength, 1 + strength]."""

    stage = "lr"

    def __init__(self, strength: float = 0.3) -> None:
        self.strength = in_range("degradation.colour_cast.strength", strength, 0, 1)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        gains = 1 + self.strength * (2 * torch.rand(3, generator=rng) - 1)
        return image * gains.to(image)[:, None, None]


class Grey:
    """A black-and-white photo: luma (Rec. 601: 0.299 R + 0.587 G + 0.114 B) in all channels."""

    stage = "lr"

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        weights = torch.tensor([0.299, 0.587, 0.114]).to(image)
        return torch.einsum("c,chw->hw", weights, image).expand(image.shape).clone()


class HiddenBlock:
    """Blackens one rectangle at a random place, without telling the search. `side`: its height
    and width as a part of the image's, from 0 to 1."""

    stage = "lr"

    def __init__(self, side: float = 0.25) -> None:
        self.side = in_range("degradation.block_mask.side", side, 0, 1)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        height, width = (round(self.side * size) for size in image.shape[-2:])
        top = int(torch.randint(image.shape[-2] - height + 1, (), generator=rng))
        left = int(torch.randint(image.shape[-1] - width + 1, (), generator=rng))
        image = image.clone()
        image[:, top : top + height, left : left + width] = 0
        return image


class HiddenPixels:
    """Blackens each pixel with probability `rate`, without telling the search."""

    stage = "lr"

    def __init__(self, rate: float = 0.25) -> None:
        self.rate = in_range("degradation.random_mask.rate", rate, 0, 1)

    def __call__(self, image: Float[Tensor, "3 H W"], rng: torch.Generator) -> Tensor:
        hidden = torch.rand(image.shape[-2:], generator=rng) < self.rate
        return image.masked_fill(hidden.to(image.device), 0)


def quantise(image: Tensor) -> Tensor:
    """The image as 8 bits a channel hold it: clamped to [0, 1] and rounded to k / 255."""
    return (image.clamp(0, 1) * 255).round() / 255


def jpeg(image: Float[Tensor, "3 H W"], quality: int) -> Tensor:
    """The image after Pillow's JPEG encoder and decoder."""
    import numpy as np
    from PIL import Image

    levels = (quantise(image.float()) * 255).byte().permute(1, 2, 0).cpu().numpy()
    buffer = BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
    return decoded.to(image) / 255
