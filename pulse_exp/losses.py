"""Data terms: how far the downscaled result is from the low-res input, one value a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.objective import Point, Term
from pulse_exp.rows import Rows


class PixelLoss(Term):
    """The mean over pixels and channels of a penalty on their differences.

    Args:
        weight: factor on the mean.
        floor: "none", or "eps": the loss is constant, so without a gradient, below the value that
            differences of sqrt(eps) everywhere would have. For L2 that is PULSE's clamp at eps,
            taken a row.
    """

    def __init__(self, weight: float, floor: str) -> None:
        self.weight, self.floor = weight, floor

    def __call__(self, point: Point, state: Rows) -> Tensor:
        value = self.penalty(point.sr_lr - point.lr).flatten(1).mean(1)
        if self.floor == "eps":
            least = self.penalty(torch.tensor(point.eps**0.5, dtype=torch.float64))
            value = value.clamp(min=float(least))
        return value

    def penalty(self, difference: Tensor) -> Tensor:
        """Of each difference."""
        raise NotImplementedError


class L2(PixelLoss):
    """The square."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.square()


class L1(PixelLoss):
    """The absolute value."""

    def penalty(self, difference: Tensor) -> Tensor:
        return difference.abs()


class Huber(PixelLoss):
    """Half the square up to `delta`, growing linearly beyond (Huber 1964); `delta` is in units of
    the image, which lies in [0, 1]."""

    def __init__(self, weight: float, floor: str, delta: float) -> None:
        super().__init__(weight, floor)
        self.delta = delta

    def penalty(self, difference: Tensor) -> Tensor:
        size = difference.abs()
        inner = 0.5 * difference.square()
        return torch.where(size <= self.delta, inner, self.delta * (size - 0.5 * self.delta))


class Lp(PixelLoss):
    """|difference|^p for any p > 0; the tiny constant keeps the gradient finite at 0."""

    def __init__(self, weight: float, floor: str, p: float) -> None:
        super().__init__(weight, floor)
        self.p = p

    def penalty(self, difference: Tensor) -> Tensor:
        return (difference.square() + 1e-12) ** (self.p / 2)


class MultiScale(Term):
    """Mean squared error of the image and of its means over blocks of 2, 4, ... pixels, averaged
    over the scales: coarse differences count at every scale, fine ones only at the first.

    Args:
        scales: how many; blocks that do not fit the image are left out.
    """

    def __init__(self, weight: float, scales: int) -> None:
        self.weight, self.scales = weight, scales

    def __call__(self, point: Point, state: Rows) -> Tensor:
        difference = point.sr_lr - point.lr
        values = [difference.square().flatten(1).mean(1)]
        while len(values) < self.scales and min(difference.shape[-2:]) >= 2:
            difference = F.avg_pool2d(difference, 2)
            values.append(difference.square().flatten(1).mean(1))
        return torch.stack(values).mean(0)


class GaussianLikelihood(Term):
    """-log p(lr | image) up to a constant for white Gaussian noise: Σ difference² / (2 σ²).

    The exact data term of a posterior, for samplers.

    Args:
        std: σ in 8-bit units, as degradation=gaussian_noise has it.
    """

    def __init__(self, std: float) -> None:
        self.std = std / 255

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return (point.sr_lr - point.lr).square().flatten(1).sum(1) / (2 * self.std**2)


class Lpips(Term):
    """LPIPS with VGG's features on the low-res pair (Zhang et al., CVPR 2018), enlarged to 64
    pixels where it is smaller.

    Raises:
        UserError: the packages or the weights are missing, when the search is built.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.network: Any = None

    def prepare(self, generator: Generator) -> None:
        from pulse_exp.metrics.perceptual import REMEDY

        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            network = LearnedPerceptualImagePatchSimilarity(net_type="vgg", normalize=True).net
        except (ImportError, OSError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), repr(error)).rstrip(" .")
            raise UserError(f"loss=lpips cannot be loaded: {reason}; {REMEDY}") from error
        device = next(generator.parameters()).device
        self.network = network.eval().requires_grad_(False).to(device)

    def __call__(self, point: Point, state: Rows) -> Tensor:
        pair = []
        for image in (point.sr_lr, point.lr):
            if min(image.shape[-2:]) < 64:
                image = F.interpolate(image, size=(64, 64), mode="bicubic", antialias=True)
            pair.append(image.clamp(0, 1))
        return self.network(*pair, normalize=True).flatten()


class ConstrainedL2(Term):
    """μ · L2 / (aim · eps), μ for each row: "the lowest penalty subject to L2 <= level".

    After each step log μ grows by `rate` times log(L2 / level), the latter held within ±1: dual
    ascent on the constraint log L2 <= log level, so that no weight has to be tuned for an image or
    a factor. Near the level the steps become small, and μ settles where the constraint holds. The
    level is aim · eps, or the variance of the white noise in what is left of the input, where that
    is more: closer the image would only follow the noise (Morozov's discrepancy principle).

    Where starts are estimated, the face comes first: over the share `attended` of the steps L2 is
    of pixels as `Point.counts` has them, by the inverse of their variance over the generator's
    draws at first and all alike at the end. The constraint speaks of all pixels alike throughout.
    """

    def __init__(self, start: float, rate: float, aim: float, attended: float) -> None:
        self.first, self.rate, self.aim, self.attended = start, rate, aim, attended

    def start(self, variables: Mapping[str, Tensor]) -> Rows:
        batch = len(next(iter(variables.values())))
        return {"multiplier": torch.full((batch,), self.first)}

    def __call__(self, point: Point, state: Rows) -> Tensor:
        error = point.lr_mse
        if point.counts is not None:
            squares = (point.sr_lr - point.lr).square()
            error = (point.counts * squares).flatten(1).mean(1)
        return state["multiplier"] * error / (self.aim * point.eps)

    def update(self, point: Point, state: Rows) -> Rows:
        level = point.noise.clamp(min=self.aim * point.eps)
        excess = (point.lr_mse.detach() / level).log().clamp(-1, 1)
        return {"multiplier": state["multiplier"] * (self.rate * excess).exp()}
