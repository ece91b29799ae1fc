"""StyleGAN (Karras et al. 2019, arXiv 1812.04948) from the files of the released PULSE code.

PULSE's weights are NVIDIA's FFHQ network, moved to PyTorch as two files: `synthesis.pt`, and
`mapping.pt` beside it. Neither carries the mean style vector or fixed noise maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, assemble
from pulse_exp.generators.checkpoints import Checkpoint, Weights, load_checkpoint, open_checkpoint
from pulse_exp.generators.layers import (
    SLOPE,
    Fir,
    StyleGenerator,
    add_mean,
    equalised,
    linear,
    parameter,
    seeded_noise,
    set_layer,
)

SIBLINGS = {"synthesis.pt": "mapping.pt", "mapping.pt": "synthesis.pt"}


class Layer(nn.Module):
    """Convolution (or the constant), noise, bias, LeakyReLU, instance norm with the style's affine.

    With `up` the convolution acts on the input repeated to twice its side, as one transposed
    convolution, and a blur follows.
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        size = 4 if up else 3
        self.weight = parameter(*((inputs, outputs) if up else (outputs, inputs)), size, size)
        self.blur = Fir([1, 2, 1], outputs, padding=1) if up else None
        self.epilogue = Epilogue(outputs, w_dim)
        self.bias = parameter(outputs)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        if self.blur is None:
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        else:
            x = self.blur(F.conv_transpose2d(x, self.weight, stride=2, padding=1), self.bias)
        return self.epilogue(x, w, noise)


class Epilogue(nn.Module):
    """What follows each convolution: noise, LeakyReLU, adaptive instance normalisation."""

    def __init__(self, channels: int, w_dim: int) -> None:
        super().__init__()
        self.noise_strength = parameter(channels, 1, 1)
        self.style = linear(w_dim, 2 * channels)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        strength = self.noise_strength.to(x.dtype)
        x = F.leaky_relu_(torch.addcmul(x, strength, noise.to(x.dtype)), SLOPE)
        scale, shift = self.style(w).to(x.dtype).chunk(2, dim=1)
        batch, channels, height, width = x.shape
        # One pass normalises and applies the style: each (image, channel) is a channel of its own.
        flat = x.reshape(1, batch * channels, height, width)
        flat = F.batch_norm(flat, None, None, scale.flatten(), shift.flatten(), training=True)
        return flat.reshape(batch, channels, height, width)


class StyleGAN1(StyleGenerator):
    """A learned 4×4 constant, then two layers a resolution, each with its own style and noise.

    Args:
        channels: of each resolution from 4 up; `resolution` is `4 · 2^(len(channels) - 1)`.
        w_dim: size of a style vector.
        mapping_widths, z_dim, mean: see `StyleGenerator`.
    """

    architecture: ClassVar[str] = "stylegan1"

    def __init__(
        self,
        channels: Sequence[int],
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_widths: Sequence[int] = (),
        mean: bool = False,
    ) -> None:
        sides = [4 << level for level in range(len(channels)) for _ in range(2)]
        super().__init__(z_dim, w_dim, len(sides), mapping_widths, mean=mean, noise_sides=sides)
        self.config = {
            "channels": list(channels),
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_widths": list(mapping_widths),
            "mean": mean,
        }
        self.resolution = sides[-1]
        self.constant = parameter(1, channels[0], 4, 4)
        self.first = Epilogue(channels[0], w_dim)
        self.layers = nn.ModuleList()
        for level, width in enumerate(channels):
            if level:
                self.layers.append(Layer(channels[level - 1], width, w_dim, up=True))
            self.layers.append(Layer(width, width, w_dim))
        self.to_rgb = nn.utils.skip_init(nn.Conv2d, channels[-1], 3, 1)

    def feature_layers(self) -> list[nn.Module]:
        return [self.first, *self.layers]

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        maps = self.noise_inputs(noise)
        styles = ws.unbind(1)
        x = self.first(self.constant.expand(len(ws), -1, -1, -1), styles[0], maps[0])
        for layer, w, noise_map in zip(self.layers, styles[1:], maps[1:], strict=True):
            x = layer(x, w, noise_map)
        return self.to_rgb(x)


def load(weights: str | Path | None = None, mapping: str | Path | None = None) -> Generator:
    """The generator of PULSE's two files: their folder, or either of them with the other beside it.

    Raises:
        UserError: the file is of another kind, damaged, or has no synthesis network beside it.
    """
    return load_checkpoint(weights, "stylegan1", mapping=mapping)


def convert(checkpoint: Checkpoint, mapping: str | Path | None = None) -> StyleGAN1:
    """The generator of an opened `synthesis.pt` or `mapping.pt` and the file beside it."""
    other = (
        Path(mapping)
        if mapping
        else checkpoint.path.with_name(SIBLINGS.get(checkpoint.path.name, "mapping.pt"))
    )
    networks = {checkpoint.layout: checkpoint.tensors}
    if mapping or other.is_file():
        found = open_checkpoint(other)
        networks[found.layout] = found.tensors
    if "PULSE synthesis" not in networks:
        raise UserError(
            f"{checkpoint.path}: a mapping network of stylegan1 without its synthesis network; "
            "put synthesis.pt beside it"
        )
    channels, tensors = synthesis_tensors(networks["PULSE synthesis"])
    sides = [4 << level for level in range(len(channels)) for _ in range(2)]
    tensors |= {f"noise_{i}": noise_map for i, noise_map in enumerate(seeded_noise(sides))}
    widths: list[int] = []
    w_dim = z_dim = tensors["first.style.weight"].shape[1]
    if "PULSE mapping" in networks:
        dense = networks["PULSE mapping"]
        for i in range(dense.count("dense{}.weight")):
            name = f"mapping_network.layers.{i}"
            set_layer(tensors, name, equalised(dense, f"dense{i}", 2**0.5, 0.01))
            widths.append(len(tensors[f"{name}.bias"]))
        z_dim = tensors["mapping_network.layers.0.weight"].shape[1]
    config = {"channels": channels, "z_dim": z_dim, "w_dim": w_dim, "mapping_widths": widths}
    generator = assemble(StyleGAN1, config, tensors, checkpoint.path)
    generator.notes = (
        "no noise maps in the file: seeded ones are its own noise",
        *add_mean(generator),
    )
    return generator


def synthesis_tensors(original: Weights) -> tuple[list[int], dict[str, Tensor]]:
    """Channels of each resolution, and our tensors, of PULSE's `synthesis.pt`."""
    tensors: dict[str, Tensor] = {}
    constant, bias = original["blocks.4x4.const"], original["blocks.4x4.bias"]
    tensors["constant"] = constant + bias[:, None, None]
    _set_epilogue(tensors, "first", original, "blocks.4x4.epi1")
    channels: list[int] = []
    index = 0
    while (
        block := "blocks.{0}x{0}".format(side := 4 << len(channels))
    ) + ".epi2.noise.weight" in original:
        for part in ("conv0_up", "conv1") if channels else ("conv",):
            layer = f"layers.{index}"
            weight, bias = equalised(original, f"{block}.{part}", 2**0.5)
            if part == "conv0_up":
                weight = _up_kernel(weight, side)
            set_layer(tensors, layer, (weight, bias))
            epilogue = "epi1" if part == "conv0_up" else "epi2"
            _set_epilogue(tensors, f"{layer}.epilogue", original, f"{block}.{epilogue}")
            index += 1
        channels.append(len(bias))
    weight, bias = equalised(original, "torgb")
    set_layer(tensors, "to_rgb", (weight / 2, bias / 2 + 0.5))  # [-1, 1] to [0, 1]
    return channels, tensors


def _set_epilogue(tensors: dict[str, Tensor], name: str, original: Weights, theirs: str) -> None:
    tensors[f"{name}.noise_strength"] = original[f"{theirs}.noise.weight"][:, None, None]
    weight, bias = equalised(original, f"{theirs}.style_mod.lin")
    offset = torch.zeros_like(bias)
    offset[: len(bias) // 2] = 1  # the style's scale is 1 + its first half
    set_layer(tensors, f"{name}.style", (weight, bias + offset))


def _up_kernel(weight: Float[Tensor, "O I 3 3"], side: int) -> Float[Tensor, "I O 4 4"]:
    """The transposed convolution equal to repeating pixels and convolving with `weight`.

    From 128² on the original turns the kernel around (it transposes the convolution itself).
    """
    if side < 128:
        weight = weight.flip(2, 3)
    padded = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
    shifts = [padded[:, :, a : a + 4, b : b + 4] for a in range(2) for b in range(2)]
    return torch.stack(shifts).sum(dim=0)
