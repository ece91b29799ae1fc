"""Weight files as their authors published them: opened without running them, and recognised.

`.pt` files are read with `weights_only=True`, NVIDIA's `.pkl` by `pickles`. What a file holds is
told from the names of its tensors.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import re
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, read, resolve
from pulse_exp.generators.pickles import StoredModule, UnsafeError, read_pickle

log = logging.getLogger(__name__)

LAYOUTS = {
    "blocks.4x4.const": ("stylegan1", "PULSE synthesis"),
    "dense0.weight": ("stylegan1", "PULSE mapping"),
    "to_rgb1.conv.modulation.weight": ("stylegan2", "rosinality"),
    "synthesis.b4.const": ("stylegan2", "NVIDIA"),
    "synthesis.input.freqs": ("stylegan3", "NVIDIA"),
    "student.input.input": ("mobile_stylegan", "MobileStyleGAN.pytorch"),
    "formatLayer.weight": ("progan", "pytorch_GAN_zoo"),
    "rgb_converters.0.weight": ("progan", "pro_gan_pytorch"),
    "main.1.running_mean": ("dcgan", "PyTorch tutorial"),
}
"""A tensor only that layout has -> the architecture and the layout's name."""

CONVERTERS = {
    "dcgan": "pulse_exp.generators.dcgan:convert",
    "mobile_stylegan": "pulse_exp.generators.mobile_upstream:convert",
    "progan": "pulse_exp.generators.progan:convert",
    "stylegan1": "pulse_exp.generators.stylegan1:convert",
    "stylegan2": "pulse_exp.generators.stylegan2:convert",
    "stylegan3": "pulse_exp.generators.stylegan3:convert",
}
"""Architecture -> `module:function` from an opened checkpoint to the generator."""

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch's older format begin: its magic number, pickled."""

CONTAINERS = (
    "g_ema",
    "G_ema",
    "avgG",
    "shadow_generator.state_dict",
    "g",
    "G",
    "netG",
    "generator.state_dict",
    "netG_state_dict",
    "state_dict",
    "",
)
"""Where in a file a generator may lie, averaged weights first; "" is the file itself."""


INERT_CLASSES: list[Any] = [
    Namespace,
    type("BaseConfig", (), {"__module__": "models.utils.config"}),
]
"""Classes without behaviour that training code saves beside the weights: rosinality's arguments,
pytorch_GAN_zoo's config (this stands in for it)."""


class Weights(Mapping[str, Tensor]):
    """The tensors of one network by name; a missing one is the user's file being incomplete."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        self.tensors, self.path = tensors, path

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UserError(f"{self.path}: the tensor {name} is missing: an incomplete file")
        return self.tensors[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.tensors.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def count(self, pattern: str, start: int = 0) -> int:
        """How many of `pattern.format(start)`, `pattern.format(start + 1)` ... there are."""
        i = start
        while pattern.format(i) in self.tensors:
            i += 1
        return i - start


@dataclass(frozen=True)
class Checkpoint:
    """An original file, opened.

    Attributes:
        architecture, layout: what it was recognised as.
        tensors: of the generator's network.
        contents: the whole file's top level, for what lies beside the network.
        settings: what the file says beside the tensors of this network.
        network: the stored module, where the file holds modules and not only tensors.
    """

    path: Path
    architecture: str
    layout: str
    tensors: Weights
    contents: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: StoredModule | None = None


def load_checkpoint(
    weights: str | Path | None = None, architecture: str | None = None, **options: Any
) -> Generator:
    """The generator of a file: one of ours, or an original one.

    Args:
        weights: the file; for stylegan1 also the folder of its two files.
        architecture: what the user says it is; None to recognise it.
        options: for the architecture's converter.

    Raises:
        UserError: unreadable, unsafe, unknown, or of another architecture.
    """
    if weights is None:
        raise UserError(
            f"generator={architecture or 'file'} needs its file: generator.weights=PATH "
            "(docs/generators.md says where users get it)"
        )
    path = Path(weights).expanduser()
    if path.is_dir():
        path = path / "synthesis.pt"
    given = {name: value for name, value in options.items() if value is not None}
    if path.suffix == ".safetensors":
        generator = read(path, **given)
        _check_kind(path, generator.architecture, architecture)
    else:
        checkpoint = open_checkpoint(path)
        _check_kind(path, checkpoint.architecture, architecture)
        convert = resolve(CONVERTERS[checkpoint.architecture])
        if unknown := given.keys() - inspect.signature(convert).parameters:
            raise UserError(f"{checkpoint.architecture} takes no option {', '.join(unknown)}")
        try:
            generator = convert(checkpoint, **given)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as e:
            raise UserError(
                f"{path}: looks like {checkpoint.layout}'s {checkpoint.architecture}, but its "
                "parts do not fit together: a damaged or an altered file "
                f"({type(e).__name__}: {e})"
            ) from e
    for note in generator.notes:
        log.warning("%s: %s", path, note)
    return generator


def _check_kind(path: Path, found: str, expected: str | None) -> None:
    if expected not in (None, found):
        raise UserError(f"{path} looks like {found}, not {expected}: say generator={found}")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and recognises an original file.

    Raises:
        UserError: missing, damaged, unsafe, or of no known layout.
    """
    path = Path(path).expanduser()
    contents = _read(path)
    for container in CONTAINERS:
        network = _dig(contents, container)
        module = network if isinstance(network, StoredModule) else None
        tensors = _tensors(_stored(module, path) if module else network, path)
        for mark, (architecture, layout) in LAYOUTS.items():
            if mark in tensors:
                weights = Weights(tensors, path)
                settings = _dig(contents, f"{container.partition('.')[0]}.conf") or {}
                return Checkpoint(path, architecture, layout, weights, contents, settings, module)
    names = ", ".join(str(name) for name in list(contents)[:4])
    raise UserError(
        f"{path}: no generator known here; it begins with {names or 'nothing'}. "
        f"Known: {', '.join(sorted({layout for _, layout in LAYOUTS.values()}))}"
    )


def _dig(contents: Any, dotted: str) -> Any:
    for key in filter(None, dotted.split(".")):
        contents = contents.get(key) if isinstance(contents, Mapping) else None
    return contents


def _stored(module: StoredModule, path: Path) -> dict[str, Tensor]:
    try:
        return module.tensors()
    except UnsafeError as error:
        raise UserError(f"{path}: refused: {error}") from error


def _tensors(network: Any, path: Path) -> dict[str, Tensor]:
    """Tensors of a state dict in float32, without the names of wrappers around the layers."""
    tensors = {}
    for name, value in network.items() if isinstance(network, Mapping) else ():
        if isinstance(value, Tensor) and value.layout == torch.strided:
            if value.nbytes > value.untyped_storage().nbytes():
                raise UserError(f"{path}: {name} is larger than what is stored of it: refused")
            plain = str(name).removeprefix("module.").replace(".module.", ".")
            tensors[plain] = value.detach().float()
    return tensors


def _read(path: Path) -> Mapping[str, Any]:
    """A file's top level."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    contents = read_torch(path) if _is_torch(path) else read_pickle(path)
    if isinstance(contents, StoredModule):
        return {"G_ema": contents}
    if not isinstance(contents, Mapping):
        raise UserError(f"{path}: holds a {type(contents).__name__}, not a set of weights")
    return contents


def _is_torch(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LEGACY_START)).startswith((LEGACY_START, b"PK"))


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, read without executing anything."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:  # torch.save stores its entries as they are
            raise UserError(f"{path}: {size} bytes that would unpack to {unpacked}: refused")
    try:
        with torch.serialization.safe_globals(INERT_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it asks for {asked[1]}, which weights do not need" if asked else "an unsafe pickle"
        raise UserError(f"{path}: refused: {what}; nothing in it was executed") from error
    except Exception as error:  # whatever damaged bytes may lead to
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: a cut or damaged file ({reason})") from error
