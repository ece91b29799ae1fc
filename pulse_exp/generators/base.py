"""What every generator offers, and our own file format for one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.errors import UserError

FORMAT = "pulse_exp.generator/1"

ARCHITECTURES = {
    "mobile_stylegan": "pulse_exp.generators.mobile_stylegan:MobileStyleGAN",
    "toy": "pulse_exp.generators.toy:ToyGenerator",
}
"""Name in a file's metadata -> `module:class`; imported only when such a file is loaded."""

SOURCES = {
    "mobile_stylegan": "pulse_exp.generators.mobile_stylegan:load",
    "toy": "pulse_exp.generators.toy:load",
}
"""Name a user may give to `load` -> `module:function` that returns the ready generator."""


class Generator(nn.Module):
    """A latent-variable image generator: `z -> mapping -> ws -> synthesis -> image`.

    Generators are frozen: no parameter requires a gradient, and `eval()` is their only mode.

    Attributes:
        architecture: key of this class in `ARCHITECTURES`.
        config: the JSON-able keyword arguments that rebuild the module, `type(self)(**config)`.
        resolution: side of the square output, in pixels.
        z_dim, w_dim: sizes of the input latent and of a style vector.
        num_ws: how many style vectors reach the image. A generator without a style space has
            `num_ws = 1` and an identity mapping.
        noise_shapes: `(H, W)` of each noise input, in the order of the layers; empty if none.
        mapping_slope: negative slope of the mapping's last LeakyReLU, which latent spaces undo;
            1 where the mapping ends without one.
    """

    architecture: ClassVar[str]
    config: dict[str, Any]
    resolution: int
    z_dim: int
    w_dim: int
    num_ws: int
    noise_shapes: tuple[tuple[int, int], ...] = ()
    mapping_slope: float = 0.2

    def mapping(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B num_ws w_dim"]:
        """Style vectors of standard normal latents."""
        raise NotImplementedError

    def synthesis(
        self,
        ws: Float[Tensor, "B num_ws w_dim"],
        noise: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "B 3 R R"]:
        """Images of style vectors: nominally in [0, 1], not clamped.

        Args:
            ws: `[B, num_ws, w_dim]`.
            noise: one tensor `[B or 1, 1, H, W]` of unit variance for each of `noise_shapes`;
                None uses the generator's own fixed noise.
        """
        raise NotImplementedError

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        """The generator's own fixed noise input of a layer, of unit variance."""
        raise NotImplementedError

    def forward(self, z: Float[Tensor, "B z_dim"]) -> Float[Tensor, "B 3 R R"]:
        return self.synthesis(self.mapping(z))


def save(generator: Generator, path: str | Path, **facts: str) -> None:
    """Writes one safetensors file that `load(path)` reads without being told the kind.

    `facts` (origin, licence ...) are kept in the file's metadata.
    """
    from safetensors.torch import save_file

    tensors = {name: t.detach().cpu().contiguous() for name, t in generator.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "architecture": generator.architecture,
        "config": json.dumps(generator.config, sort_keys=True),
        **facts,
    }
    save_file(tensors, str(path), metadata=metadata)


def read(path: str | Path) -> Generator:
    """The generator in a file written by `save`.

    Raises:
        UserError: the file is not one of ours, is cut, or does not fit its architecture.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error
    architecture = metadata.get("architecture", "")
    if metadata.get("format") != FORMAT or architecture not in ARCHITECTURES:
        raise UserError(
            f"{path}: not a generator written by task=convert (architecture {architecture!r}); "
            f"convert the original file first. Known: {', '.join(sorted(ARCHITECTURES))}"
        )
    generator = resolve(ARCHITECTURES[architecture])(**json.loads(metadata["config"]))
    try:
        generator.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path}: tensors do not fit {architecture}: {error}") from error
    return freeze(generator)


def load(source: str | Path, **options: Any) -> Generator:
    """A ready, frozen generator, by name (`"toy"`) or from a file written by `save`."""
    name = str(source)
    if name in SOURCES:
        return resolve(SOURCES[name])(**options)
    if Path(source).is_file():
        return read(source)
    raise UserError(f"no generator named {name!r} and no such file; names: {', '.join(SOURCES)}")


def freeze(generator: Generator) -> Generator:
    """Eval mode, no parameter requires a gradient."""
    return generator.eval().requires_grad_(False)


def resolve(target: str) -> Any:
    """The object that `module:name` names, imported now."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def draw_noise(generator: Generator, batch: int, rng: torch.Generator) -> list[Tensor]:
    """Unit normal noise `[batch, 1, H, W]` for each of the generator's noise inputs."""
    return [torch.randn(batch, 1, h, w, generator=rng) for h, w in generator.noise_shapes]
