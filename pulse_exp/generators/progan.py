"""Progressive GAN (Karras et al. 2018, arXiv 1710.10196) from two PyTorch layouts.

pytorch_GAN_zoo (which publishes CelebA-HQ networks) and akanimax's pro_gan_pytorch. Only the last
resolution is used, as after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator, assemble
from pulse_exp.generators.checkpoints import Checkpoint, load_checkpoint
from pulse_exp.generators.layers import SLOPE, linear, normalise, set_layer

ROOT_2 = 2**0.5


class ProGAN(Generator):
    """A fully connected layer to 4×4, then nearest upsampling and 3×3 convolutions.

    Each convolution is followed by LeakyReLU 0.2 and pixel norm; z itself is normalised first.

    Args:
        channels: of each resolution from 4 up; `resolution` is `4 · 2^(len(channels) - 1)`.
        z_dim: size of z.
        normalise_first: whether pixel norm follows the fully connected layer too.
    """

    architecture: ClassVar[str] = "progan"
    mapping_slope = 1.0

    def __init__(self, channels: Sequence[int], z_dim: int, normalise_first: bool) -> None:
        super().__init__()
        self.config = {
            "channels": list(channels),
            "z_dim": z_dim,
            "normalise_first": normalise_first,
        }
        self.z_dim = self.w_dim = z_dim
        self.num_ws = 1
        self.resolution = 2 << len(channels)
        self.normalise_first = normalise_first
        self.first = linear(z_dim, 16 * channels[0])
        widths = [channels[0], channels[0], *(c for c in channels[1:] for _ in range(2))]
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Conv2d, a, b, 3, padding=1) for a, b in pairwise(widths)
        )
        self.to_rgb = nn.utils.skip_init(nn.Conv2d, channels[-1], 3, 1)

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B 1 z_dim"]:
        return z.unsqueeze(1)

    def synthesis(
        self, ws: Float[Tensor, "B 1 z_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        x = F.leaky_relu(self.first(normalise(ws[:, 0])), SLOPE).unflatten(1, (-1, 4, 4))
        if self.normalise_first:
            x = normalise(x)
        for i, layer in enumerate(self.layers):
            if i % 2:
                x = F.interpolate(x, scale_factor=2)
            x = normalise(F.leaky_relu_(layer(x), SLOPE))
        return self.to_rgb(x)


def load(weights: str | Path | None = None) -> Generator:
    """The generator of a pytorch_GAN_zoo or pro_gan_pytorch file.

    Raises:
        UserError: the file is of another kind, damaged or unsafe.
    """
    return load_checkpoint(weights, "progan")


def convert(checkpoint: Checkpoint) -> ProGAN:
    """The generator of an opened file."""
    read = _from_gan_zoo if checkpoint.layout == "pytorch_GAN_zoo" else _from_pro_gan_pytorch
    config, tensors, notes = read(checkpoint)
    weight, bias = tensors["to_rgb.weight"], tensors["to_rgb.bias"]
    set_layer(tensors, "to_rgb", (weight / 2, bias / 2 + 0.5))  # [-1, 1] to [0, 1]
    generator = assemble(ProGAN, config, tensors, checkpoint.path)
    generator.notes = notes
    return generator


Parts = tuple[dict, dict[str, Tensor], tuple[str, ...]]
"""Config, our tensors, and notes for the user."""


def _from_gan_zoo(checkpoint: Checkpoint) -> Parts:
    """Here He's constant acts on the bias too."""
    original = checkpoint.tensors
    tensors: dict[str, Tensor] = {}

    def layer(ours: str, theirs: str) -> int:
        weight, bias = original[f"{theirs}.weight"], original[f"{theirs}.bias"]
        scale = ROOT_2 / weight[0].numel() ** 0.5
        set_layer(tensors, ours, (weight * scale, bias * scale))
        return len(bias)

    layer("first", "formatLayer")
    channels = [layer("layers.0", "groupScale0.0")]
    for i in range(original.count("scaleLayers.{}.0.weight")):
        layer(f"layers.{2 * i + 1}", f"scaleLayers.{i}.0")
        channels.append(layer(f"layers.{2 * i + 2}", f"scaleLayers.{i}.1"))
    layer("to_rgb", f"toRGBLayers.{len(channels) - 1}")
    z_dim = tensors["first.weight"].shape[1]
    notes: tuple[str, ...] = ()
    if alpha := getattr(checkpoint.contents.get("config"), "alpha", 0):
        notes = (f"saved while its last resolution was fading in (alpha {alpha}); shown without",)
    return {"channels": channels, "z_dim": z_dim, "normalise_first": True}, tensors, notes


def _from_pro_gan_pytorch(checkpoint: Checkpoint) -> Parts:
    original = checkpoint.tensors
    tensors: dict[str, Tensor] = {}
    equalised = checkpoint.settings.get("use_eql", True)

    def layer(ours: str, theirs: str, fan_in: int | None = None) -> int:
        weight, bias = original[f"{theirs}.weight"], original[f"{theirs}.bias"]
        scale = ROOT_2 / (fan_in or weight[0].numel()) ** 0.5 if equalised else 1.0
        set_layer(tensors, ours, (weight * scale, bias))
        return len(bias)

    z_dim = len(original["layers.0.conv_1.weight"])
    layer("first", "layers.0.conv_1", fan_in=z_dim)  # transposed, from 1×1 to 4×4
    first, bias = tensors["first.weight"], tensors["first.bias"]
    set_layer(tensors, "first", (first.flatten(1).t(), bias.repeat_interleave(16)))
    channels = [layer("layers.0", "layers.0.conv_2")]
    for i in range(1, original.count("layers.{}.conv_1.weight")):
        layer(f"layers.{2 * i - 1}", f"layers.{i}.conv_1")
        channels.append(layer(f"layers.{2 * i}", f"layers.{i}.conv_2"))
    layer("to_rgb", f"rgb_converters.{len(channels) - 1}")
    return {"channels": channels, "z_dim": z_dim, "normalise_first": False}, tensors, ()
