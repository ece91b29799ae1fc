"""What a search does with the generator's noise inputs: own maps, random draws, or variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.rows import Rows


class NoiseInputs:
    """The noise inputs of every row, in the order of the layers.

    Args:
        source: "own" (the generator's own maps), "random" (one draw for each row, then fixed) or
            "resampled" (a fresh draw at each step).
        trained: the first so many inputs are search variables, drawn at random at the start.
        zeroed: the last so many inputs are zero.

    PULSE trains the first five, zeroes the last and draws the others at random.
    """

    def __init__(self, source: str, trained: int, zeroed: int) -> None:
        self.source, self.trained, self.zeroed = source, trained, zeroed

    @property
    def own(self) -> bool:
        """Whether every input is the generator's own."""
        return self.source == "own" and not self.trained and not self.zeroed

    def start(
        self, generator: Generator, rngs: Sequence[torch.Generator]
    ) -> tuple[dict[str, Tensor], Rows]:
        """The variables `noise_<layer>` `[B, 1, H, W]` of new rows, and their constants."""
        variables: dict[str, Tensor] = {}
        constants: Rows = {}
        layers = len(generator.noise_shapes)
        for layer, shape in enumerate(generator.noise_shapes):
            trained = layer < self.trained and layer < layers - self.zeroed
            if self.own or (self.source == "own" and not trained):
                continue
            draw = torch.stack([torch.randn(1, *shape, generator=rng) for rng in rngs])
            if trained:
                variables[f"noise_{layer}"] = draw
            elif self.source == "random" and layer < layers - self.zeroed:
                constants[f"noise_{layer}"] = draw
        return variables, constants

    def redraw(self, generator: Generator, rngs: Sequence[torch.Generator]) -> Rows:
        """Fresh constants for one step of `source="resampled"`; empty for the other sources."""
        if self.source != "resampled":
            return {}
        last = len(generator.noise_shapes) - self.zeroed
        return {
            f"noise_{layer}": torch.stack([torch.randn(1, *shape, generator=rng) for rng in rngs])
            for layer, shape in enumerate(generator.noise_shapes)
            if self.trained <= layer < last
        }

    def inputs(
        self, generator: Generator, variables: Mapping[str, Tensor], constants: Rows
    ) -> list[Tensor] | None:
        """The noise argument of `generator.synthesis`: None for its own maps throughout."""
        if self.own or not generator.noise_shapes:
            return None
        some = next(iter(variables.values()))
        layers = len(generator.noise_shapes)
        noise = []
        for layer, shape in enumerate(generator.noise_shapes):
            name = f"noise_{layer}"
            if name in variables:
                noise.append(variables[name])
            elif layer >= layers - self.zeroed:
                noise.append(torch.zeros(1, 1, *shape, device=some.device, dtype=some.dtype))
            elif name in constants:
                noise.append(constants[name])
            else:
                noise.append(generator.own_noise(layer))
        return noise
