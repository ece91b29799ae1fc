"""Writes pickles laid out as NVIDIA's, out of names, shapes and attributes alone.

NVIDIA pickles a module as a call of `torch_utils.persistence._reconstruct_persistent_obj` with
the class's name, the source of its Python file and the module's state. The source here is a trap:
whoever runs it fails.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from unittest import mock

import torch

TRAP = "raise SystemExit('the source in the pickle was executed')"


def _reconstruct_persistent_obj(meta):
    raise AssertionError("only named in pickles, never called")


class Module:
    """A module to be: pickles as NVIDIA's persistent classes do."""

    def __init__(self, class_name: str, attributes: dict) -> None:
        self.class_name = class_name
        self.state = {
            "training": False,
            "_parameters": OrderedDict(),
            "_buffers": OrderedDict(),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(),
            **attributes,
        }

    def walk(self, path: str = ""):
        """Dotted path and module, of this and all submodules."""
        yield path, self
        for name, module in self.state["_modules"].items():
            yield from module.walk(f"{path}.{name}" if path else name)

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": TRAP, "class_name": self.class_name}
        return _reconstruct_persistent_obj, ({**meta, "state": self.state},)


def modules_from(attributes: dict[str, dict], state: dict[str, torch.Tensor]) -> Module:
    """The tree of modules: attributes of each by dotted path ("" is the root), and its tensors."""
    tree = {path: Module(found["class_name"], found) for path, found in attributes.items()}
    for path, module in tree.items():
        if path:
            parent, _, name = path.rpartition(".")
            tree[parent].state["_modules"][name] = module
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        tree[path].state["_parameters"][leaf] = torch.nn.Parameter(tensor)
    return tree[""]


def write_pickle(path, contents, protocol: int = 4) -> None:
    """Pickles `contents` with the reconstruction under the name that NVIDIA's files use."""
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    parent = types.ModuleType("torch_utils")
    parent.persistence = module
    with (
        mock.patch.dict(sys.modules, {"torch_utils": parent, module.__name__: module}),
        mock.patch.object(_reconstruct_persistent_obj, "__module__", module.__name__),
        path.open("wb") as file,
    ):
        pickle.dump(contents, file, protocol=protocol)
