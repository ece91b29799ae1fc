"""MobileStyleGAN (Belousov 2021, arXiv 2104.04767): FFHQ faces at 1024² from light convolutions.

The weights are the author's, distilled from NVIDIA's FFHQ StyleGAN2 and published under the
Apache licence in the Python package `random-face` as an exported network. Its demodulation is
folded into the kernels: only the modulation, a scaling of each layer's input channels, depends on
the style. Images are assembled from Haar wavelet bands, four channels at half the side for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator, freeze, resolve
from pulse_exp.generators.openvino_ir import read_constants
from pulse_exp.generators.strips import SLOPE, Separable, StripSynthesis, Workspaces
from pulse_exp.generators.weights import Distribution, cached_generator

MAPPING_GAIN = 2**0.5

RANDOM_FACE = Distribution(
    name="random-face",
    version="2021.7.21.1",
    filename="random_face-2021.7.21.1-py3-none-any.whl",
    sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
)
NETWORKS = "random_face/data/MappingNetwork", "random_face/data/SynthesisNetwork"
FACTS = {
    "origin": "MobileStyleGAN by Sergei Belousov, PyPI random-face 2021.7.21.1, "
    "distilled from NVIDIA's StyleGAN2 trained on FFHQ",
    "licence": "Apache-2.0; FFHQ has terms of its own (CC BY-NC-SA 4.0, NVIDIA)",
}


class Affine(nn.Module):
    """`x @ weight.T + bias`, left unset until weights are loaded."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class StyledConvolution(nn.Module):
    """Modulation, convolution, noise, bias, LeakyReLU.

    The convolution is depthwise 3×3 then 1×1 or, where `dense`, one full 3×3.
    """

    def __init__(
        self, w_dim: int, inputs: int, outputs: int, side: int, dense: bool = False
    ) -> None:
        super().__init__()
        self.style = Affine(w_dim, inputs)
        self.depthwise = None if dense else nn.Parameter(torch.zeros(inputs, 1, 3, 3))
        kernel = 3 if dense else 1
        self.kernel = nn.Parameter(torch.zeros(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise: Tensor
        self.register_buffer("noise", torch.zeros(1, 1, side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = x * self.style(w)[:, :, None, None]
        if self.depthwise is not None:
            x = F.conv2d(x, self.depthwise, padding=1, groups=x.shape[1])
        x = F.conv2d(x, self.kernel, self.bias, padding=self.kernel.shape[-1] // 2)
        x = x + (noise * self.noise_strength).to(x.dtype)  # bf16 stays bf16
        return F.leaky_relu(x, SLOPE)

    def separable(self) -> Separable:
        assert self.depthwise is not None
        return Separable(self.depthwise, self.kernel.flatten(1), self.bias)


class Block(nn.Module):
    """Doubles the side by an inverse Haar wavelet, then two styled convolutions."""

    def __init__(self, w_dim: int, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.up = Affine(w_dim, inputs)
        self.conv1 = StyledConvolution(w_dim, inputs // 4, outputs, side)
        self.conv2 = StyledConvolution(w_dim, outputs, outputs, side)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor, noise1: Tensor, noise2: Tensor) -> Tensor:
        x = inverse_haar(x * self.up(w1)[:, :, None, None])
        return self.conv2(self.conv1(x, w1, noise1), w2, noise2)


class MobileStyleGAN(Generator):
    """A 4×4 constant, one dense convolution, then a block for each further entry of `channels`.

    The last block's output gives the wavelet bands of the image, so `resolution` is
    `4 · 2^len(channels)`. One style vector goes to the first convolution, two to each block (the
    first of them to the upsampling too), and one to the output layer.

    Args:
        channels: of the first convolution, then of each block; multiples of 4 except the last.
        z_dim: size of z and of the style vectors.
        mapping_layers: fully connected layers of the mapping network.
    """

    architecture: ClassVar[str] = "mobile_stylegan"

    def __init__(
        self,
        channels: Sequence[int] = (512, 512, 512, 512, 512, 256, 128, 64),
        z_dim: int = 512,
        mapping_layers: int = 8,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or any(width % 4 for width in channels[:-1]):
            raise ValueError(f"channels must be multiples of 4, two or more; got {channels}")
        self.config = {
            "channels": list(channels),
            "z_dim": z_dim,
            "mapping_layers": mapping_layers,
        }
        self.z_dim = self.w_dim = z_dim
        self.num_ws = 2 * len(channels)
        self.resolution = 4 << len(channels)
        sides = [4 << level for level in range(len(channels))]
        self.noise_shapes = tuple(
            (side, side) for i, side in enumerate(sides) for _ in range(2 if i else 1)
        )
        self.mapping_network = nn.ModuleList(Affine(z_dim, z_dim) for _ in range(mapping_layers))
        self.constant = nn.Parameter(torch.zeros(1, channels[0], 4, 4))
        self.first = StyledConvolution(z_dim, channels[0], channels[0], 4, dense=True)
        self.blocks = nn.ModuleList(
            Block(z_dim, inputs, outputs, side)
            for inputs, outputs, side in zip(channels, channels[1:], sides[1:], strict=False)
        )
        self.to_rgb_style = Affine(z_dim, channels[-1])
        self.to_rgb = nn.Parameter(torch.zeros(12, channels[-1], 1, 1))
        self.to_rgb_bias = nn.Parameter(torch.zeros(12))
        self.workspaces = Workspaces()

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.mapping_network:
            w = F.leaky_relu(layer(w), SLOPE) * MAPPING_GAIN
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        if layer == 0:
            return self.first.noise
        block = self._blocks()[(layer - 1) // 2]
        return (block.conv1 if layer % 2 else block.conv2).noise

    def style_layers(self) -> list[nn.Module]:
        layers: list[nn.Module] = [self.first.style]
        for block in self._blocks():
            layers += [block.up, block.conv1.style, block.conv2.style]
        return [*layers, self.to_rgb_style]

    def feature_layers(self) -> list[nn.Module]:
        return [self.first, *self._blocks()]

    def synthesis(
        self, ws: Float[Tensor, "B num_ws w_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        if noise is None:
            noise = [self.own_noise(layer) for layer in range(len(self.noise_shapes))]
        w = ws.unbind(1)
        x = self.first(self.constant.expand(len(ws), -1, -1, -1), w[0], noise[0])
        if self._strips_pay(ws):
            return self._in_strips(x, w, noise)
        for i, block in enumerate(self._blocks()):
            j = 2 * i + 1
            x = block(x, w[j], w[j + 1], noise[j], noise[j + 1])
        x = x * self.to_rgb_style(w[-1])[:, :, None, None]
        return F.pixel_shuffle(F.conv2d(x, self.to_rgb, self.to_rgb_bias), 2)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _strips_pay(self, ws: Tensor) -> bool:
        """On the CPU with frozen weights: strips have no gradient for those.

        They do not call the blocks either, so they are out while one of them has a hook.
        """
        trained = any(parameter.requires_grad for parameter in self.parameters())
        hooked = any(block._forward_hooks for block in self._blocks())
        return ws.device.type == "cpu" and not trained and not hooked

    @torch.compiler.disable
    def _in_strips(self, x: Tensor, w: Sequence[Tensor], noise: Sequence[Tensor]) -> Tensor:
        """The blocks and the output layer as `strips` computes them, image by image.

        Under autocast the strips are in its type; the styles stay in float32.
        """
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else self.to_rgb_bias.dtype
        kernels = [
            (block.conv1.separable().to(dtype), block.conv2.separable().to(dtype))
            for block in self._blocks()
        ]
        bias = self.to_rgb_bias.to(dtype)
        with torch.autocast("cpu", enabled=False):
            x, *w = (t.to(self.to_rgb.dtype) for t in (x, *w))
            numbers = range(len(kernels))
            modulation = [part for i in numbers for part in self._modulation(i, w, noise)]
            to_rgb = self.to_rgb.flatten(1) * self.to_rgb_style(w[-1])[:, None]
            x = x.permute(0, 2, 3, 1).contiguous()
            images = [
                StripSynthesis.apply(self.workspaces, kernels, bias, *inputs)
                for inputs in zip(to_rgb, x, *modulation, strict=True)
            ]
        return images[0][None] if len(images) == 1 else torch.stack(images)

    def _modulation(
        self, number: int, w: Sequence[Tensor], noise: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a block's strips need of the styles and the noise, with a row for each image."""
        block, first = self._blocks()[number], 2 * number + 1
        noise1, noise2 = (
            (noise[layer] * conv.noise_strength).expand(len(w[0]), -1, -1, -1)[:, 0]
            for layer, conv in ((first, block.conv1), (first + 1, block.conv2))
        )
        return (
            block.up(w[first]) * block.conv1.style(w[first]).repeat(1, 4) / 2,
            block.conv2.style(w[first + 1]),
            noise1,
            noise2,
        )


def inverse_haar(x: Float[Tensor, "B 4*C H W"]) -> Float[Tensor, "B C 2*H 2*W"]:
    """The image whose orthonormal Haar bands are `x`: C channels of each band, coarse first."""
    a, b, c, d = x.chunk(4, dim=1)
    (p, q), (r, s) = ((a + b) / 2, (a - b) / 2), ((c + d) / 2, (c - d) / 2)
    return F.pixel_shuffle(torch.stack([p + r, p - r, q + s, q - s], dim=2).flatten(1, 2), 2)


def load(weights: str | Path | None = None) -> MobileStyleGAN:
    """The published FFHQ generator at 1024², fetched, verified and converted at first use.

    Args:
        weights: a training checkpoint of the upstream repository, or a converted file, instead.
    """
    if weights is not None:
        return resolve("pulse_exp.generators.checkpoints:load_checkpoint")(
            weights, "mobile_stylegan"
        )
    generator = cached_generator(
        "mobile_stylegan-1",
        RANDOM_FACE,
        [network + ending for network in NETWORKS for ending in (".xml", ".bin")],
        convert,
        **FACTS,
    )
    assert isinstance(generator, MobileStyleGAN)
    return generator


def convert(members: Mapping[str, bytes]) -> MobileStyleGAN:
    """The generator of the exported networks: constants named, gains folded, noise normalised."""
    mapping, synthesis = (
        [
            (name, torch.tensor(value))
            for name, value in read_constants(members[f"{n}.xml"], members[f"{n}.bin"])
        ]
        for n in NETWORKS
    )
    named = dict(synthesis)
    # Demodulated kernels and noise maps lost their names; both come in the order of the layers.
    kernels = iter([t for name, t in synthesis if name.startswith("Mul_") and t.ndim == 4])
    noises = iter([t for _, t in synthesis if t.shape[:2] == (1, 1) and t.numel() > 1])

    def set_affine(affine: Affine, name: str, gain: float = 1.0) -> None:
        affine.weight.data = named[f"{name}.modulation.weight"] * gain
        affine.bias.data = named[f"{name}.modulation.bias"].flatten() * gain

    def set_convolution(layer: StyledConvolution, name: str) -> None:
        layer.kernel.data = next(kernels)
        fan_in = layer.kernel.shape[1] * 9
        set_affine(layer.style, f"{name}.conv", fan_in**-0.5)
        if layer.depthwise is not None:
            layer.depthwise.data = named[f"{name}.conv.weight_dw"].flatten(1, 2)
        layer.bias.data = named[f"{name}.bias"].flatten()
        noise = next(noises)
        layer.noise_strength.data = noise.square().mean().sqrt()
        layer.noise = noise / layer.noise_strength

    generator = MobileStyleGAN()
    for layer, weight, bias in zip(
        generator.mapping_network,
        [t for _, t in mapping if t.ndim == 2 and t.numel() > 1],
        [t for _, t in mapping if t.ndim == 1 and len(t) == generator.z_dim],
        strict=True,
    ):
        layer.weight.data, layer.bias.data = weight, bias
    generator.constant.data = named["m.input.input"]
    set_convolution(generator.first, "m.conv1")
    for i, block in enumerate(generator._blocks()):
        set_affine(block.up, f"m.layers.{i}.up")
        set_convolution(block.conv1, f"m.layers.{i}.conv1")
        set_convolution(block.conv2, f"m.layers.{i}.conv2")
    last = f"m.layers.{len(generator.blocks) - 1}.to_img"
    set_affine(generator.to_rgb_style, f"{last}.conv", generator.to_rgb.shape[1] ** -0.5)
    generator.to_rgb.data = named[f"{last}.conv.weight"]
    generator.to_rgb_bias.data = named[f"{last}.bias"].flatten()
    bands_first(generator)
    image_from_bands(generator)
    freeze(generator)
    return generator


def bands_first(generator: MobileStyleGAN) -> None:
    """Reorders channels before each upsampling: exported as C coarse ones, then three details for
    each of them; here as C channels of each band."""
    producer = generator.first
    for block in generator._blocks():
        order = _band_order(len(producer.bias))
        producer.kernel.data = producer.kernel[order]
        producer.bias.data = producer.bias[order]
        block.up.weight.data, block.up.bias.data = block.up.weight[order], block.up.bias[order]
        producer = block.conv2


def image_from_bands(generator: MobileStyleGAN) -> None:
    """Folds the last wavelet and the change from [-1, 1] to [0, 1] into the output layer."""
    order = _band_order(12)
    bands = generator.to_rgb[order].reshape(4, 3, -1), generator.to_rgb_bias[order].reshape(4, 3, 1)
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])
    weight, bias = (torch.einsum("pb,bci->cpi", signs / 2, t).reshape(12, -1) for t in bands)
    generator.to_rgb.data = weight[:, :, None, None] / 2
    generator.to_rgb_bias.data = (bias[:, 0] + 1) / 2


def _band_order(channels: int) -> Tensor:
    """Position in the exported order of each channel of the order by bands."""
    coarse = channels // 4
    details = coarse + torch.arange(3 * coarse).reshape(coarse, 3).T.flatten()
    return torch.cat([torch.arange(coarse), details])
