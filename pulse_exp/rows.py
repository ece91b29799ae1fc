"""A batch of searches as data: nested dicts of tensors whose first dimension is the row.

Everything a search remembers of a row lives in such a tree, so that rows can leave a batch, join
it and be saved without the search knowing what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Rows = dict[str, Any]
"""A tensor `[B, ...]`, or another such dict, at every key."""


def each(function: Callable[..., Tensor], first: Rows, *others: Rows) -> Rows:
    """The tree of `function(a, b, ...)` over the matching tensors of trees of one shape."""
    return {
        key: each(function, value, *(other[key] for other in others))
        if isinstance(value, dict)
        else function(value, *(other[key] for other in others))
        for key, value in first.items()
    }


def select(rows: Rows, index: Tensor) -> Rows:
    """The rows that `index` `[K]` names, in its order."""
    return each(lambda tensor: tensor.index_select(0, index.to(tensor.device)), rows)


def join(first: Rows, second: Rows) -> Rows:
    """The rows of both, the first's first."""
    return each(lambda a, b: torch.cat([a, b.to(a.device)]), first, second)


def where(mask: Tensor, new: Rows, old: Rows) -> Rows:
    """`new` in the rows where `mask` `[B]` is true, `old` elsewhere."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

    return each(choose, new, old)


def move(rows: Rows, device: torch.device | str) -> Rows:
    return each(lambda tensor: tensor.to(device), rows)


def scaled(tensor: Tensor, factor: Tensor) -> Tensor:
    """`tensor` `[B, ...]` times one number a row `[B]`."""
    return tensor * factor.to(tensor.dtype).view(-1, *[1] * (tensor.ndim - 1))
