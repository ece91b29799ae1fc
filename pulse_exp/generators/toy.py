"""A tiny seeded style generator for tests and for trying out a sweep: milliseconds a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator, freeze
from pulse_exp.seeding import random_generator


class ToyGenerator(Generator):
    """Modulated 3×3 convolutions from a 4×4 constant up to `resolution`; random fixed weights.

    It has what a StyleGAN has (a mapping network ending in LeakyReLU 0.2, one style vector a
    layer, noise inputs), so every latent space and prior of the project runs on it.
    """

    architecture: ClassVar[str] = "toy"

    def __init__(
        self, resolution: int = 64, z_dim: int = 32, channels: int = 16, seed: int = 0
    ) -> None:
        super().__init__()
        levels = (resolution // 4).bit_length() - 1
        if resolution != 4 << levels or levels < 1:
            raise ValueError(f"resolution must be 8, 16, 32, ...; got {resolution}")
        self.config = {
            "resolution": resolution,
            "z_dim": z_dim,
            "channels": channels,
            "seed": seed,
        }
        self.resolution, self.z_dim, self.w_dim, self.num_ws = resolution, z_dim, z_dim, levels + 1
        self.noise_shapes = tuple((4 << i, 4 << i) for i in range(levels + 1))
        self.map1 = nn.Linear(z_dim, z_dim)
        self.map2 = nn.Linear(z_dim, z_dim)
        self.constant = nn.Parameter(torch.empty(1, channels, 4, 4))
        self.styles = nn.ModuleList(nn.Linear(z_dim, channels) for _ in range(levels + 1))
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(levels + 1)
        )
        self.activations = nn.ModuleList(nn.LeakyReLU(0.2) for _ in range(levels + 1))
        self.to_rgb = nn.Conv2d(channels, 3, 1)
        rng = random_generator(seed, "toy")
        for parameter in self.parameters():
            fan_in = max(1, parameter[0].numel())
            gain = 1.0 if parameter.ndim > 1 else 0.1
            parameter.data = torch.randn(parameter.shape, generator=rng) * gain / fan_in**0.5
        self.constant.data = torch.randn(self.constant.shape, generator=rng)
        for i, (height, width) in enumerate(self.noise_shapes):
            self.register_buffer(f"noise_{i}", torch.randn(1, 1, height, width, generator=rng))

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        z = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        w = F.leaky_relu(self.map2(F.leaky_relu(self.map1(z) * 2**0.5, 0.2)) * 2**0.5, 0.2)
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        return getattr(self, f"noise_{layer}")

    def style_layers(self) -> list[nn.Module]:
        return list(self.styles)

    def feature_layers(self) -> list[nn.Module]:
        return list(self.activations)

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        x = self.constant.expand(ws.shape[0], -1, -1, -1)
        for i, (style, conv) in enumerate(zip(self.styles, self.convs, strict=True)):
            if i:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            scale = 1 + style(ws[:, i])[:, :, None, None]
            x = conv(x * scale)
            x = x * torch.rsqrt(x.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-4)
            x = x + 0.1 * (self.own_noise(i) if noise is None else noise[i])
            x = self.activations[i](x)
        return 0.5 + 0.5 * self.to_rgb(x)


def load(**options: int) -> Generator:
    """The toy generator with its seeded weights."""
    return freeze(ToyGenerator(**options))
