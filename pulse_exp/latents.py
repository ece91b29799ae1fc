"""Latent spaces: the coordinates in which a search moves, and how they become style vectors.

Every latent keeps its variables in a dict of tensors with the row first. `latent` is there
always, `[B, n, d]`: n vectors of d coordinates.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.generators.edits import feature_shapes, synthesis_with
from pulse_exp.rows import Rows, where
from pulse_exp.seeding import random_generator

Variables = Mapping[str, Tensor]
log = logging.getLogger(__name__)


@dataclass
class StyleStatistics:
    """What the mapping network does to standard normal latents, estimated from many draws.

    v is the style vector with the mapping's last LeakyReLU undone, which makes it nearly Gaussian
    (Menon et al. 2020, appendix; Zhu et al. 2020).

    Attributes:
        mean, std: of v, `[w_dim]`.
        variances, directions: eigenvalues `[w_dim]`, descending, and eigenvectors as columns
            `[w_dim, w_dim]` of v's covariance.
        w_mean: of the style vectors themselves `[w_dim]`.
    """

    mean: Tensor
    std: Tensor
    variances: Tensor
    directions: Tensor
    w_mean: Tensor


def fingerprint(generator: Generator) -> str:
    """16 hex digits of a generator's architecture and mapping network."""
    digest = hashlib.blake2b(f"{generator.architecture}{generator.config}".encode(), digest_size=8)
    probe = torch.randn(4, generator.z_dim, generator=random_generator("fingerprint"))
    with torch.no_grad():
        w = generator.mapping(probe.to(next(generator.parameters()).device))[:, 0]
    # Rounded: the last bits differ between machines, the network does not.
    digest.update(str([f"{x:.3e}" for x in w.float().flatten()[:64].tolist()]).encode())
    return digest.hexdigest()


def style_statistics(generator: Generator, draws: int) -> StyleStatistics:
    """Statistics of `draws` style vectors: computed once for each generator, kept in the cache."""
    from filelock import FileLock
    from safetensors.torch import load_file, save_file

    from pulse_exp.generators.weights import cache_folder

    folder = cache_folder() / "statistics"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{generator.architecture}-{fingerprint(generator)}-{draws}.safetensors"
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            tensors = vars(estimate_statistics(generator, draws))
            part = path.with_suffix(".part")
            save_file({name: t.contiguous() for name, t in tensors.items()}, part)
            part.replace(path)
        tensors = load_file(path)
    device = next(generator.parameters()).device
    return StyleStatistics(**{name: tensor.to(device) for name, tensor in tensors.items()})


@torch.no_grad()
def estimate_statistics(generator: Generator, draws: int, chunk: int = 8192) -> StyleStatistics:
    """The statistics from seeded draws; sums are kept in float64."""
    from rich.progress import track

    device = next(generator.parameters()).device
    rng = random_generator("style statistics")
    d = generator.w_dim
    total, w_total = torch.zeros(2, d, dtype=torch.float64)
    products = torch.zeros(d, d, dtype=torch.float64)
    chunks = [min(chunk, draws - start) for start in range(0, draws, chunk)]
    description = f"statistics of {draws:,} style vectors (once)"
    for size in track(chunks, description, transient=True, disable=draws * d < 2e7):
        z = torch.randn(size, generator.z_dim, generator=rng)
        w = generator.mapping(z.to(device))[:, 0]
        v = F.leaky_relu(w, 1 / generator.mapping_slope).double().cpu()
        w_total += w.double().cpu().sum(0)
        total += v.sum(0)
        products += v.T @ v
    mean = total / draws
    covariance = (products - draws * torch.outer(mean, mean)) / (draws - 1)
    variances, directions = torch.linalg.eigh(covariance)
    return StyleStatistics(
        mean=mean.float(),
        std=covariance.diagonal().clamp(min=1e-12).sqrt().float(),
        variances=variances.flip(0).clamp(min=1e-12).float(),
        directions=directions.flip(1).float(),
        w_mean=(w_total / draws).float(),
    )


@torch.no_grad()
def style_moments(generator: Generator, draws: int = 10_000) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[w_dim]` of the style vectors, from seeded draws."""
    device = next(generator.parameters()).device
    z = torch.randn(draws, generator.z_dim, generator=random_generator("style moments"))
    w = generator.mapping(z.to(device))[:, 0]
    return w.mean(0), w.std(0).clamp(min=1e-6)


class Latent:
    """A latent space.

    Attributes:
        start_at: "random" or "mean".
        draws: how many random starts a search chooses from by their downscaling error.
    """

    def __init__(self, generator: Generator, start: str = "random", draws: int = 1) -> None:
        # Without a style space the mean is the zero input, far from every sample: DCGAN's first
        # layer is dead there and its gradient exactly zero.
        self.start_at = "random" if generator.num_ws == 1 else start
        self.draws = draws
        self.num_ws, self.z_dim, self.w_dim = generator.num_ws, generator.z_dim, generator.w_dim
        self.mapping, self.slope = generator.mapping, generator.mapping_slope
        self.device = next(generator.parameters()).device

    def start(self, rngs: Sequence[torch.Generator], restarts: Sequence[int]) -> dict[str, Tensor]:
        """The first variables of one row for each random generator and number of a restart.

        With `start="mean"` an image's first search starts there; its further restarts would
        find the same again, so they start at random, as all do without a style space.
        """
        variables = self.random(rngs)
        if self.start_at == "mean":
            first = torch.tensor([restart == 0 for restart in restarts], device=self.device)
            variables = where(first, self.mean(len(rngs)), variables)
        return variables

    def mean(self, batch: int) -> dict[str, Tensor]:
        """The centre of the space."""
        raise NotImplementedError

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """A draw from the generator's own distribution in these coordinates."""
        raise NotImplementedError

    def redraw(self, rngs: Sequence[torch.Generator], progress: Sequence[float]) -> Rows:
        """Randomness that is fresh at every step, for spaces that have any; the other methods
        find it among their `variables`.

        Args:
            rngs: one for each row.
            progress: how much of its search each row has behind it, in [0, 1].
        """
        return {}

    def coordinates(self, variables: Variables) -> Float[Tensor, "B n d"]:
        """What priors look at."""
        return variables["latent"]

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        """The style vectors."""
        raise NotImplementedError

    def image(
        self, generator: Generator, variables: Variables, noise: list[Tensor] | None
    ) -> Float[Tensor, "B 3 R R"]:
        return self.image_from(self.ws(variables), generator, variables, noise)

    def image_from(
        self,
        ws: Float[Tensor, "B num_ws w_dim"],
        generator: Generator,
        variables: Variables,
        noise: list[Tensor] | None,
    ) -> Float[Tensor, "B 3 R R"]:
        """The image of variables whose style vectors are known; spaces that reach deeper than
        style vectors override it."""
        return generator.synthesis(ws, noise)

    def normal(self, rngs: Sequence[torch.Generator], n: int, d: int) -> Float[Tensor, "B n d"]:
        draws = [torch.randn(n, d, generator=rng) for rng in rngs]
        return torch.stack(draws).to(self.device)

    def activate(self, v: Tensor) -> Tensor:
        """The mapping's last LeakyReLU, from v to w."""
        return F.leaky_relu(v, self.slope)


class Z(Latent):
    """The generator's input: one standard normal vector (CSGM)."""

    def mean(self, batch: int) -> dict[str, Tensor]:
        return {"latent": torch.zeros(batch, 1, self.z_dim, device=self.device)}

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"latent": self.normal(rngs, 1, self.z_dim)}

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return self.mapping(variables["latent"][:, 0])


class W(Latent):
    """One style vector for all layers."""

    vectors = 1

    def __init__(self, generator: Generator, statistics_draws: int, **start: object) -> None:
        super().__init__(generator, **start)  # type: ignore[arg-type]
        self.statistics = style_statistics(generator, statistics_draws)

    def mean(self, batch: int) -> dict[str, Tensor]:
        return {"latent": self.statistics.w_mean.expand(batch, self.vectors, -1).clone()}

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        with torch.no_grad():
            z = self.normal(rngs, self.vectors, self.z_dim)
            w = self.mapping(z.flatten(0, 1))[:, 0]
        return {"latent": w.view(len(rngs), self.vectors, -1).clone()}

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return variables["latent"].expand(-1, self.num_ws, -1)


class WPlus(W):
    """A style vector for each layer."""

    def __init__(self, generator: Generator, statistics_draws: int, **start: object) -> None:
        self.vectors = generator.num_ws
        super().__init__(generator, statistics_draws, **start)


class GaussianizedWPlus(WPlus):
    """PULSE's space: u with ws = LeakyReLU₀.₂(u · std + mean), a vector for each layer."""

    def mean(self, batch: int) -> dict[str, Tensor]:
        return {"latent": torch.zeros(batch, self.vectors, self.w_dim, device=self.device)}

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"latent": self.normal(rngs, self.vectors, self.w_dim)}

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return self.activate(variables["latent"] * self.statistics.std + self.statistics.mean)


class WhitenedW(Latent):
    """P-norm space (Zhu et al. 2020): w with its last LeakyReLU undone, PCA-whitened; one vector.

    In these coordinates the generator's distribution is close to a standard Gaussian.
    """

    def __init__(self, generator: Generator, statistics_draws: int, **start: object) -> None:
        super().__init__(generator, **start)  # type: ignore[arg-type]
        statistics = style_statistics(generator, statistics_draws)
        self.centre = statistics.mean
        self.basis = statistics.directions * statistics.variances.sqrt()

    def mean(self, batch: int) -> dict[str, Tensor]:
        return {"latent": torch.zeros(batch, 1, self.w_dim, device=self.device)}

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"latent": self.normal(rngs, 1, self.w_dim)}

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        w = self.activate(self.coordinates(variables) @ self.basis.T + self.centre)
        return w.expand(-1, self.num_ws, -1)


class WhitenedWPlus(WhitenedW):
    """A whitened vector that all layers share plus an offset for each layer, both variables."""

    def mean(self, batch: int) -> dict[str, Tensor]:
        return self.with_offset(super().mean(batch))

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return self.with_offset(super().random(rngs))

    def with_offset(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        batch = len(variables["latent"])
        offset = torch.zeros(batch, self.num_ws, self.w_dim, device=self.device)
        return {**variables, "offset": offset}

    def coordinates(self, variables: Variables) -> Float[Tensor, "B n d"]:
        return variables["latent"] + variables["offset"]


class PerturbedW(W):
    """w with Gaussian noise that fades out, so that the search first looks around (StyleGAN2's
    projector: Karras et al. 2020, appendix D).

    Args:
        perturbation: the noise's first standard deviation, in units of the style vectors' typical
            distance from their mean divided by sqrt(w_dim).
        fading: the share of the steps after which it is gone; it falls as a square.
    """

    def __init__(
        self,
        generator: Generator,
        statistics_draws: int,
        perturbation: float,
        fading: float,
        **start: object,
    ) -> None:
        super().__init__(generator, statistics_draws, **start)
        self.perturbation, self.fading = perturbation, fading
        self.typical = style_moments(generator)[1].norm()

    def redraw(self, rngs: Sequence[torch.Generator], progress: Sequence[float]) -> Rows:
        left = [max(0.0, 1 - share / self.fading) ** 2 for share in progress]
        strength = self.perturbation * self.typical * torch.tensor(left, device=self.device)
        return {"perturbation": self.normal(rngs, 1, self.w_dim) * strength[:, None, None]}

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return super().ws({"latent": variables["latent"] + variables["perturbation"]})


class WPlusPlus(W):
    """w, an offset for each layer (w+), and one for each filter (w++: Poirier-Ginter & Lalonde
    2023).

    In w++ every filter has a style vector of its own, of which only the part along the filter's
    row of the affine layer has an effect or a gradient. `filters` `[B, F, 1]` holds that part, its
    length along the unit row: the same search with as many numbers as there are filters.

    Raises:
        UserError: the generator's styles cannot be reached.
    """

    def __init__(self, generator: Generator, statistics_draws: int, **start: object) -> None:
        super().__init__(generator, statistics_draws, **start)
        layers = generator.style_layers()
        if not layers:
            raise UserError(
                f"latent=w_plus_plus: {generator.architecture} has no filter-wise styles to reach; "
                "choose latent=w_plus"
            )
        self.lengths = [layer.weight.detach().norm(dim=1) for layer in layers]  # type: ignore[union-attr, operator]

    def mean(self, batch: int) -> dict[str, Tensor]:
        return self.with_offsets(super().mean(batch))

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return self.with_offsets(super().random(rngs))

    def with_offsets(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        w = variables["latent"]
        filters = sum(len(length) for length in self.lengths)
        return {
            **variables,
            "offset": w.new_zeros(len(w), self.num_ws, self.w_dim),
            "filters": w.new_zeros(len(w), filters, 1),
        }

    def coordinates(self, variables: Variables) -> Float[Tensor, "B n d"]:
        return variables["latent"] + variables["offset"]

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return self.coordinates(variables)

    def image_from(
        self,
        ws: Float[Tensor, "B num_ws w_dim"],
        generator: Generator,
        variables: Variables,
        noise: list[Tensor] | None,
    ) -> Float[Tensor, "B 3 R R"]:
        parts = variables["filters"][..., 0].split([len(length) for length in self.lengths], dim=1)
        styles = {
            i: part * length
            for i, (part, length) in enumerate(zip(parts, self.lengths, strict=True))
        }
        return synthesis_with(generator, ws, noise, styles=styles)


class IntermediateLayers(GaussianizedWPlus):
    """PULSE's space and the features between layers (ILO: Daras et al. 2021).

    The variable `features_<layer>` `[B, C, h, w]` is added to what that layer gives, so it starts
    at 0 whatever the earlier variables became, and a ball around its start is a ball around 0.

    Args:
        layers: indices of the generator's feature layers, the coarsest is 0.

    Raises:
        UserError: the generator has no such layers.
    """

    def __init__(
        self, generator: Generator, statistics_draws: int, layers: Sequence[int], **start: object
    ) -> None:
        super().__init__(generator, statistics_draws, **start)
        count = len(generator.feature_layers())
        if any(not 0 <= layer < count for layer in layers):
            remedy = f"choose from 0 to {count - 1}" if count else "choose another latent"
            raise UserError(
                f"latent.layers={list(layers)}: {generator.architecture} has {count} layers whose "
                f"features can be reached; {remedy}"
            )
        shapes = feature_shapes(generator)
        self.shapes = {layer: shapes[layer] for layer in layers}

    def mean(self, batch: int) -> dict[str, Tensor]:
        return self.with_features(super().mean(batch))

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return self.with_features(super().random(rngs))

    def with_features(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        w = variables["latent"]
        features = {
            f"features_{layer}": w.new_zeros(len(w), *shape) for layer, shape in self.shapes.items()
        }
        return {**variables, **features}

    def image_from(
        self,
        ws: Float[Tensor, "B num_ws w_dim"],
        generator: Generator,
        variables: Variables,
        noise: list[Tensor] | None,
    ) -> Float[Tensor, "B 3 R R"]:
        features = {layer: variables[f"features_{layer}"] for layer in self.shapes}
        return synthesis_with(generator, ws, noise, features=features)
