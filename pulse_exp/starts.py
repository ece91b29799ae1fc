"""Starts near the input: a latent estimated from some thousand of the generator's own images.

Draws of the generator tell which latents give which low-res images. Those nearest to the input are
faces of its kind; what their mean still lacks is added by linear regression of the latents on the
low-res images, as an ensemble Kalman filter updates a member (Evensen 1994), in which near draws
count for more, and the face for more than what is behind it. It costs no gradient, and the draws,
once made, serve every input, factor and downscaler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.operators import Downscaler
from pulse_exp.operators.separable import Separable
from pulse_exp.seeding import random_generator
from pulse_exp.sharpness import SMALLEST_SIDE, Spectra, blur_beside, log_power
from pulse_exp.style_statistics import kept, synthesis_fingerprint, tracked

STORED_SIDE = 64
"""Pixels a side of a kept draw, at most."""

COMPARED_SIDE = 32
"""Pixels a side at which low-res images are compared, at most."""

SHARPNESS_SIDE = STORED_SIDE // 2
"""Pixels a side at which sharpness is compared, at most: kept draws are sharp at half of theirs."""

ERROR_SHARE = 0.03
"""Variance that the regression does not explain, as a share of the weighted draws' total variance:
the generator is not linear and the draws are few."""

NEIGHBOURS = 512
"""Draws that a regression is of, at most: the nearest to its input."""

REACH = 64
"""It counts them exp(-3 d² / d₆₄²) times, with their squared distances to the input above and that
of the 64th below: what tells dark faces apart is not what tells a dark face from a light one."""

LEAST_VARIANCE = 0.1
"""Of a pixel over the draws, as a share of the mean pixel's: what it counts has a bound."""

NEAREST = 4
"""Draws whose mean a search begins from: a single one leaves its own oddities in the result."""

CANDIDATES = 32
"""Further restarts begin from random ones of so many nearest draws."""


@dataclass
class Draws:
    """Style vectors `[N, w_dim]` and their images in 8 bits `[N, 3, h, w]`."""

    styles: Float[Tensor, "N w_dim"]
    images: UInt8[Tensor, "N 3 h w"]


def generator_draws(generator: Generator, count: int = 1024) -> Draws:
    """`count` draws of the generator: rendered once, kept in the cache.

    Fewer have too few of those who are rare among them; more make a first run longer and starts
    no better, once these are corrected from their own images.
    """
    name = f"draws-{count}-{synthesis_fingerprint(generator)}"
    return Draws(**kept(generator, name, lambda: vars(render_draws(generator.exact, count))))


@torch.no_grad()
def render_draws(generator: Generator, count: int) -> Draws:
    """Seeded draws, in batches of about four million pixels."""
    device = next(generator.parameters()).device
    z = torch.randn(count, generator.z_dim, generator=random_generator("draws")).to(device)
    batch = max(1, 2**22 // generator.resolution**2)
    starts = range(0, count, batch)
    quick = count * generator.resolution**2 < 2**26
    description = f"{count} images of the generator to start from (once)"
    styles, images = [], []
    for start in tracked(starts, description, quick):
        ws = generator.mapping(z[start : start + batch])
        image = generator.synthesis(ws).clamp(0, 1)
        small = pooled(image, STORED_SIDE)
        styles.append(ws[:, 0].cpu())
        images.append((255 * small).round().byte().cpu())
    return Draws(torch.cat(styles), torch.cat(images))


def pooled(images: Tensor, side: int) -> Tensor:
    """Means over blocks, at most `side` of them a side."""
    height, width = images.shape[-2:]
    return F.adaptive_avg_pool2d(images, (min(side, height), min(side, width)))


def measured_enlarged(
    images: Float[Tensor, "B 3 h w"], downscaler: Downscaler, side: int
) -> Tensor:
    """What the downscaler makes of images that are enlarged to `side` × `side` first."""
    if isinstance(downscaler, Separable):
        return downscaler.of_enlarged(images, side)
    return downscaler(F.interpolate(images, size=(side, side), mode="bilinear"))


class Regression:
    """What a difference between low-res images says of the latents of images about an input.

    The regression of latents on the low-res images A `[k, m]` of the draws nearest to the input, by
    its kernel form: W = √S (√S A C Aᵀ √S + r I)⁻¹ √S A C, with both centred at their weighted
    means, the draws' shares, by their nearness, on the diagonal of S and what pixels count on that
    of C. Less its sum over the draws spread by their shares it says, for each number of the
    difference, what a draw counts in the latent's change.

    Who is near, all pixels tell alike: the ground about a dark face tells it from a light one in
    the shade. Whatever they then lack, the face comes first: its mouth is a few pixels of a
    thousand, and a search that starts with another's has to shut it.

    Args:
        draws: whose latents are regressed.
        target: the input.
    """

    def __init__(self, draws: LinearEstimate, target: Float[Tensor, " m"]) -> None:
        self.known, self.counts, self.target = draws.known, draws.counts, target
        squared_distances = draws.squares - 2 * (draws.known @ target) + target @ target
        squares, order = squared_distances.sort(stable=True)
        self.near = order[:NEIGHBOURS]
        self.shares = (-3 * squares / squares[:REACH][-1])[:NEIGHBOURS].softmax(0)
        self.roots = self.shares.sqrt()
        kernel = draws.products[self.near][:, self.near]
        means = kernel @ self.shares
        kernel -= means
        kernel -= (means - self.shares @ means)[:, None]
        kernel *= self.roots
        kernel *= self.roots[:, None]
        kernel.diagonal().add_(ERROR_SHARE * kernel.trace())
        # unchecked: an input that is not finite gives weights that are not, and its row fails
        self.factor = torch.linalg.cholesky_ex(kernel).L

    def __call__(self, difference: Float[Tensor, " m"]) -> Float[Tensor, " N"]:
        """Weights, which sum to 0, of the change of latents that a difference tells of."""
        seen = (self.known @ (self.counts * difference))[self.near]
        seen = self.roots * (seen - self.shares @ seen)
        found = self.roots * torch.cholesky_solve(seen[:, None], self.factor)[:, 0]
        weights = difference.new_zeros(len(self.known))
        weights[self.near] = found - self.shares * found.sum()
        return weights

    def distance(self, reached: Float[Tensor, " m"]) -> Tensor:
        """Of a low-res image to the input: their mean squared difference, as pixels count."""
        return (self.counts * (reached - self.target).square()).mean()


class LinearEstimate:
    """Weights of the draws whose latents, so summed, are a start near a low-res input.

    The weights of an input y are those of the mean of the nearest draws plus what a `Regression`
    about y makes of y less the mean of their low-res images. They sum to 1, so that any coordinates
    in which the latents are close to Gaussian can be summed by them.

    The draws' low-res images also tell how blurred an input is: see `blur`.

    Args:
        draws: of the generator.
        downscaler: what the search assumes of the input.
        resolution: of the generator's images.
    """

    def __init__(self, draws: Draws, downscaler: Downscaler, resolution: int) -> None:
        self.styles, self.is_image = draws.styles, downscaler.is_image
        is_filter = isinstance(downscaler, Separable)
        parts, powers = [], []
        for images in draws.images.split(8):
            measured = measured_enlarged(images.float() / 255, downscaler, resolution)
            parts.append(self.features(measured))
            self.size = [min(COMPARED_SIDE, pixels) for pixels in measured.shape[-2:]]
            if is_filter and min(measured.shape[-2:]) >= SMALLEST_SIDE:
                powers.append(log_power(pooled(measured, SHARPNESS_SIDE)))
        self.known = torch.cat(parts)
        self.squares = self.known.square().sum(1)
        self.counts = self.pixel_counts()
        self.products = (self.known * self.counts) @ self.known.T
        self.sharp = Spectra.of(torch.cat(powers)) if powers else None

    def pixel_counts(self) -> Float[Tensor, " m"]:
        """What the numbers of a low-res image count, 1 on average: all alike if it is no picture.

        Of a picture a pixel counts the inverse square of its variance over the draws. Where images
        are aligned, it varies least in the face, of which latents say most. What never varies, as
        it is hidden, counts nothing.
        """
        if not self.is_image:
            return torch.ones_like(self.known[0])
        variance = self.known.unflatten(1, (3, -1)).var(0).mean(0)
        seen = variance > 0
        counts = (variance / variance[seen].mean()).clamp(min=LEAST_VARIANCE).pow(-2) * seen
        return (counts / counts[seen].mean()).repeat(3)

    def attention(self, size: tuple[int, int]) -> Float[Tensor, "1 1 h w"]:
        """What the pixels of a low-res picture of a size `(h, w)` count for a search that attends
        to the face: the inverse of their variance over the draws, 1 on average."""
        inverse = self.counts.unflatten(0, (3, *self.size))[:1].sqrt()
        return F.interpolate(inverse[None] / inverse[inverse > 0].mean(), size=size)

    def features(self, measured: Tensor) -> Float[Tensor, "B m"]:
        """What is compared: float64 on the host, pictures at a small size."""
        if self.is_image:
            measured = pooled(measured, COMPARED_SIDE)
        return measured.flatten(1).double().cpu()

    def about(self, lr: Float[Tensor, "B 3 h w"]) -> list[Regression]:
        """One for each of the low-res inputs, or of what the downscaler measured."""
        return [Regression(self, target) for target in self.features(lr)]

    def distances(
        self, inputs: Sequence[Regression], sr_lr: Float[Tensor, "B 3 h w"]
    ) -> Float[Tensor, " B"]:
        """Of images that are downscaled to `sr_lr` to the inputs, as pixels count."""
        rows = zip(inputs, self.features(sr_lr), strict=True)
        return torch.stack([near.distance(reached) for near, reached in rows]).to(sr_lr)

    def __call__(
        self,
        inputs: Sequence[Regression],
        rngs: Sequence[torch.Generator],
        first: Sequence[bool],
    ) -> Float[Tensor, "B N"]:
        """The weights of each input.

        Args:
            inputs: the regressions about them.
            rngs: one for each row.
            first: whether a row begins from the nearest draws; else from random near ones.
        """
        rows = zip(inputs, rngs, first, strict=True)
        return torch.stack([self.weights(*row) for row in rows])

    def weights(self, near: Regression, rng: torch.Generator, first: bool) -> Float[Tensor, " N"]:
        begin = near.near[:CANDIDATES]
        order = torch.arange(len(begin)) if first else torch.randperm(len(begin), generator=rng)
        begin = begin[order[:NEAREST]]
        weights = near(near.target - self.known[begin].mean(0))
        weights[begin] += 1 / len(begin)
        return weights

    def correction(
        self, inputs: Sequence[Regression], sr_lr: Float[Tensor, "B 3 h w"]
    ) -> Float[Tensor, "B N"]:
        """Weights, which sum to 0, of what moves an image that is downscaled to `sr_lr` towards
        the input: an iteration of the Kalman update, as the generator is not linear."""
        rows = zip(inputs, self.features(sr_lr), strict=True)
        return torch.stack([near(near.target - reached) for near, reached in rows])

    def blur(self, lr: Float[Tensor, "B 3 h w"]) -> Float[Tensor, " B"] | None:
        """Standard deviation of each input's blur in its pixels, 0 where none is noticed.

        It is looked for at 32 pixels a side, beside the draws: in an input of 128 a blur of 2 is
        noticed. None for masks and random measurements, and below 16 pixels a side.
        """
        if self.sharp is None:
            return None
        small = pooled(lr, SHARPNESS_SIDE)
        return blur_beside(self.sharp, small) * (lr.shape[-1] / small.shape[-1])
