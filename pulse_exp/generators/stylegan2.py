"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958), the skip architecture of any size.

Read from rosinality's `.pt` files and from NVIDIA's `.pkl` files (stylegan2-ada-pytorch, or
StyleGAN2 networks trained with the stylegan3 repository).
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
from pulse_exp.generators.checkpoints import Checkpoint, Weights, load_checkpoint
from pulse_exp.generators.layers import (
    SLOPE,
    Fir,
    StyleGenerator,
    add_mean,
    demodulation,
    equalised,
    linear,
    nvidia_mapping,
    parameter,
    seeded_noise,
    set_layer,
)

TAPS = [1, 3, 3, 1]
GAIN = 2**0.5
"""Of each LeakyReLU; multiplied into the biases and the noise strengths when a file is loaded."""


class Layer(nn.Module):
    """Modulated 3×3 convolution, noise, bias, LeakyReLU; `up` doubles the side first."""

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, clamp: float | None, up: bool = False
    ) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight = parameter(*((inputs, outputs) if up else (outputs, inputs)), 3, 3)
        self.style = linear(w_dim, inputs)
        self.blur = Fir(TAPS, outputs, padding=1, gain=4) if up else None
        self.bias = parameter(outputs)
        self.noise_strength = parameter()

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        style = self.style(w)
        x = x * style[:, :, None, None]
        if self.blur is None:
            x = F.conv2d(x, self.weight, padding=1)
            gain = demodulation(self.weight, style)
        else:
            x = self.blur(F.conv_transpose2d(x, self.weight, stride=2))
            gain = demodulation(self.weight.transpose(0, 1), style)
        bias = self.bias[:, None, None].to(x.dtype)
        x = torch.addcmul(bias, x, (gain * GAIN).to(x.dtype))
        x = F.leaky_relu_(x.add_(noise * self.noise_strength), SLOPE)
        return x if self.clamp is None else F.hardtanh(x, -self.clamp, self.clamp)


class ToRGB(nn.Module):
    """Modulated 1×1 convolution to three channels, as a product of matrices."""

    def __init__(self, inputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.weight = parameter(3, inputs)
        self.style = linear(w_dim, inputs)
        self.bias = parameter(3)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight * self.style(w)[:, None, :]
        rgb = torch.baddbmm(self.bias[:, None], weight, x.flatten(2)).unflatten(2, x.shape[2:])
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class StyleGAN2(StyleGenerator):
    """A learned 4×4 constant, two layers a resolution (one at 4×4), their images summed up.

    Args:
        channels: of each resolution from 4 up; `resolution` is `4 · 2^(len(channels) - 1)`.
        clamp: bound of each layer's output, None for none.
        z_dim, w_dim, mapping_widths, num_classes, class_dim, class_index, mean: see
            `StyleGenerator`.
    """

    architecture: ClassVar[str] = "stylegan2"

    def __init__(
        self,
        channels: Sequence[int],
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_widths: Sequence[int] = (),
        num_classes: int = 0,
        class_dim: int = 0,
        class_index: int | None = None,
        mean: bool = True,
        clamp: float | None = None,
    ) -> None:
        sides = [4 << level for level in range(len(channels)) for _ in range(2)][1:]
        super().__init__(
            z_dim,
            w_dim,
            len(sides) + 1,
            mapping_widths,
            num_classes,
            class_dim,
            class_index,
            mean,
            sides,
        )
        self.config = {
            "channels": list(channels),
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_widths": list(mapping_widths),
            "num_classes": num_classes,
            "class_dim": class_dim,
            "class_index": class_index,
            "mean": mean,
            "clamp": clamp,
        }
        self.resolution = sides[-1]
        self.constant = parameter(1, channels[0], 4, 4)
        self.layers, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            if level:
                self.layers.append(Layer(channels[level - 1], width, w_dim, clamp, up=True))
            self.layers.append(Layer(width, width, w_dim, clamp))
            self.to_rgbs.append(ToRGB(width, w_dim, clamp))
        self.up_image = Fir(TAPS, 3, padding=1, gain=4, up=2)

    def feature_layers(self) -> list[nn.Module]:
        return list(self.layers)

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        maps = self.noise_inputs(noise)
        styles = ws.unbind(1)
        x = self.layers[0](self.constant.expand(len(ws), -1, -1, -1), styles[0], maps[0])
        image = self.to_rgbs[0](x, styles[1])
        for i in range(1, len(self.layers), 2):
            x = self.layers[i](x, styles[i], maps[i])
            x = self.layers[i + 1](x, styles[i + 1], maps[i + 1])
            image = self.up_image(image) + self.to_rgbs[(i + 1) // 2](x, styles[i + 2])
        return image * 0.5 + 0.5


def load(weights: str | Path | None = None, class_index: int | None = None) -> Generator:
    """The generator of rosinality's or NVIDIA's file.

    Args:
        class_index: which class to draw, of a class-conditional network.

    Raises:
        UserError: the file is of another kind, damaged or unsafe, or needs a `class_index`.
    """
    return load_checkpoint(weights, "stylegan2", class_index=class_index)


def convert(checkpoint: Checkpoint, class_index: int | None = None) -> StyleGAN2:
    """The generator of an opened file."""
    read = _from_nvidia if checkpoint.network else _from_rosinality
    config, tensors, notes = read(checkpoint)
    config["class_index"] = class_index
    sides = [4 << level for level in range(len(config["channels"])) for _ in range(2)][1:]
    if "noise_0" not in tensors:
        notes.append("no noise maps in the file: seeded ones are its own noise")
        tensors |= {f"noise_{i}": noise_map for i, noise_map in enumerate(seeded_noise(sides))}
    config["mean"] = "mean_style" in tensors
    generator = assemble(StyleGAN2, config, tensors, checkpoint.path)
    if not config["mean"]:
        notes += add_mean(generator)
    generator.notes = tuple(notes)
    return generator


Parts = tuple[dict, dict[str, Tensor], list[str]]
"""Config, our tensors, and notes for the user."""


def _from_rosinality(checkpoint: Checkpoint) -> Parts:
    original, tensors = checkpoint.tensors, {}
    tensors["constant"] = original["input.input"]
    convolutions = original.count("convs.{}.conv.weight")
    names = [("conv1", "to_rgb1")]
    for i in range(0, convolutions - 1, 2):
        names += [(f"convs.{i}", ""), (f"convs.{i + 1}", f"to_rgbs.{i // 2}")]
    channels = []
    for i, (layer, to_rgb) in enumerate(names):
        scaled, _ = _scaled(original, f"{layer}.conv", f"{layer}.activate.bias")
        up = i % 2 == 1
        if up:
            _check_filter(checkpoint, original[f"{layer}.conv.blur.kernel"] / 4)
        bias, strength = original[f"{layer}.activate.bias"], original[f"{layer}.noise.weight"]
        style = equalised(original, f"{layer}.conv.modulation")
        _set_convolution(tensors, f"layers.{i}", scaled, bias, strength, style, up)
        if to_rgb:
            channels.append(len(bias))
            weight, bias = _scaled(original, f"{to_rgb}.conv", f"{to_rgb}.bias")
            set_layer(tensors, name := f"to_rgbs.{i // 2}", (weight.flatten(1), bias))
            set_layer(tensors, f"{name}.style", equalised(original, f"{to_rgb}.conv.modulation"))
        if f"noises.noise_{i}" in original:
            tensors[f"noise_{i}"] = original[f"noises.noise_{i}"]
    widths = []
    for i in range(original.count("style.{}.weight", start=1)):
        weight, bias = equalised(original, f"style.{i + 1}", 1, 0.01)
        set_layer(tensors, f"mapping_network.layers.{i}", (weight * GAIN, bias * GAIN))
        widths.append(len(bias))
    mean = checkpoint.contents.get("latent_avg")
    if isinstance(mean, Tensor):
        tensors["mean_style"] = mean.float().flatten()
    w_dim = tensors["layers.0.style.weight"].shape[1]
    config = {"channels": channels, "z_dim": w_dim, "w_dim": w_dim, "mapping_widths": widths}
    return config, tensors, []


def _scaled(original: Weights, convolution: str, bias: str) -> tuple[Tensor, Tensor]:
    """An equalised kernel of rosinality's layout `[1, O, I, k, k]`, and a bias as a vector."""
    weight = original[f"{convolution}.weight"].squeeze(0)
    return weight / weight[0].numel() ** 0.5, original[bias].flatten()


def _from_nvidia(checkpoint: Checkpoint) -> Parts:
    original, network = checkpoint.tensors, checkpoint.network
    assert network is not None
    tensors = {"constant": original["synthesis.b4.const"].unsqueeze(0)}
    channels: list[int] = []
    clamp, index = None, 0
    while f"synthesis.b{4 << len(channels)}.conv1.weight" in original:
        block = f"synthesis.b{4 << len(channels)}"
        attributes = network.find(block).state
        if attributes.get("architecture") != "skip":
            raise UserError(
                f"{checkpoint.path}: a stylegan2 of the {attributes.get('architecture')!r} "
                "architecture; only 'skip' is known here"
            )
        for layer in ("conv0", "conv1") if channels else ("conv1",):
            name = f"{block}.{layer}"
            attributes = network.find(name).state
            clamp = attributes.get("conv_clamp")
            clamp = None if clamp is None else float(clamp)
            if attributes.get("activation") != "lrelu":
                raise UserError(f"{checkpoint.path}: activation {attributes.get('activation')!r}")
            _check_filter(checkpoint, original[f"{name}.resample_filter"])
            weight, bias = original[f"{name}.weight"], original[f"{name}.bias"]
            strength = original.get(f"{name}.noise_strength", torch.zeros(()))
            style = equalised(original, f"{name}.affine")
            _set_convolution(
                tensors, f"layers.{index}", weight, bias, strength, style, layer == "conv0"
            )
            side = 4 << len(channels)
            noise_map = original.get(f"{name}.noise_const", torch.zeros(side, side))
            tensors[f"noise_{index}"] = noise_map[None, None]
            index += 1
        weight = original[f"{block}.torgb.weight"].flatten(1)
        to_rgb = f"to_rgbs.{len(channels)}"
        scaled = weight / weight.shape[1] ** 0.5
        set_layer(tensors, to_rgb, (scaled, original[f"{block}.torgb.bias"]))
        set_layer(tensors, f"{to_rgb}.style", equalised(original, f"{block}.torgb.affine"))
        channels.append(weight.shape[1])
    config = nvidia_mapping(checkpoint, tensors)
    config |= {"channels": channels, "clamp": clamp}
    return config, tensors, []


def _set_convolution(
    tensors: dict[str, Tensor],
    name: str,
    weight: Float[Tensor, "O I 3 3"],
    bias: Float[Tensor, " O"],
    strength: Tensor,
    style: tuple[Tensor, Tensor],
    up: bool,
) -> None:
    set_layer(tensors, name, (weight.transpose(0, 1) if up else weight, bias * GAIN))
    tensors[f"{name}.noise_strength"] = strength.reshape(()) * GAIN
    set_layer(tensors, f"{name}.style", style)


def _check_filter(checkpoint: Checkpoint, kernel: Tensor) -> None:
    expected = torch.outer(torch.tensor(TAPS), torch.tensor(TAPS)) / 64
    if kernel.shape != (4, 4) or not torch.allclose(kernel, expected, atol=1e-5):
        raise UserError(f"{checkpoint.path}: a resampling filter that is not {TAPS}")
