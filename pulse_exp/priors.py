"""Priors over the latent: a set to stay in, a penalty to pay, or both.

Those of Gaussian coordinates read `point.coordinates`; those of the generator's own style vectors
read `point.ws` and so mean the same in every latent space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.objective import Point, Term
from pulse_exp.optimizers import norms
from pulse_exp.rows import Rows
from pulse_exp.style_statistics import style_moments, style_statistics

Variables = Mapping[str, Tensor]


class Prior(Term):
    """A term that reads the latent alone, and a projection applied to the start and each step."""

    reads_image = False

    def __call__(self, point: Point, state: Rows) -> Tensor:
        """The penalty of each row before the weight; none unless it says so."""
        return torch.zeros_like(point.lr_mse)

    def project(self, variables: Variables, state: Rows) -> Variables:
        """The nearest variables that the prior allows; by default all are allowed."""
        return variables


# --- sets --------------------------------------------------------------------------------------


class Sphere(Prior):
    """Every vector on the sphere where a Gaussian in high dimension has its mass (Menon et al.
    2020, section 3.2).

    Args:
        radius: of the sphere around 0; None is sqrt(d).
    """

    def __init__(self, radius: float | None) -> None:
        self.radius = radius

    def project(self, variables: Variables, state: Rows) -> Variables:
        vectors = variables["latent"]
        radius = vectors.shape[-1] ** 0.5 if self.radius is None else self.radius
        return {**variables, "latent": radius * vectors / vectors.norm(dim=-1, keepdim=True)}


class L1Ball(Prior):
    """Every variable, flattened, within an L1 distance of its start (ILO: Daras et al. 2021).

    Args:
        of: the variables' names, or what their names begin with before a number.
        radius: the largest sum of absolute changes.
    """

    def __init__(self, of: Sequence[str], radius: float) -> None:
        self.of, self.radius = set(of), radius

    def start(self, variables: Variables) -> Rows:
        named = {k: v for k, v in variables.items() if {k, k.split("_")[0]} & self.of}
        return {name: value.clone() for name, value in named.items()}

    def project(self, variables: Variables, state: Rows) -> Variables:
        moved = {}
        for name, start in state.items():
            change = (variables[name] - start).flatten(1)
            moved[name] = start + onto_l1_ball(change, self.radius).view_as(start)
        return {**variables, **moved}


def onto_l1_ball(x: Float[Tensor, "B N"], radius: float) -> Float[Tensor, "B N"]:
    """The nearest point with an L1 norm of at most `radius`, for each row.

    Values shrink towards 0 by one threshold a row, found from the sorted sizes (Duchi et al.
    2008, figure 1).
    """
    size = x.abs()
    largest = size.sort(dim=1, descending=True).values
    excess = largest.cumsum(1) - radius
    place = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
    count = (largest * place > excess).sum(1, keepdim=True).clamp(min=1)
    threshold = excess.gather(1, count - 1) / count
    inside = size.sum(1, keepdim=True) <= radius
    return torch.where(inside, x, x.sign() * (size - threshold).clamp(min=0))


# --- penalties on the coordinates --------------------------------------------------------------


class Gaussian(Prior):
    """Sum of the squared coordinates: at a weight of 1/2 the negative log density of a unit
    Gaussian (CSGM: Bora et al. 2017)."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return point.coordinates.square().flatten(1).sum(1)


class LayeredGaussian(Prior):
    """vector·mean(v²) + mean(c·o²) of a shared vector v and the layers' offsets o; of filters of
    their own, in a latent that has them, each counts as much as a coordinate of v.

    The negative log density of a Gaussian v and Gaussian offsets, up to a factor: one offset has a
    variance of vector·num_ws / c when v has 1. c is `coarse` for the layers that shape a face and
    `fine` for the others, which would draw what they are to explain as folds and meshes of skin. By
    default their offsets are half and an eighth as wide as v (in 16 layers): the layers of one face
    belong together.

    The filters of a row rest while what is left of its input is noise of more than eps: they would
    follow that noise.
    """

    def __init__(self, weight: float, vector: float, coarse: float, fine: float) -> None:
        self.weight, self.vector = weight, vector
        self.coarse, self.fine = coarse, fine

    def __call__(self, point: Point, state: Rows) -> Tensor:
        vector, coarse, fine = (
            point.variables[name].square().mean(2)
            for name in ("latent", "offset_coarse", "offset_fine")
        )
        offsets = torch.cat([self.coarse * coarse, self.fine * fine], dim=1)
        value = self.vector * vector.mean(1) + offsets.mean(1)
        if "filters" in point.variables:
            filters = point.variables["filters"].square().flatten(1).sum(1)
            value = value + self.vector / point.coordinates.shape[-1] * filters
        return value

    def start(self, variables: Variables) -> Rows:
        if "filters" not in variables:
            return {}
        filters = variables["filters"]
        return {"rests": torch.ones(len(filters), dtype=torch.bool, device=filters.device)}

    def update(self, point: Point, state: Rows) -> Rows:
        if "filters" not in point.variables:
            return state
        unmoved = ~point.variables["filters"].detach().flatten(1).any(1)
        return {"rests": unmoved & (point.noise > point.eps)}

    def project(self, variables: Variables, state: Rows) -> Variables:
        if "filters" not in variables:
            return variables
        filters = variables["filters"]
        held = torch.where(state["rests"].view(-1, 1, 1), torch.zeros_like(filters), filters)
        return {**variables, "filters": held}


class Geocross(Prior):
    """GEOCROSS: squared geodesic distance between every two of a row's vectors (PULSE).

    The distance on the sphere is 2·atan2(‖x−y‖, ‖x+y‖) in radians; squared, times d, averaged
    over all ordered pairs (a vector with itself included), divided by 8, as released.

    Args:
        of: "coordinates" (the vectors on the sphere, as the paper defines it) or "styles" (the
            style vectors that they become, as the released code computes it).
    """

    def __init__(self, weight: float, of: str) -> None:
        self.weight, self.of = weight, of

    def __call__(self, point: Point, state: Rows) -> Tensor:
        x = vectors_of(point, self.of)
        first, second = x.unsqueeze(1), x.unsqueeze(2)
        # The small constant keeps the square root's gradient finite for a vector with itself.
        apart = ((first - second).square().sum(-1) + 1e-9).sqrt()
        across = ((first + second).square().sum(-1) + 1e-9).sqrt()
        angle = 2 * torch.atan2(apart, across)
        return (angle.square() * x.shape[-1]).flatten(1).mean(1) / 8


class PairwiseCosine(Prior):
    """Mean of 1 - cos(angle) over all pairs of a row's vectors (BRGM: Marinescu et al. 2020, the
    von Mises prior on the angles between the layers' style vectors).

    Args:
        of: "coordinates" or "styles".
    """

    def __init__(self, weight: float, of: str) -> None:
        self.weight, self.of = weight, of

    def __call__(self, point: Point, state: Rows) -> Tensor:
        x = F.normalize(vectors_of(point, self.of), dim=-1)
        n = x.shape[1]
        others = (x.sum(1).square().sum(-1) - n) / (n * (n - 1))
        return 1 - others


def vectors_of(point: Point, of: str) -> Float[Tensor, "B n d"]:
    """The vectors that a cross term compares."""
    if of == "coordinates":
        return point.coordinates
    assert point.ws is not None
    return point.ws


# --- penalties on the style vectors ------------------------------------------------------------


class PNorm(Prior):
    """Mean square of the style vectors in P-norm space, layer by layer (Zhu et al. 2020): their
    last LeakyReLU undone, centred, PCA-whitened.

    Args:
        statistics_draws: style vectors behind the whitening, kept in the cache.
    """

    def __init__(self, weight: float, statistics_draws: int) -> None:
        self.weight, self.draws = weight, statistics_draws

    def prepare(self, generator: Generator) -> None:
        statistics = style_statistics(generator, self.draws)
        self.centre, self.slope = statistics.mean, generator.mapping_slope
        self.whiten = statistics.directions / statistics.variances.sqrt()

    def __call__(self, point: Point, state: Rows) -> Tensor:
        assert point.ws is not None
        v = F.leaky_relu(point.ws, 1 / self.slope) - self.centre
        return (v @ self.whiten).square().flatten(1).mean(1)


class StyleGaussian(Prior):
    """Mean square of the style vectors, each number in units of its own standard deviation from
    its mean (BRGM: the Gaussian prior on w, without correlations)."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def prepare(self, generator: Generator) -> None:
        self.mean, self.std = style_moments(generator)

    def __call__(self, point: Point, state: Rows) -> Tensor:
        assert point.ws is not None
        return ((point.ws - self.mean) / self.std).square().flatten(1).mean(1)


class Truncation(Prior):
    """Style vectors farther from their mean than `psi` times a typical draw pay for the excess:
    mean over the layers of max(0, distance / typical - psi)².

    The truncation trick (Karras et al. 2019) as a penalty instead of a shrinking.
    """

    def __init__(self, weight: float, psi: float) -> None:
        self.weight, self.psi = weight, psi

    def prepare(self, generator: Generator) -> None:
        self.mean, std = style_moments(generator)
        self.typical = std.norm()

    def __call__(self, point: Point, state: Rows) -> Tensor:
        assert point.ws is not None
        # The small constant keeps the gradient finite at the mean itself.
        distance = ((point.ws - self.mean).square().sum(-1) + 1e-12).sqrt()
        return (distance / self.typical - self.psi).clamp(min=0).square().mean(1)


# --- noise inputs ------------------------------------------------------------------------------


class NoiseDistance(Prior):
    """Sum of the squared changes of the trained noise inputs since their start.

    With a weight of vector / w_dim, where `vector` is that of `LayeredGaussian`, a pixel of noise
    counts as much as a coordinate of the shared vector. The mode of a Gaussian about 0 is a face
    without texture; about maps that are a draw they stay one wherever the input says nothing
    (randomise-then-optimise: Bardsley et al. 2014). Part of a noise option: `noise.weight`.

    Every map keeps the norm that it began with, as a Gaussian in high dimension does: else a few
    large values draw scratches into a face.

    The maps of a row rest where they began while what is left of its input is noise of more than
    eps: trained, they would follow that noise.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def start(self, variables: Variables) -> Rows:
        latent = variables["latent"]
        maps = {name: v.clone() for name, v in variables.items() if name.startswith("noise_")}
        return {**maps, "rests": torch.ones(len(latent), dtype=torch.bool, device=latent.device)}

    def __call__(self, point: Point, state: Rows) -> Tensor:
        total = torch.zeros_like(point.lr_mse)
        for change in self.changes(point.variables, state).values():
            total = total + change.square().flatten(1).sum(1)
        return total

    def update(self, point: Point, state: Rows) -> Rows:
        rests = point.noise > point.eps
        for change in self.changes(point.variables, state).values():
            rests = rests & ~change.detach().flatten(1).any(1)
        return {**state, "rests": rests}

    def project(self, variables: Variables, state: Rows) -> Variables:
        rests = state["rests"].view(-1, 1, 1, 1)
        projected = {}
        for name in self.changes(variables, state):
            start, value = state[name], variables[name]
            kept = value * (norms(start) / norms(value))
            projected[name] = torch.where(rests, start, kept)
        return {**variables, **projected}

    def changes(self, variables: Variables, state: Rows) -> dict[str, Tensor]:
        return {name: variables[name] - start for name, start in state.items() if name != "rests"}


class NoiseAutocorrelation(Prior):
    """Keeps optimised noise inputs noise: their neighbours uncorrelated at every scale, and each
    map of mean 0 and variance 1 after every step (StyleGAN2's projector: Karras et al. 2020,
    appendix D).

    For a map n and its means over blocks of 2, 4, ... down to a side of 8: mean(n · right
    neighbour)² + mean(n · lower neighbour)², summed over scales and maps.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, point: Point, state: Rows) -> Tensor:
        total = torch.zeros_like(point.lr_mse)
        for name, noise in point.variables.items():
            while name.startswith("noise_"):
                for axis in (2, 3):
                    neighbour = noise.roll(1, dims=axis)
                    total = total + (noise * neighbour).flatten(1).mean(1).square()
                if noise.shape[-1] <= 8:
                    break
                # Halved in size and scaled back to variance 1.
                noise = F.avg_pool2d(noise, 2) * 2
        return total

    def project(self, variables: Variables, state: Rows) -> Variables:
        normalised = {}
        for name, noise in variables.items():
            if name.startswith("noise_"):
                centred = noise - noise.mean(dim=(1, 2, 3), keepdim=True)
                power = centred.square().mean(dim=(1, 2, 3), keepdim=True)
                normalised[name] = centred * power.clamp(min=1e-12).rsqrt()
        return {**variables, **normalised}
