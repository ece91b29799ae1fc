"""What a search does with the generator's noise inputs: own maps, random draws, or variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.rows import Rows
from pulse_exp.schedules import hold


class NoiseInputs:
    """The noise inputs of every row, in the order of the layers.

    Args:
        source: "own" (the generator's own maps), "random" (one draw for each row, then fixed) or
            "resampled" (a fresh draw at each step).
        trained: the first so many inputs are search variables; "visible" stands for those that have
            no more pixels a side than the low-res image. They start at the generator's own maps
            where these are the source, else at a random draw.
        zeroed: the last so many inputs are zero.
        released: the share of a search's steps after which the trained inputs move.
        weight: what a trained pixel's squared change since the start costs; with one, a map keeps
            its norm (`NoiseDistance`).
        low_res_side: the longer side of the low-res image, in pixels.

    PULSE trains the first five, zeroes the last and draws the others at random.
    """

    def __init__(
        self,
        source: str,
        trained: int | str,
        zeroed: int,
        released: float,
        weight: float,
        low_res_side: int,
    ) -> None:
        self.source, self.trained, self.zeroed = source, trained, zeroed
        self.released, self.weight, self.low_res_side = released, weight, low_res_side

    @property
    def own(self) -> bool:
        """Whether every input is the generator's own."""
        return self.source == "own" and not self.trained and not self.zeroed

    def is_zero(self, generator: Generator, layer: int) -> bool:
        return layer >= len(generator.noise_shapes) - self.zeroed

    def is_trained(self, generator: Generator, layer: int) -> bool:
        if self.is_zero(generator, layer):
            return False
        if isinstance(self.trained, str):
            return max(generator.noise_shapes[layer]) <= self.low_res_side
        return layer < self.trained

    def start(
        self, generator: Generator, rngs: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Rows]:
        """The variables `noise_<layer>` `[B, 1, H, W]` of new rows, and their constants."""
        variables: dict[str, Tensor] = {}
        constants: Rows = {}
        for layer, shape in enumerate(generator.noise_shapes):
            name, trained = f"noise_{layer}", self.is_trained(generator, layer)
            if self.source == "own":
                if trained:
                    own = generator.own_noise(layer).detach().cpu()
                    variables[name] = own.expand(len(rngs), -1, -1, -1).clone()
                continue
            # Drawn even where it is zero, so that the other maps do not depend on `zeroed`.
            draw = torch.stack([torch.randn(1, *shape, generator=rng) for rng in rngs])
            if trained:
                variables[name] = draw
            elif self.source == "random" and not self.is_zero(generator, layer):
                constants[name] = draw
        return variables, constants

    def held(self, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The variables' learning rates over the steps `[steps]`, those of trained inputs 0 until
        they are released."""
        after = dict(rates)
        for name, rate in rates.items():
            if name.startswith("noise_"):
                after[name] = hold(rate, self.released)
        return after

    def redraw(self, generator: Generator, rngs: Sequence[torch.Generator]) -> Rows:
        """Fresh constants for one step of `source="resampled"`; empty for the other sources."""
        if self.source != "resampled":
            return {}
        return {
            f"noise_{layer}": torch.stack([torch.randn(1, *shape, generator=rng) for rng in rngs])
            for layer, shape in enumerate(generator.noise_shapes)
            if not self.is_trained(generator, layer) and not self.is_zero(generator, layer)
        }

    def inputs(
        self, generator: Generator, variables: Mapping[str, Tensor], constants: Rows
    ) -> list[Tensor] | None:
        """The noise argument of `generator.synthesis`: None for its own maps throughout."""
        if self.own or not generator.noise_shapes:
            return None
        some = next(iter(variables.values()))
        noise = []
        for layer, shape in enumerate(generator.noise_shapes):
            name = f"noise_{layer}"
            if name in variables:
                noise.append(variables[name])
            elif self.is_zero(generator, layer):
                noise.append(torch.zeros(1, 1, *shape, device=some.device, dtype=some.dtype))
            elif name in constants:
                noise.append(constants[name])
            else:
                noise.append(generator.own_noise(layer))
        return noise
