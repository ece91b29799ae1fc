"""Priors over the latent coordinates: a set to stay in, a penalty to pay, or both."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pulse_exp.objective import Point, Term
from pulse_exp.rows import Rows

Variables = Mapping[str, Tensor]


class Prior(Term):
    """A term that reads the latent alone, and a projection applied to the start and each step."""

    reads_image = False

    def project(self, variables: Variables) -> Variables:
        """The nearest variables that the prior allows; by default all are allowed."""
        return variables


class Sphere(Prior):
    """Every vector on the sphere of radius sqrt(d), where a Gaussian in high dimension has its
    mass (Menon et al. 2020, section 3.2)."""

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return torch.zeros_like(point.lr_mse)

    def project(self, variables: Variables) -> Variables:
        vectors = variables["latent"]
        radius = vectors.shape[-1] ** 0.5
        return {**variables, "latent": radius * vectors / vectors.norm(dim=-1, keepdim=True)}


class Gaussian(Prior):
    """Sum of the squared coordinates, the negative log density of a unit Gaussian up to a factor
    (CSGM: Bora et al. 2017)."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, point: Point, state: Rows) -> Tensor:
        return point.coordinates.square().flatten(1).sum(1)


class LayeredGaussian(Prior):
    """mean(v²) + mean(c·o²) of a shared vector v and the layers' offsets o.

    c rises linearly from `coarse` at the first layer to `fine` at the last: fine layers, which
    the low-res input hardly sees, are kept nearer to the shared vector.
    """

    def __init__(self, weight: float, coarse: float, fine: float) -> None:
        self.weight, self.coarse, self.fine = weight, coarse, fine

    def __call__(self, point: Point, state: Rows) -> Tensor:
        vector, offset = point.variables["latent"], point.variables["offset"]
        layers = torch.linspace(
            self.coarse, self.fine, offset.shape[1], device=offset.device, dtype=offset.dtype
        )
        penalty = (layers[:, None] * offset.square()).flatten(1).mean(1)
        return vector.square().flatten(1).mean(1) + penalty


class Geocross(Prior):
    """GEOCROSS: squared geodesic distance between every two vectors of a row (PULSE).

    The distance on the sphere is 2·atan2(‖x−y‖, ‖x+y‖) in radians; squared, times d, averaged
    over all ordered pairs (a vector with itself included), divided by 8, as released.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, point: Point, state: Rows) -> Tensor:
        x = point.coordinates
        first, second = x.unsqueeze(1), x.unsqueeze(2)
        # The small constant keeps the square root's gradient finite for a vector with itself.
        apart = ((first - second).square().sum(-1) + 1e-9).sqrt()
        across = ((first + second).square().sum(-1) + 1e-9).sqrt()
        angle = 2 * torch.atan2(apart, across)
        return (angle.square() * x.shape[-1]).flatten(1).mean(1) / 8
