"""Blocks that the style-based generators share, on stock PyTorch convolutions.

He constants ("equalised learning rates") and activation gains are multiplied into the weights when
a file is loaded (`equalised`), so that a step of a search does not compute them again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.generators.samples import MEAN_DRAWS, mean_style
from pulse_exp.seeding import random_generator

if TYPE_CHECKING:
    from pulse_exp.generators.checkpoints import Checkpoint

SLOPE = 0.2
MAX_SIDE = 4096


def equalised(
    tensors: Mapping[str, Tensor], name: str, gain: float = 1.0, lr_multiplier: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weight and bias of an equalised layer as it acts: `gain·lr/√fan_in·weight`, `lr·bias`.

    Karras et al. 2018 (arXiv 1710.10196), section 4.1; `lr_multiplier` is StyleGAN's.
    """
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    fan_in = max(1, weight[0].numel())
    return weight * (gain * lr_multiplier / fan_in**0.5), bias * lr_multiplier


def set_layer(tensors: dict[str, Tensor], name: str, values: tuple[Tensor, Tensor]) -> None:
    """Puts a weight and a bias under the names of the layer `name`."""
    tensors[f"{name}.weight"], tensors[f"{name}.bias"] = values


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A fully connected layer that waits for its weights."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs)


def parameter(*shape: int) -> nn.Parameter:
    """A parameter that waits for its values."""
    return nn.Parameter(torch.empty(shape))


def normalise(x: Tensor, dim: int = 1) -> Tensor:
    """`x` divided by the root of its mean square along `dim` (pixel norm)."""
    return x * torch.rsqrt(x.square().mean(dim=dim, keepdim=True) + 1e-8)


def demodulation(
    weight: Float[Tensor, "O I k k"], style: Float[Tensor, "B I"]
) -> Float[Tensor, "B O 1 1"]:
    """Factors that give each output channel unit variance (StyleGAN2, equation 3).

    With the styles on the input and these on the output, one kernel serves the whole batch.
    """
    power = style.square() @ weight.square().sum(dim=(2, 3)).t()
    return torch.rsqrt(power + 1e-8)[:, :, None, None]


class MappingNetwork(nn.Module):
    """Pixel norm, then fully connected layers, each with LeakyReLU 0.2.

    A conditional network appends its class's vector (embedded and normalised) to the latent.
    """

    def __init__(self, z_dim: int, widths: Sequence[int], num_classes: int, class_dim: int) -> None:
        super().__init__()
        inputs = [z_dim + class_dim, *widths[:-1]]
        self.layers = nn.ModuleList(linear(a, b) for a, b in zip(inputs, widths, strict=True))
        self.class_vectors = parameter(num_classes, class_dim) if num_classes else None

    def forward(self, z: Float[Tensor, "B z_dim"], class_index: int | None) -> Tensor:
        x = normalise(z)
        if self.class_vectors is not None:
            x = torch.cat([x, self.class_vectors[class_index].expand(len(x), -1)], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


class StyleGenerator(Generator):
    """What all StyleGANs share: a mapping network, a mean style vector, fixed noise maps.

    Args:
        z_dim, w_dim, num_ws: see `Generator`.
        mapping_widths: outputs of the mapping's layers; empty where the file has no mapping.
        num_classes, class_dim: of a class-conditional mapping, else 0.
        class_index: which class to draw.
        mean: whether the mean style vector is known.
        noise_sides: side of each layer's noise map.
    """

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        num_ws: int,
        mapping_widths: Sequence[int],
        num_classes: int = 0,
        class_dim: int = 0,
        class_index: int | None = None,
        mean: bool = False,
        noise_sides: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.mean_style: Tensor | None
        if max([4, *noise_sides]) > MAX_SIDE:
            raise ValueError(f"resolution {max(noise_sides)} is beyond {MAX_SIDE}")
        if mapping_widths and mapping_widths[-1] != w_dim:
            raise ValueError(f"the mapping gives {mapping_widths[-1]} numbers, styles take {w_dim}")
        self.z_dim, self.w_dim, self.num_ws = z_dim, w_dim, num_ws
        self.class_index = _checked_class(num_classes, class_index)
        self.mapping_network = (
            MappingNetwork(z_dim, mapping_widths, num_classes, class_dim)
            if mapping_widths
            else None
        )
        self.register_buffer("mean_style", torch.zeros(w_dim) if mean else None)
        self.noise_shapes = tuple((side, side) for side in noise_sides)
        for i, side in enumerate(noise_sides):
            self.register_buffer(f"noise_{i}", torch.empty(1, 1, side, side))

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        if self.mapping_network is None:
            raise UserError(
                f"these {self.architecture} weights have no mapping network: give its file too, "
                "or search without drawing z"
            )
        w = self.mapping_network(z, self.class_index)
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    @property
    def w_mean(self) -> Float[Tensor, " w_dim"] | None:
        return self.mean_style

    def style_layers(self) -> list[nn.Module]:
        found = (getattr(module, "style", None) for module in self.modules())
        return [style for style in found if isinstance(style, nn.Module)]

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        return getattr(self, f"noise_{layer}")

    def noise_inputs(self, noise: Sequence[Tensor] | None) -> Sequence[Tensor]:
        """The noise maps of a call to `synthesis`: those given, or the generator's own."""
        return noise or [self.own_noise(i) for i in range(len(self.noise_shapes))]


def add_mean(generator: StyleGenerator) -> tuple[str, ...]:
    """Estimates the mean style vector from seeded draws; returns what to tell the user."""
    if generator.mapping_network is None:
        return ("no mapping network: no z can be drawn, and the mean of w is not known",)
    with torch.no_grad():
        generator.mean_style = mean_style(generator)
    generator.config["mean"] = True
    return (f"no mean of w in the file: estimated from {MEAN_DRAWS} seeded draws",)


def nvidia_mapping(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Sets the mapping's tensors of an NVIDIA pickle; returns their part of the config."""
    original, network = checkpoint.tensors, checkpoint.network
    assert network is not None
    widths: list[int] = []
    for i in range(original.count("mapping.fc{}.weight")):
        attributes = network.find(f"mapping.fc{i}").state
        weight = original[f"mapping.fc{i}.weight"] * float(attributes["weight_gain"] * 2**0.5)
        bias = original[f"mapping.fc{i}.bias"] * float(attributes["bias_gain"] * 2**0.5)
        set_layer(tensors, f"mapping_network.layers.{i}", (weight, bias))
        widths.append(len(bias))
    num_classes = class_dim = 0
    if "mapping.embed.weight" in original:
        weight, bias = equalised(original, "mapping.embed")
        vectors = normalise(weight.t() + bias)
        tensors["mapping_network.class_vectors"] = vectors
        num_classes, class_dim = vectors.shape
    if "mapping.w_avg" in original:
        tensors["mean_style"] = original["mapping.w_avg"]
    return {
        "z_dim": original["mapping.fc0.weight"].shape[1] - class_dim,
        "w_dim": widths[-1],
        "mapping_widths": widths,
        "num_classes": num_classes,
        "class_dim": class_dim,
    }


def _checked_class(num_classes: int, class_index: int | None) -> int | None:
    if num_classes == 0 and class_index is not None:
        raise UserError("generator.class_index: these weights know no classes; leave it out")
    if num_classes and (class_index is None or not 0 <= class_index < num_classes):
        raise UserError(
            f"generator.class_index={class_index}: these weights know {num_classes} classes; "
            f"choose one of 0 to {num_classes - 1}"
        )
    return class_index


def seeded_noise(sides: Sequence[int]) -> list[Float[Tensor, "1 1 H W"]]:
    """Unit normal maps, the same on every machine, for files without noise of their own."""
    rng = random_generator(0, "noise")
    return [torch.randn(1, 1, side, side, generator=rng) for side in sides]


class Fir(nn.Module):
    """The same separable low-pass filter on every channel: `gain · taps⊗taps / (Σ taps)²`.

    A plain filter pads with zeros so that even and odd lengths give `H + 2·padding - length + 1`;
    with `up = 2` it first puts zeros between the pixels (a transposed convolution).
    """

    def __init__(
        self, taps: Sequence[float], channels: int, padding: int, gain: float = 1.0, up: int = 1
    ) -> None:
        super().__init__()
        self.kernel: Tensor
        row = torch.tensor(taps, dtype=torch.float32)
        kernel = torch.outer(row, row) * (gain / row.sum() ** 2)
        self.padding, self.up = padding, up
        self.register_buffer("kernel", kernel.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        groups = x.shape[1]
        if self.up == 1:
            return F.conv2d(x, self.kernel, bias, padding=self.padding, groups=groups)
        return F.conv_transpose2d(
            x, self.kernel, bias, stride=self.up, padding=self.padding, groups=groups
        )
