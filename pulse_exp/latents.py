"""Latent spaces: the coordinates in which a search moves, and how they become style vectors.

Every latent keeps its variables in a dict of tensors with the row first. `latent` is there
always, `[B, n, d]`: n vectors of d coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.generators.edits import feature_shapes, synthesis_with
from pulse_exp.rows import Rows, where
from pulse_exp.schedules import hold
from pulse_exp.sensitivity import low_res_sensitivity
from pulse_exp.style_statistics import style_moments, style_spreads, style_statistics

Variables = Mapping[str, Tensor]

COARSE_LAYERS = 3 / 8
"""The share of a generator's layers that shape a face: of 16 the first six, up to 32 pixels a side.
The others draw its skin and hair."""


class Latent:
    """A latent space.

    Attributes:
        start_at: "random", "mean" or "estimate".
        draws: how many starts a search chooses from by their distance to the input.
        corrections: how many times the nearest of them are corrected from their images.
        units: of the coordinates of some variables `[n, d]`, in which optimizers count.
    """

    units: Mapping[str, Tensor] = MappingProxyType({})

    def __init__(
        self, generator: Generator, start: str = "random", draws: int = 1, corrections: int = 0
    ) -> None:
        # Without a style space the mean is the zero input, far from every sample: DCGAN's first
        # layer is dead there and its gradient exactly zero.
        self.start_at = "random" if generator.num_ws == 1 and start == "mean" else start
        self.draws, self.corrections = draws, corrections
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

    def between(
        self, styles: Float[Tensor, "N w_dim"], weights: Float[Tensor, "B N"]
    ) -> dict[str, Tensor]:
        """The first variables of rows that begin at weighted sums of known latents.

        Args:
            styles: the latents, as style vectors.
            weights: of each of them, for each row; they sum to 1.
        """
        known = self.styled(styles.to(self.device))
        # Row by row: the rounding of a product of matrices depends on how many rows there are.
        latent = [torch.tensordot(row, known, 1) for row in weights.to(known)]
        return {**self.mean(len(weights)), "latent": torch.stack(latent)}

    def styled(self, styles: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N n d"]:
        """The latents of style vectors that all layers share."""
        raise NotImplementedError

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

    def held(self, rates: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The variables' learning rates over the steps `[steps]`, 0 for as long as the space keeps
        a variable where it began."""
        return rates

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
        """The image of variables whose style vectors are known."""
        return synthesis_with(generator, ws, noise, **self.edits(variables))

    def edits(self, variables: Variables) -> dict[str, dict[int, Tensor]]:
        """The `styles` and `features` of `synthesis_with`, of spaces that are more than style
        vectors."""
        return {}

    def normal(self, rngs: Sequence[torch.Generator], n: int, d: int) -> Float[Tensor, "B n d"]:
        draws = [torch.randn(n, d, generator=rng) for rng in rngs]
        return torch.stack(draws).to(self.device)

    def activate(self, v: Tensor) -> Tensor:
        """The mapping's last LeakyReLU, from v to w."""
        return F.leaky_relu(v, self.slope)

    def deactivate(self, w: Tensor) -> Tensor:
        """Its inverse, from w to v."""
        return F.leaky_relu(w, 1 / self.slope)


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

    def styled(self, styles: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N n d"]:
        return styles[:, None].expand(-1, self.vectors, -1)

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

    def styled(self, styles: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N n d"]:
        u = (self.deactivate(styles) - self.statistics.mean) / self.statistics.std
        return u[:, None].expand(-1, self.vectors, -1)

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
        self.whiten = statistics.directions / statistics.variances.sqrt()

    def mean(self, batch: int) -> dict[str, Tensor]:
        return {"latent": torch.zeros(batch, 1, self.w_dim, device=self.device)}

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return {"latent": self.normal(rngs, 1, self.w_dim)}

    def styled(self, styles: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N n d"]:
        return ((self.deactivate(styles) - self.centre) @ self.whiten)[:, None]

    def ws(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return self.ws_at(self.coordinates(variables))

    def ws_at(self, coordinates: Float[Tensor, "B n d"]) -> Float[Tensor, "B num_ws w_dim"]:
        w = self.activate(coordinates @ self.basis.T + self.centre)
        return w.expand(-1, self.num_ws, -1)


class WhitenedWPlus(WhitenedW):
    """A whitened vector that all layers share plus an offset for each layer, all variables.

    `offset_coarse` `[B, n, w_dim]` are those of the first `COARSE_LAYERS`, `offset_fine` those of
    the others.

    Args:
        released: the share of a search's steps after which the fine layers' offsets move: whatever
            the face can explain is left to it, and not drawn as folds and meshes of skin. Their
            steps then grow for half as long, those of the coarse layers from the first step on: a
            face that all layers share is always whole, and its mouth is to be shut before theirs.
    """

    def __init__(
        self, generator: Generator, statistics_draws: int, released: float, **start: object
    ) -> None:
        super().__init__(generator, statistics_draws, **start)
        self.released = released
        self.num_coarse = round(COARSE_LAYERS * self.num_ws)

    def mean(self, batch: int) -> dict[str, Tensor]:
        return self.with_offsets(super().mean(batch))

    def random(self, rngs: Sequence[torch.Generator]) -> dict[str, Tensor]:
        return self.with_offsets(super().random(rngs))

    def with_offsets(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        latent, n = variables["latent"], self.num_coarse
        coarse, fine = (latent.new_zeros(len(latent), k, self.w_dim) for k in (n, self.num_ws - n))
        return {**variables, "offset_coarse": coarse, "offset_fine": fine}

    def held(self, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        begins = {"offset_coarse": 0.0, "offset_fine": self.released}
        rise = self.released / 2
        return {**rates, **{name: hold(rates[name], at, rise) for name, at in begins.items()}}

    def offsets(self, variables: Variables) -> Float[Tensor, "B num_ws w_dim"]:
        return torch.cat([variables["offset_coarse"], variables["offset_fine"]], dim=1)

    def coordinates(self, variables: Variables) -> Float[Tensor, "B n d"]:
        return variables["latent"] + self.offsets(variables)


class PreconditionedWPlus(WhitenedWPlus):
    """The same space, turned and counted in the units that a low-res image gives it.

    Whitened coordinates may be turned as one likes. Here the shared vector and every layer's offset
    lie along the principal directions of what the low-res image sees of them, and the optimizer's
    unit along a direction is shorter the more is seen: 1 / sqrt(1 + strength / `resolved`). A rule
    such as Adam, which treats each coordinate by itself, then moves them all alike, while
    distances, and so priors, are what they were.

    Args:
        sensitivity_draws: of the generator, from which the directions are worked out once.
        resolved: the strength, a mean square change of a low-res pixel, at which a unit is
            1 / sqrt(2).
    """

    def __init__(
        self,
        generator: Generator,
        statistics_draws: int,
        released: float,
        sensitivity_draws: int,
        resolved: float,
        **start: object,
    ) -> None:
        super().__init__(generator, statistics_draws, released, **start)
        space = f"whitened-{statistics_draws}"
        found = low_res_sensitivity(generator, self.ws_at, sensitivity_draws, space)
        self.shared, self.layers = found.directions[-1], found.directions[:-1]
        units = (1 + found.strengths / resolved).rsqrt()
        coarse, fine = units[: self.num_coarse], units[self.num_coarse : -1]
        self.units = {"latent": units[-1:], "offset_coarse": coarse, "offset_fine": fine}

    def styled(self, styles: Float[Tensor, "N w_dim"]) -> Float[Tensor, "N n d"]:
        return super().styled(styles) @ self.shared

    def coordinates(self, variables: Variables) -> Float[Tensor, "B n d"]:
        offsets = torch.einsum("lij,blj->bli", self.layers, self.offsets(variables))
        return variables["latent"] @ self.shared.T + offsets


class PreconditionedWPlusPlus(PreconditionedWPlus):
    """The same space, and a little freedom for each filter: its style may depart from what the
    vectors make of it.

    `filters` `[B, F, 1]` counts that in units of `filter_spread` times the standard deviation of
    the filter's style over the generator's draws (the style space of Wu et al. 2021). They move
    together with the fine layers' offsets. A generator whose styles cannot be reached has none.

    Args:
        filter_spread: the unit, as a share of the standard deviation.
    """

    def __init__(self, generator: Generator, filter_spread: float, **space: object) -> None:
        super().__init__(generator, **space)  # type: ignore[arg-type]
        self.filter_units = [filter_spread * spread for spread in style_spreads(generator)]

    def with_offsets(self, variables: dict[str, Tensor]) -> dict[str, Tensor]:
        variables, w = super().with_offsets(variables), variables["latent"]
        if not self.filter_units:
            return variables
        filters = sum(len(unit) for unit in self.filter_units)
        return {**variables, "filters": w.new_zeros(len(w), filters, 1)}

    def held(self, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        after = super().held(rates)
        if "filters" in after:
            after["filters"] = hold(rates["filters"], self.released, self.released / 2)
        return after

    def edits(self, variables: Variables) -> dict[str, dict[int, Tensor]]:
        if not self.filter_units:
            return {}
        return {"styles": by_layer(variables["filters"], self.filter_units)}


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

    def edits(self, variables: Variables) -> dict[str, dict[int, Tensor]]:
        return {"styles": by_layer(variables["filters"], self.lengths)}


def by_layer(filters: Float[Tensor, "B F 1"], units: Sequence[Tensor]) -> dict[int, Tensor]:
    """The offsets `[B, C]` of each style layer's outputs, from numbers in units of its filters."""
    parts = filters[..., 0].split([len(unit) for unit in units], dim=1)
    return {layer: part * unit for layer, (part, unit) in enumerate(zip(parts, units, strict=True))}


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

    def edits(self, variables: Variables) -> dict[str, dict[int, Tensor]]:
        return {"features": {layer: variables[f"features_{layer}"] for layer in self.shapes}}
