"""StyleGAN3 (Karras et al. 2021, arXiv 2106.12423), configurations t and r, from NVIDIA's pickles.

Each layer's sizes, rates and filters are the file's own. Between the filters, LeakyReLU acts at a
higher sampling rate so that it makes no aliases; there are no noise inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator, assemble
from pulse_exp.generators.checkpoints import Checkpoint, load_checkpoint
from pulse_exp.generators.layers import (
    SLOPE,
    StyleGenerator,
    add_mean,
    demodulation,
    equalised,
    linear,
    nvidia_mapping,
    parameter,
    set_layer,
)

GAIN = 2**0.5


@dataclass(frozen=True)
class LayerShape:
    """What a layer is made of.

    Attributes:
        inputs, outputs, kernel: of the convolution, which pads by `kernel - 1`.
        up, down: factors around LeakyReLU; `up_taps`, `down_taps`: lengths of their filters,
            0 for none; `radial`: whether the second one is two-dimensional.
        padding: left, right, top, bottom, in pixels of the upsampled image.
        clamp: bound of the output, None for none.
        to_rgb: the last layer, without demodulation, filters or LeakyReLU.
    """

    inputs: int
    outputs: int
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    radial: bool
    padding: tuple[int, int, int, int]
    clamp: float | None
    to_rgb: bool


class FourierInput(nn.Module):
    """Sine waves on a grid, turned and moved as the first style says, mixed by a matrix."""

    def __init__(
        self, channels: int, w_dim: int, size: int, sampling_rate: float, bandwidth: float
    ) -> None:
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = size, sampling_rate, bandwidth
        self.weight = parameter(channels, channels)
        self.style = linear(w_dim, 4)
        self.frequencies, self.phases = parameter(channels, 2), parameter(channels)
        self.transform = parameter(3, 3)

    def forward(self, w: Float[Tensor, "B w_dim"]) -> Float[Tensor, "B C H W"]:
        with torch.autocast(w.device.type, enabled=False):
            return self._waves(self.style(w.to(self.weight.dtype))).to(w.dtype)

    def _waves(self, t: Float[Tensor, "B 4"]) -> Float[Tensor, "B C H W"]:
        """The features for a turn (t₀, t₁) and a shift (t₂, t₃), in float32 at least."""
        dtype = torch.promote_types(t.dtype, torch.float32)
        t, weight, frequencies, phases, base = (
            values.to(dtype)
            for values in (t, self.weight, self.frequencies, self.phases, self.transform)
        )
        cosine, sine, right, down = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        one, zero = torch.ones_like(cosine), torch.zeros_like(cosine)
        turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one], dim=1)
        move = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], dim=1)
        transform = turn.view(-1, 3, 3) @ move.view(-1, 3, 3) @ base
        phases = phases[:, None] + frequencies @ transform[:, :2, 2:]
        frequencies = frequencies @ transform[:, :2, :2]
        # Frequencies that a transform brings beyond the band fade out.
        beyond = frequencies.norm(dim=2) - self.bandwidth
        amplitudes = (1 - beyond / (self.sampling_rate / 2 - self.bandwidth)).clamp(0, 1)
        half = 0.5 * self.size / self.sampling_rate
        steps = (torch.arange(self.size, device=t.device, dtype=dtype) + 0.5) * 2 / self.size - 1
        x, y = (frequencies[:, :, i, None] * (steps * half) for i in range(2))
        waves = y[:, :, :, None] + x[:, :, None, :] + phases[:, :, :, None]
        waves = torch.sin(waves * (2 * math.pi)) * amplitudes[:, :, None, None]
        return torch.einsum("oc,bchw->bohw", weight, waves)


class Layer(nn.Module):
    """Modulated convolution and bias; LeakyReLU at `up` times the rate; then down."""

    def __init__(self, shape: LayerShape, w_dim: int) -> None:
        super().__init__()
        self.up_filter: Tensor | None
        self.down_filter: Tensor | None
        self.shape = shape
        self.weight = parameter(shape.outputs, shape.inputs, shape.kernel, shape.kernel)
        self.style = linear(w_dim, shape.inputs)
        self.bias = parameter(shape.outputs)
        self.gain = parameter()
        sizes = {
            "up_filter": (shape.up_taps, False),
            "down_filter": (shape.down_taps, shape.radial),
        }
        for name, (taps, radial) in sizes.items():
            size = (taps, taps) if radial else (taps,)
            self.register_buffer(name, torch.empty(size) if taps else None)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        shape = self.shape
        style = self.style(w)
        x = F.conv2d(x * style[:, :, None, None], self.weight, padding=shape.kernel - 1)
        gain = self.gain if shape.to_rgb else demodulation(self.weight, style) * self.gain
        x = torch.addcmul(self.bias[:, None, None].to(x.dtype), x, gain.to(x.dtype))
        x = upsample(x, self.up_filter, shape.up, shape.padding)
        if not shape.to_rgb:
            x = F.leaky_relu_(x, SLOPE)
        if shape.clamp is not None:
            x = F.hardtanh(x, -shape.clamp, shape.clamp)
        return downsample(x, self.down_filter, shape.down)


def upsample(
    x: Float[Tensor, "B C H W"],
    taps: Float[Tensor, " T"] | None,
    factor: int,
    padding: Sequence[int],
) -> Tensor:
    """Zeros between the pixels, padding (or cropping), then the filter along both sides."""
    if taps is None:
        return F.pad(x, list(padding)) if any(padding) else x
    channels, length = x.shape[1], len(taps)
    for side, (before, after) in ((3, padding[:2]), (2, padding[2:])):
        # What a transposed convolution gives too much at either end.
        low, high = length - 1 - before, length - factor - after
        crop = max(0, min(low, high))
        kernel = taps.view(1, 1, 1, -1) if side == 3 else taps.view(1, 1, -1, 1)
        x = F.conv_transpose2d(
            x,
            kernel.expand(channels, -1, -1, -1),
            stride=(1, factor) if side == 3 else (factor, 1),
            padding=(0, crop) if side == 3 else (crop, 0),
            groups=channels,
        )
        if (low, high) != (crop, crop):
            rest = [crop - low, crop - high]
            x = F.pad(x, rest if side == 3 else [0, 0, *rest])
    return x


def downsample(x: Float[Tensor, "B C H W"], taps: Tensor | None, factor: int) -> Tensor:
    """The filter (one-dimensional along both sides, or two-dimensional), then every n-th pixel."""
    if taps is None:
        return x
    channels = x.shape[1]
    if taps.ndim == 2:
        kernel = taps.flip(0, 1).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, stride=factor, groups=channels)
    row = taps.flip(0).expand(channels, 1, 1, -1)
    x = F.conv2d(x, row, stride=(1, factor), groups=channels)
    return F.conv2d(x, row.transpose(2, 3), stride=(factor, 1), groups=channels)


class StyleGAN3(StyleGenerator):
    """Fourier features, then alias-free layers; the last gives the image.

    Args:
        resolution: side of the image.
        layers: a `LayerShape` for each layer, as a dict.
        size, sampling_rate, bandwidth: of the Fourier features.
        output_scale: the last layer's output is this times an image in [-1, 1].
        z_dim, w_dim, mapping_widths, num_classes, class_dim, class_index, mean: see
            `StyleGenerator`.
    """

    architecture: ClassVar[str] = "stylegan3"

    def __init__(
        self,
        resolution: int,
        layers: Sequence[dict[str, Any]],
        size: int,
        sampling_rate: float,
        bandwidth: float,
        output_scale: float,
        z_dim: int,
        w_dim: int,
        mapping_widths: Sequence[int],
        num_classes: int = 0,
        class_dim: int = 0,
        class_index: int | None = None,
        mean: bool = True,
    ) -> None:
        shapes = [LayerShape(**layer) for layer in layers]
        super().__init__(
            z_dim,
            w_dim,
            len(shapes) + 1,
            mapping_widths,
            num_classes,
            class_dim,
            class_index,
            mean,
        )
        self.config = {
            "resolution": resolution,
            "layers": [asdict(shape) for shape in shapes],
            "size": size,
            "sampling_rate": sampling_rate,
            "bandwidth": bandwidth,
            "output_scale": output_scale,
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_widths": list(mapping_widths),
            "num_classes": num_classes,
            "class_dim": class_dim,
            "class_index": class_index,
            "mean": mean,
        }
        self.resolution, self.output_scale = resolution, output_scale
        self.input = FourierInput(shapes[0].inputs, w_dim, size, sampling_rate, bandwidth)
        self.layers = nn.ModuleList(Layer(shape, w_dim) for shape in shapes)

    def feature_layers(self) -> list[nn.Module]:
        return list(self.layers)[:-1]

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        first, *others = ws.unbind(1)
        x = self.input(first)
        for layer, w in zip(self.layers, others, strict=True):
            x = layer(x, w)
        return x * (self.output_scale / 2) + 0.5


def load(weights: str | Path | None = None, class_index: int | None = None) -> Generator:
    """The generator of NVIDIA's file.

    Args:
        class_index: which class to draw, of a class-conditional network.

    Raises:
        UserError: the file is of another kind, damaged or unsafe, or needs a `class_index`.
    """
    return load_checkpoint(weights, "stylegan3", class_index=class_index)


def convert(checkpoint: Checkpoint, class_index: int | None = None) -> StyleGAN3:
    """The generator of an opened file."""
    original, network = checkpoint.tensors, checkpoint.network
    assert network is not None
    tensors: dict[str, Tensor] = {}
    config = nvidia_mapping(checkpoint, tensors)
    synthesis = network.find("synthesis").state
    layers = []
    for i, name in enumerate(synthesis["layer_names"]):
        attributes = network.find(f"synthesis.{name}").state
        shape = _shape(attributes, {k: original.get(f"synthesis.{name}.{k}") for k in FILTERS})
        _set_layer(tensors, f"layers.{i}", checkpoint, f"synthesis.{name}", shape)
        layers.append(asdict(shape))
    source = network.find("synthesis.input").state
    weight = original["synthesis.input.weight"]
    tensors["input.weight"] = weight / weight.shape[1] ** 0.5
    set_layer(tensors, "input.style", equalised(original, "synthesis.input.affine"))
    tensors["input.frequencies"] = original["synthesis.input.freqs"]
    tensors["input.phases"] = original["synthesis.input.phases"]
    tensors["input.transform"] = original["synthesis.input.transform"]
    config |= {
        "resolution": int(synthesis["img_resolution"]),
        "layers": layers,
        "size": int(source["size"].values[0]),
        "sampling_rate": float(source["sampling_rate"]),
        "bandwidth": float(source["bandwidth"]),
        "output_scale": float(synthesis["output_scale"]),
        "class_index": class_index,
        "mean": "mean_style" in tensors,
    }
    generator = assemble(StyleGAN3, config, tensors, checkpoint.path)
    if not config["mean"]:
        generator.notes = add_mean(generator)
    return generator


FILTERS = "up_filter", "down_filter"


def _shape(attributes: dict[str, Any], filters: dict[str, Tensor | None]) -> LayerShape:
    up, down = (filters[name] for name in FILTERS)
    clamp = attributes["conv_clamp"]
    left, right, top, bottom = (int(side) for side in attributes["padding"])
    return LayerShape(
        inputs=int(attributes["in_channels"]),
        outputs=int(attributes["out_channels"]),
        kernel=int(attributes["conv_kernel"]),
        up=int(attributes["up_factor"]),
        down=int(attributes["down_factor"]),
        up_taps=0 if up is None else len(up),
        down_taps=0 if down is None else len(down),
        radial=down is not None and down.ndim == 2,
        padding=(left, right, top, bottom),
        clamp=None if clamp is None else float(clamp),
        to_rgb=bool(attributes["is_torgb"]),
    )


def _set_layer(
    tensors: dict[str, Tensor], ours: str, checkpoint: Checkpoint, theirs: str, shape: LayerShape
) -> None:
    original = checkpoint.tensors
    weight, bias = original[f"{theirs}.weight"], original[f"{theirs}.bias"]
    style_weight, style_bias = equalised(original, f"{theirs}.affine")
    gain = original[f"{theirs}.magnitude_ema"].rsqrt()
    if shape.to_rgb:
        gain = gain / (shape.inputs * shape.kernel**2) ** 0.5
    else:
        weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
        gain, bias = gain * GAIN, bias * GAIN  # of LeakyReLU
    set_layer(tensors, ours, (weight, bias))
    set_layer(tensors, f"{ours}.style", (style_weight, style_bias))
    tensors[f"{ours}.gain"] = gain.reshape(())
    for name, factor in zip(FILTERS, (shape.up, 1), strict=True):
        taps = original.get(f"{theirs}.{name}")
        if taps is not None:  # along each side the zeros between the pixels take 1/factor away
            tensors[f"{ours}.{name}"] = taps * factor
