"""The generators to be measured, of their published sizes with random weights, and the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, freeze
from pulse_exp.generators.checkpoints import Weights
from pulse_exp.generators.layers import SLOPE, seeded_noise
from pulse_exp.generators.mobile_stylegan import MobileStyleGAN
from pulse_exp.generators.stylegan1 import StyleGAN1, synthesis_tensors
from pulse_exp.generators.toy import ToyGenerator
from pulse_exp.seeding import random_generator

BASELINE = "plain"
NAMES = ("mobile_stylegan", "stylegan1", "toy", BASELINE)
WIDTHS = {
    "mobile_stylegan": (512, 512, 512, 512, 512, 256, 128, 64),
    "stylegan1": (512, 512, 512, 512, 256, 128, 64, 32, 16),
}
"""Channels of each level at 1024²; a smaller network lacks the last levels."""


class PlainStyleGAN1(Generator):
    """StyleGAN as the released PULSE code runs it: the baseline of every ratio.

    One operation after another in float32, contiguous, with frozen weights: He constants
    multiplied at every call, pixels repeated before a convolution below 128² and a transposed
    convolution from there on, blur, bias, noise, LeakyReLU, instance norm and style each on their
    own. The tensors have the names of the released file.
    """

    architecture = "stylegan1"

    def __init__(self, tensors: dict[str, Tensor], noise: Sequence[Tensor]) -> None:
        super().__init__()
        self.num_ws, self.z_dim, self.w_dim = len(noise), 512, 512
        self.resolution = noise[-1].shape[-1]
        self.noise_shapes = tuple((n.shape[-2], n.shape[-1]) for n in noise)
        self.config = {"resolution": self.resolution}
        for name, tensor in tensors.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(tensor))
        for layer, noise_map in enumerate(noise):
            self.register_buffer(f"noise_{layer}", noise_map)

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        """A stand-in: no step of a search in style space runs the mapping network."""
        return F.leaky_relu(z, SLOPE).unsqueeze(1).expand(-1, self.num_ws, -1)

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        return self.get_buffer(f"noise_{layer}")

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        maps = noise or [self.own_noise(layer) for layer in range(self.num_ws)]
        constant = self.tensor("blocks.4x4.const").expand(len(ws), -1, -1, -1)
        x = constant + self.tensor("blocks.4x4.bias").view(1, -1, 1, 1)
        for layer in range(self.num_ws):
            block = "blocks.{0}x{0}".format(4 << layer // 2)
            if layer == 1:
                x = self.convolve(x, f"{block}.conv")
            elif layer % 2:
                x = self.convolve(x, f"{block}.conv1")
            elif layer:
                x = self.convolve_up(x, f"{block}.conv0_up")
            x = self.epilogue(x, f"{block}.epi{layer % 2 + 1}", ws[:, layer], maps[layer])
        weight, bias = self.tensor("torgb.weight"), self.tensor("torgb.bias")
        return (F.conv2d(x, weight * weight[0].numel() ** -0.5, bias) + 1) / 2

    def convolve(self, x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, self.kernel(name), self.tensor(f"{name}.bias"), padding=1)

    def convolve_up(self, x: Tensor, name: str) -> Tensor:
        weight = self.kernel(name)
        if 2 * x.shape[-1] < 128:
            x = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
        else:
            padded = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
            corners = [padded[:, :, a : a + 4, b : b + 4] for a in range(2) for b in range(2)]
            x = F.conv_transpose2d(x, sum(corners), stride=2, padding=1)  # type: ignore[arg-type]
        channels = x.shape[1]
        row = torch.tensor([0.25, 0.5, 0.25], device=x.device)
        x = F.conv2d(x, (row[:, None] * row).expand(channels, 1, 3, 3), padding=1, groups=channels)
        return x + self.tensor(f"{name}.bias").view(1, -1, 1, 1)

    def epilogue(self, x: Tensor, name: str, w: Tensor, noise: Tensor) -> Tensor:
        x = x + self.tensor(f"{name}.noise.weight").view(1, -1, 1, 1) * noise
        x = F.instance_norm(F.leaky_relu(x, SLOPE))
        weight, bias = (self.tensor(f"{name}.style_mod.lin.{part}") for part in ("weight", "bias"))
        style = F.linear(w, weight * weight.shape[1] ** -0.5, bias)
        scale, shift = style.view(len(w), 2, -1, 1, 1).unbind(1)
        return x * (scale + 1) + shift

    def kernel(self, name: str) -> Tensor:
        weight = self.tensor(f"{name}.weight")
        return weight * (2 / weight[0].numel()) ** 0.5

    def tensor(self, name: str) -> Tensor:
        return self.get_parameter(name.replace(".", "/"))


def build(name: str, resolution: int) -> Generator:
    """A frozen generator with random weights: a step's time does not depend on them.

    Raises:
        UserError: no such name, or no network of that resolution.
    """
    if name not in NAMES:
        raise UserError(f"no benchmark of {name!r}; choose from {', '.join(NAMES)}")
    levels = (resolution // 4).bit_length()
    if resolution != 2 << levels or not 4 <= levels <= 9:
        raise UserError(f"--resolution {resolution}: choose 32, 64, 128, 256, 512 or 1024")
    if name == "toy":
        return freeze(ToyGenerator(resolution))
    if name == "mobile_stylegan":
        generator = MobileStyleGAN(WIDTHS[name][: levels - 1])
        fill(generator)
        return freeze(generator)
    tensors, noise = released_tensors(WIDTHS["stylegan1"][:levels])
    plain = PlainStyleGAN1(tensors, noise)
    return freeze(plain if name == BASELINE else fused(tensors, noise))


def fused(tensors: dict[str, Tensor], noise: Sequence[Tensor]) -> StyleGAN1:
    """This project's StyleGAN1 with the tensors of a released file."""
    channels, state = synthesis_tensors(Weights(tensors, Path("random")))
    state |= {f"noise_{layer}": noise_map for layer, noise_map in enumerate(noise)}
    generator = StyleGAN1(channels, mapping_widths=[512] * 8)
    fill(generator)
    generator.load_state_dict(state, strict=False)
    return generator


def released_tensors(channels: Sequence[int]) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Random tensors under the names of PULSE's `synthesis.pt`, and noise maps."""
    rng = random_generator("benchmark")
    shapes: dict[str, tuple[int, ...]] = {
        "blocks.4x4.const": (1, channels[0], 4, 4),
        "blocks.4x4.bias": (channels[0],),
    }
    for level, width in enumerate(channels):
        block = "blocks.{0}x{0}".format(4 << level)
        if level:
            shapes[f"{block}.conv0_up.weight"] = (width, channels[level - 1], 3, 3)
        shapes[f"{block}.{'conv1' if level else 'conv'}.weight"] = (width, width, 3, 3)
        for epilogue in ("epi1", "epi2"):
            shapes[f"{block}.{epilogue}.noise.weight"] = (width,)
            shapes[f"{block}.{epilogue}.style_mod.lin.weight"] = (2 * width, 512)
    shapes["torgb.weight"] = (3, channels[-1], 1, 1)
    tensors = {}
    for name, shape in shapes.items():
        tensors[name] = torch.randn(shape, generator=rng)
        if name.endswith(".weight") and "noise" not in name:
            tensors[name.replace(".weight", ".bias")] = 0.1 * torch.randn(shape[0], generator=rng)
    return tensors, seeded_noise([4 << level for level in range(len(channels)) for _ in range(2)])


def fill(generator: Generator) -> None:
    """Random weights that keep activations near unit size, style scales near 1, noise maps."""
    rng = random_generator("benchmark", generator.architecture)
    for name, tensor in generator.state_dict().items():
        values = torch.randn(tensor.shape, generator=rng)
        if name.endswith("bias"):
            scales = "style" in name or ".up." in name
            tensor.copy_(0.1 * values + (1.0 if scales else 0.0))
        elif "noise" in name or "constant" in name:
            tensor.copy_(values)
        else:
            tensor.copy_(values / max(1, tensor[0].numel()) ** 0.5)
