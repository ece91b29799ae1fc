"""What a step has to do: counted on tensors without data, so it costs no time.

FLOP are of convolutions and matrix products, two for a multiplication and addition
(`torch.utils.flop_counter`). Bytes are counted twice: `moved` is what the operations read and
write if each goes through memory on its own; `least` is what no way of computing avoids.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pulse_exp.generators.base import Generator


@dataclass
class Counts:
    """Of one step with `batch` images: forward, and back to the style vectors only.

    `activations`: bytes of the outputs of all convolutions that are not depthwise, one for each
    layer: what the way back needs. `least = 2 · (activations + weights)`: written and read once,
    and the weights read on both ways.
    """

    forward_flop: int
    backward_flop: int
    moved: int
    activations: int
    weights: int

    @property
    def flop(self) -> int:
        return self.forward_flop + self.backward_flop

    @property
    def least(self) -> int:
        return 2 * (self.activations + self.weights)


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write; a view moves nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.activations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        view = alias is not None and not alias.is_write
        if not view and func is not torch.ops.aten._unsafe_view.default:
            self.moved += sum(map(size, tree_leaves((args, kwargs)))) + size(out)
        if func is torch.ops.aten.convolution.default and args[-1] == 1:
            self.activations += size(out)
        return out


def size(value: Any) -> int:
    """Bytes of memory behind a tensor (or several); 0 for anything else."""
    if isinstance(value, tuple | list):
        return sum(map(size, value))
    if not isinstance(value, Tensor):
        return 0
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())


def count(generator: Generator, batch: int = 1) -> Counts:
    """Counts one step of a generator, layer by layer."""
    empty = copy.deepcopy(generator).to("meta")
    ws = torch.empty(batch, empty.num_ws, empty.w_dim, device="meta", requires_grad=True)
    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with Traffic() as traffic:
        with forward:
            image = empty.synthesis(ws)
        with backward:
            torch.autograd.grad(image, ws, torch.empty_like(image))
    weights = [t for n, t in empty.state_dict().items() if t.ndim > 1 and "mapping" not in n]
    return Counts(
        forward_flop=forward.get_total_flops(),
        backward_flop=backward.get_total_flops(),
        moved=traffic.moved,
        activations=traffic.activations,
        weights=sum(map(size, weights)),
    )
