"""MobileStyleGAN out of the training checkpoints of github.com/bes-dev/MobileStyleGAN.pytorch.

There the demodulation, which does not depend on the style, is a factor of its own, and noise is
drawn anew at every call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_exp.generators.base import assemble
from pulse_exp.generators.checkpoints import Checkpoint, Weights
from pulse_exp.generators.layers import equalised, seeded_noise, set_layer
from pulse_exp.generators.mobile_stylegan import MobileStyleGAN, bands_first, image_from_bands


def convert(checkpoint: Checkpoint) -> MobileStyleGAN:
    """The generator of an opened checkpoint: the student and the teacher's mapping network."""
    original = checkpoint.tensors
    tensors = {"constant": original["student.input.input"]}
    blocks = original.count("student.layers.{}.conv1.bias")
    channels = [original["student.input.input"].shape[1]]
    names = {"first": "student.conv1"}
    for i in range(blocks):
        names |= {f"blocks.{i}.conv{j}": f"student.layers.{i}.conv{j}" for j in (1, 2)}
        _set_style(tensors, f"blocks.{i}.up", original, f"student.layers.{i}.up", 1)
        channels.append(original[f"student.layers.{i}.conv2.bias"].shape[1])
    sides = [4 << level for level in range(len(channels)) for _ in range(2 if level else 1)]
    for (ours, theirs), noise in zip(names.items(), seeded_noise(sides), strict=True):
        _set_convolution(tensors, ours, original, theirs)
        tensors[f"{ours}.noise"] = noise
    last = f"student.layers.{blocks - 1}.to_img"
    tensors["to_rgb"] = original[f"{last}.conv.weight"]
    tensors["to_rgb_bias"] = original[f"{last}.bias"].flatten()
    _set_style(tensors, "to_rgb_style", original, f"{last}.conv", channels[-1])
    mapping_layers = original.count("mapping_net.layers.{}.weight", start=1)
    for i in range(mapping_layers):
        scaled = equalised(original, f"mapping_net.layers.{i + 1}", 1, 0.01)
        set_layer(tensors, f"mapping_network.{i}", scaled)
    z_dim = original["mapping_net.layers.1.weight"].shape[1]
    config = {"channels": channels, "z_dim": z_dim, "mapping_layers": mapping_layers}
    generator = assemble(MobileStyleGAN, config, tensors, checkpoint.path)
    bands_first(generator)
    image_from_bands(generator)
    generator.notes = ("no noise maps in the file: seeded ones are its own noise",)
    return generator


def _set_convolution(tensors: dict[str, Tensor], ours: str, original: Weights, theirs: str) -> None:
    style_inverse = original[f"{theirs}.conv.style_inv"].flatten(0, 2)
    if f"{theirs}.conv.weight_dw" in original:
        depthwise = original[f"{theirs}.conv.weight_dw"]
        kernel = original[f"{theirs}.conv.weight_permute"]
        whole = depthwise.transpose(0, 1) * kernel
        tensors[f"{ours}.depthwise"] = depthwise
    else:
        kernel = whole = original[f"{theirs}.conv.weight"]
    inputs = whole.shape[1]
    power = (whole * style_inverse).square().sum(dim=(1, 2, 3)) / (9 * inputs)
    tensors[f"{ours}.kernel"] = kernel * torch.rsqrt(power + 1e-8)[:, None, None, None]
    tensors[f"{ours}.bias"] = original[f"{theirs}.bias"].flatten()
    tensors[f"{ours}.noise_strength"] = original[f"{theirs}.noise.weight"].reshape(())
    _set_style(tensors, f"{ours}.style", original, f"{theirs}.conv", 9 * inputs)


def _set_style(
    tensors: dict[str, Tensor], ours: str, original: Weights, theirs: str, fan_in: int
) -> None:
    weight, bias = (original[f"{theirs}.modulation.{part}"] for part in ("weight", "bias"))
    set_layer(tensors, ours, (weight / fan_in**0.5, bias / fan_in**0.5))
