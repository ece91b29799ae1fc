"""NVIDIA's network pickles, read without running what they carry.

A `.pkl` of stylegan2-ada-pytorch or stylegan3 holds each module as its class's name, its state and
the Python source of the class. Here only names and states are kept, as `StoredModule`s. A pickle
names the functions it wants called; the few below stand in for those of honest files, and any
other name ends the reading.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn

import numpy as np
import torch
from torch import Tensor

from pulse_exp.errors import UserError

MAX_MODULES = 10_000
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}


class UnsafeError(Exception):
    """A pickle asks for what weights do not need."""


class StoredModule:
    """A module out of a pickle: what its class was called, and its attributes.

    Attributes:
        class_name: such as "SynthesisLayer".
        state: its attributes by name; parameters, buffers and submodules are in torch's own dicts.
    """

    def __init__(self, meta: dict[str, Any]) -> None:
        if not isinstance(meta, dict) or meta.get("type") != "class":
            _refuse("a stored object that is no class instance")
        self.class_name, self.state = str(meta["class_name"]), dict(meta["state"])

    def find(self, path: str) -> StoredModule:
        """The submodule at a dotted path."""
        module = self
        for name in filter(None, path.split(".")):
            module = module.state["_modules"][name]
        return module

    def modules(self, path: str = "", budget: list[int] | None = None) -> Iterator[tuple]:
        """Dotted path and module, of this and all submodules."""
        budget = budget if budget is not None else [MAX_MODULES]
        budget[0] -= 1
        if budget[0] < 0:  # a few modules that hold one another many times over
            _refuse(f"more than {MAX_MODULES} modules")
        yield path, self
        for name, module in self.state.get("_modules", {}).items():
            if isinstance(module, StoredModule):
                yield from module.modules(f"{path}.{name}" if path else str(name), budget)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by dotted name, as in a state dict."""
        return {
            f"{path}.{name}" if path else str(name): tensor
            for path, module in self.modules()
            for kind in ("_parameters", "_buffers")
            for name, tensor in module.state.get(kind, {}).items()
            if isinstance(tensor, Tensor)
        }


class _Dtype:
    """numpy's element type: a plain number's code, byte order as on disk."""

    def __init__(self, code: str, *_: object) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in "biuf":
            _refuse(f"numpy elements of kind {self.dtype.kind!r}")

    def set_state(self, state: tuple) -> None:
        order = state[1]
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """numpy's array, filled when its state arrives."""

    def __init__(self, *_: object) -> None:
        self.values = np.zeros(0)

    def set_state(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(data, dtype.dtype)
        self.values = flat.reshape(shape, order="F" if fortran else "C").copy()


class _Dict(dict):
    """Stands in for dicts with extra manners, such as dnnlib's EasyDict."""


def _scalar(dtype: _Dtype, data: bytes) -> float | int | bool:
    return np.frombuffer(data, dtype.dtype)[0].item()


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    tensor = torch.as_strided(storage, tuple(size), tuple(stride), int(offset))
    if tensor.numel() > storage.numel():
        _refuse("a tensor larger than what is stored of it")
    return tensor


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


def _storage(data: bytes) -> Tensor:
    """Elements of a storage saved by torch's older format inside the pickle."""
    stream = io.BytesIO(data)
    if _Unpickler(stream, {}).load() != LEGACY_MAGIC:
        _refuse("a storage in a format that NVIDIA's files do not use")
    for _ in ("protocol version", "byte sizes"):
        _Unpickler(stream, {}).load()
    names = {("torch", name): name for name in STORAGES}
    kind = _Unpickler(stream, names).load()
    _Unpickler(stream, {}).load()
    dtype = STORAGES[kind]
    count, raw = int.from_bytes(stream.read(8), "little"), stream.read()
    if count * dtype.itemsize != len(raw):
        _refuse("a storage that is cut")
    return torch.frombuffer(bytearray(raw), dtype=dtype) if count else torch.empty(0, dtype=dtype)


_GLOBALS: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): StoredModule,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): _Dict,
    ("dnnlib.util", "EasyDict"): _Dict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _scalar))
    },
}
"""The names honest files ask for -> what is called instead."""


class _Unpickler(pickle._Unpickler):
    """Only names in `known`; state is given to the stand-ins that expect it.

    The pure Python reader: unlike the C one, it allocates no more than the file has.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: BinaryIO | io.BytesIO, known: dict[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self.known = known

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            _refuse(f"it asks for {module}.{name}, which weights do not need")
        return self.known[module, name]

    def persistent_load(self, identifier: Any) -> Any:
        """A storage's element type, in torch's older format."""
        if not (isinstance(identifier, tuple) and identifier[:1] == ("storage",)):
            _refuse("a reference to something outside the file")
        return identifier[1]

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Dtype | _Array):
            _refuse(f"state for a {type(target).__name__}")
        target.set_state(state)

    dispatch[pickle.BUILD[0]] = build


def _refuse(what: str) -> NoReturn:
    raise UnsafeError(what)


def read_pickle(path: Path) -> Any:
    """What an NVIDIA pickle holds: dicts, lists, plain values, tensors and `StoredModule`s.

    Raises:
        UserError: the file is cut, is no such pickle, or asks for any other object or function.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, _GLOBALS).load()
    except UnsafeError as error:
        hint = ""
        if "dnnlib.tflib" in str(error):
            hint = "; it is a TensorFlow network: convert it with legacy.py of NVIDIA's stylegan3"
        raise UserError(f"{path}: refused: {error}; nothing in it was executed{hint}") from error
    except Exception as error:  # whatever bytes that are no pickle may lead to
        raise UserError(
            f"{path}: a cut file, or none with weights ({type(error).__name__}: {error})"
        ) from error
