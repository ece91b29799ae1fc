"""What every generator offers, and our own file format for one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulse_exp.errors import UserError

AnyGenerator = TypeVar("AnyGenerator", bound="Generator")

FORMAT = "pulse_exp.generator/1"

ARCHITECTURES = {
    "dcgan": "pulse_exp.generators.dcgan:DCGAN",
    "mobile_stylegan": "pulse_exp.generators.mobile_stylegan:MobileStyleGAN",
    "progan": "pulse_exp.generators.progan:ProGAN",
    "stylegan1": "pulse_exp.generators.stylegan1:StyleGAN1",
    "stylegan2": "pulse_exp.generators.stylegan2:StyleGAN2",
    "stylegan3": "pulse_exp.generators.stylegan3:StyleGAN3",
    "toy": "pulse_exp.generators.toy:ToyGenerator",
}
"""Name in a file's metadata -> `module:class`; imported only when such a file is loaded."""

SOURCES = {
    "dcgan": "pulse_exp.generators.dcgan:load",
    "file": "pulse_exp.generators.checkpoints:load_checkpoint",
    "mobile_stylegan": "pulse_exp.generators.mobile_stylegan:load",
    "progan": "pulse_exp.generators.progan:load",
    "stylegan1": "pulse_exp.generators.stylegan1:load",
    "stylegan2": "pulse_exp.generators.stylegan2:load",
    "stylegan3": "pulse_exp.generators.stylegan3:load",
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
        notes: what the user should know about these weights, such as what the file lacked.
    """

    architecture: ClassVar[str]
    config: dict[str, Any]
    resolution: int
    z_dim: int
    w_dim: int
    num_ws: int
    noise_shapes: tuple[tuple[int, int], ...] = ()
    mapping_slope: float = 0.2
    notes: tuple[str, ...] = ()

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

    @property
    def exact(self) -> Generator:
        """The network in float32, for what is worked out once and kept for every precision."""
        return self

    @property
    def w_mean(self) -> Float[Tensor, " w_dim"] | None:
        """The mean style vector, where it is known."""
        return None

    def own_noise(self, layer: int) -> Float[Tensor, "1 1 H W"]:
        """The generator's own fixed noise input of a layer, of unit variance."""
        raise NotImplementedError

    def style_layers(self) -> list[nn.Module]:
        """The affine modules that turn a style vector `[B, w_dim]` into a layer's styles `[B, C]`
        by their `weight` `[C, w_dim]`; empty where there are none."""
        return []

    def feature_layers(self) -> list[nn.Module]:
        """The modules, in order of use, whose outputs `[B, C, h, w]` go on to the next layer;
        empty where they cannot be reached."""
        return []

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
        "notes": json.dumps(generator.notes),
        **facts,
    }
    save_file(tensors, str(path), metadata=metadata)


def read(path: str | Path, **options: Any) -> Generator:
    """The generator in a file written by `save`.

    Args:
        options: entries of its `config` to change, such as `class_index`.

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
    try:
        config, notes = json.loads(metadata["config"]), json.loads(metadata.get("notes", "[]"))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: its metadata is damaged ({error})") from error
    generator = assemble(resolve(ARCHITECTURES[architecture]), config | options, tensors, path)
    generator.notes = tuple(notes)
    return generator


def assemble(
    architecture: type[AnyGenerator],
    config: dict[str, Any],
    tensors: Mapping[str, Tensor],
    path: str | Path,
) -> AnyGenerator:
    """The frozen generator of a config and its tensors, which come from the file `path`.

    Raises:
        UserError: they do not fit one another, or a tensor has values that are not finite.
    """
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {name} has values that are not finite: a damaged file")
    try:
        generator = architecture(**config)
        generator.load_state_dict(dict(tensors))
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: does not fit {architecture.architecture}: {reason[:400]}"
        ) from error
    return freeze(generator)


def load(source: str | Path, **options: Any) -> Generator:
    """A ready, frozen generator: by name (`"toy"`), or of a file, ours or an original one.

    Args:
        source: a key of `SOURCES`, or a path. Of a file the kind is recognised.
        options: of the source, such as `weights` (a path), or `class_index`.

    Raises:
        UserError: no such name or file, or a file that cannot be read as a generator.
    """
    name = str(source)
    if name in SOURCES:
        return resolve(SOURCES[name])(**options)
    if Path(source).exists():
        return resolve("pulse_exp.generators.checkpoints:load_checkpoint")(source, **options)
    raise UserError(f"no generator named {name!r} and no such file; names: {', '.join(SOURCES)}")


def freeze(generator: AnyGenerator) -> AnyGenerator:
    """Eval mode, no parameter requires a gradient."""
    return generator.eval().requires_grad_(False)


def resolve(target: str) -> Any:
    """The object that `module:name` names, imported now."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def draw_noise(generator: Generator, batch: int, rng: torch.Generator) -> list[Tensor]:
    """Unit normal noise `[batch, 1, H, W]` for each of the generator's noise inputs."""
    return [torch.randn(batch, 1, h, w, generator=rng) for h, w in generator.noise_shapes]
