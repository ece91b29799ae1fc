"""Reaching into a generator past its style vectors: offsets to styles and to features.

What there is to reach into a generator says by `style_layers` and `feature_layers`; it works on
every generator that calls them as modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator


def synthesis_with(
    generator: Generator,
    ws: Float[Tensor, "B num_ws w_dim"],
    noise: Sequence[Tensor] | None = None,
    styles: Mapping[int, Tensor] | None = None,
    features: Mapping[int, Tensor] | None = None,
) -> Float[Tensor, "B 3 R R"]:
    """`generator.synthesis(ws, noise)` with offsets on the way.

    Args:
        styles: added to the output `[B, C]` of a style layer, by its index.
        features: added to the output `[B, C, h, w]` of a feature layer, by its index.
    """
    edits = [(generator.style_layers()[i], offset) for i, offset in (styles or {}).items()]
    edits += [(generator.feature_layers()[i], offset) for i, offset in (features or {}).items()]

    def added(offset: Tensor) -> object:
        return lambda module, inputs, output: output + offset

    hooks = [layer.register_forward_hook(added(offset)) for layer, offset in edits]  # type: ignore[arg-type]
    try:
        return generator.synthesis(ws, noise)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def feature_shapes(generator: Generator) -> list[tuple[int, int, int]]:
    """`(C, h, w)` of each feature layer's output, found by one synthesis."""
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        _, channels, height, width = output.shape
        shapes.append((channels, height, width))

    hooks = [layer.register_forward_hook(note) for layer in generator.feature_layers()]
    try:
        device = next(generator.parameters()).device
        generator.synthesis(torch.zeros(1, generator.num_ws, generator.w_dim, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes
