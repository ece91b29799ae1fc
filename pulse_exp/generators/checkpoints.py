"""Weight files as their authors published them: opened without running them, and recognised.

`.pt` files are read with `weights_only=True`, NVIDIA's `.pkl` by `pickles`. What a file holds is
told from the names of its tensors.
"""

from __future__ import annotations

import inspect
import logging
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, read, resolve

log = logging.getLogger(__name__)

LAYOUTS = {
    "blocks.4x4.const": ("stylegan1", "PULSE synthesis"),
    "dense0.weight": ("stylegan1", "PULSE mapping"),
}
"""A tensor only that layout has -> the architecture and the layout's name."""

CONVERTERS = {
    "stylegan1": "pulse_exp.generators.stylegan1:convert",
}
"""Architecture -> `module:function` from an opened checkpoint to the generator."""

CONTAINERS = ("",)
"""Where in a file a generator may lie, averaged weights first; "" is the file itself."""


class Weights(Mapping[str, Tensor]):
    """The tensors of one network by name; a missing one is the user's file being incomplete."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        self.tensors, self.path = tensors, path

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UserError(f"{self.path}: the tensor {name} is missing: an incomplete file")
        return self.tensors[name]

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
    """

    path: Path
    architecture: str
    layout: str
    tensors: Weights
    contents: Mapping[str, Any]


def load_checkpoint(path: str | Path, architecture: str | None = None, **options: Any) -> Generator:
    """The generator of a file: one of ours, or an original one.

    Args:
        path: the file; for stylegan1 also the folder of its two files.
        architecture: what the user says it is; None to recognise it.
        options: for the architecture's converter.

    Raises:
        UserError: unreadable, unsafe, unknown, or of another architecture.
    """
    path = Path(path).expanduser()
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
        generator = convert(checkpoint, **given)
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
        tensors = _tensors(_dig(contents, container))
        for mark, (architecture, layout) in LAYOUTS.items():
            if mark in tensors:
                return Checkpoint(path, architecture, layout, Weights(tensors, path), contents)
    names = ", ".join(str(name) for name in list(contents)[:4])
    raise UserError(
        f"{path}: no generator known here; it begins with {names or 'nothing'}. "
        f"Known: {', '.join(sorted({layout for _, layout in LAYOUTS.values()}))}"
    )


def _dig(contents: Any, dotted: str) -> Any:
    for key in filter(None, dotted.split(".")):
        contents = contents.get(key) if isinstance(contents, Mapping) else None
    return contents


def _tensors(network: Any) -> dict[str, Tensor]:
    """Tensors of a state dict in float32, without the prefix that data parallelism leaves."""
    if not isinstance(network, Mapping):
        return {}
    return {
        str(name).removeprefix("module."): value.detach().float()
        for name, value in network.items()
        if isinstance(value, Tensor) and value.layout == torch.strided
    }


def _read(path: Path) -> Mapping[str, Any]:
    """A file's top level."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    contents = read_torch(path)
    if not isinstance(contents, Mapping):
        raise UserError(f"{path}: holds a {type(contents).__name__}, not a set of weights")
    return contents


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, read without executing anything."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > size:  # torch.save stores its entries as they are
            raise UserError(f"{path}: {size} bytes that would unpack to {unpacked}: refused")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).split(". ")[0].split("\n")[0]
        raise UserError(f"{path}: refused: {reason}") from error
