"""A generator's image in bf16 and compiled, for the search; everything after it is in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator


class Accelerated(Generator):
    """A generator whose `synthesis` computes faster what the original's does.

    The mapping and the latent stay in float32, the image comes back in float32. With bf16 on a
    GPU convolution kernels are stored channels_last, which tensor cores read without a copy.

    Args:
        generator: a frozen generator; it is used, not copied.
        precision: "float32", or "bf16": autocast of the synthesis.
        compiled: whether `torch.compile` is applied to the synthesis, at its first call.
        backend: of `torch.compile`.
    """

    def __init__(
        self, generator: Generator, precision: str, compiled: bool, backend: str = "inductor"
    ) -> None:
        super().__init__()
        self.generator = generator
        self.architecture = generator.architecture  # type: ignore[misc]
        self.config, self.notes = generator.config, generator.notes
        self.resolution, self.noise_shapes = generator.resolution, generator.noise_shapes
        self.z_dim, self.w_dim, self.num_ws = generator.z_dim, generator.w_dim, generator.num_ws
        self.mapping_slope = generator.mapping_slope
        self.bf16 = precision == "bf16"
        # A function of the generator, not a bound method: a copy of this module stays apart.
        self.compiled = torch.compile(_synthesis, backend=backend) if compiled else None
        if self.bf16 and next(generator.parameters()).is_cuda:
            generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        return self.generator.mapping(z)

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        run = self.compiled if self.compiled and not self.hooked() else _synthesis
        with torch.autocast(ws.device.type, torch.bfloat16, enabled=self.bf16):
            return run(self.generator, ws, noise).float()

    def hooked(self) -> bool:
        """Whether someone reaches into the generator, which a compiled graph would not see."""
        return any(module._forward_hooks for module in self.generator.modules())

    @property
    def exact(self) -> Generator:
        return self.generator

    @property
    def w_mean(self) -> Float[Tensor, " w_dim"] | None:
        return self.generator.w_mean

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        return self.generator.own_noise(layer)

    def style_layers(self) -> list[nn.Module]:
        return self.generator.style_layers()

    def feature_layers(self) -> list[nn.Module]:
        return self.generator.feature_layers()


def _synthesis(generator: Generator, ws: Tensor, noise: Sequence[Tensor] | None) -> Tensor:
    return generator.synthesis(ws, noise)


def accelerate(
    generator: Generator, precision: str = "float32", compiled: bool = False
) -> Generator:
    """The generator as `trainer.precision` and `trainer.compile` want it; itself by default."""
    if precision == "float32" and not compiled:
        return generator
    return Accelerated(generator, precision, compiled)
