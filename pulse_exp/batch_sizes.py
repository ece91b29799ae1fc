"""How many rows are searched at a time: what should fit, and what was found to fit."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from pulse_exp.generators.base import Generator
from pulse_exp.generators.weights import cache_folder

FILE = "batch_sizes.json"
MOST_ROWS = 64
CPU_PIXELS = 2**20
"""Of a batch on a CPU: caches are full then, and a larger one is no faster a row."""


def default_batch_size(generator: Generator, device: torch.device) -> int:
    """Rows at a time: one at 1024² on a CPU, on a GPU as many as fit into its free memory."""
    if device.type == "cpu":
        return max(1, min(16, CPU_PIXELS // generator.resolution**2))
    free, _ = torch.cuda.mem_get_info(device)
    return rows_that_fit(free, bytes_a_row(generator))


def rows_that_fit(free: int, row: int) -> int:
    """How many rows of so many saved bytes a step has room for, at least one.

    A third of the memory is left to what a step needs for a moment: gradients on the way back and
    the convolutions' own buffers.
    """
    return max(1, min(MOST_ROWS, free * 2 // 3 // row))


def bytes_a_row(generator: Generator) -> int:
    """What one image's synthesis keeps for the way back, in float32.

    Found on tensors without data, so it takes no memory and hardly any time. The difference of
    two batches: what does not grow with the batch (weights) is not counted.
    """
    empty = copy.deepcopy(generator).to("meta")
    return saved_bytes(empty, 2) - saved_bytes(empty, 1)


def saved_bytes(generator: Generator, batch: int) -> int:
    """Bytes of all memory that a synthesis of `batch` images keeps for its gradient."""
    memory: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        memory[tensor.untyped_storage()._cdata] = tensor
        return tensor

    device = next(generator.parameters()).device
    ws = torch.zeros(batch, generator.num_ws, generator.w_dim, device=device, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        image = generator.synthesis(ws)
    memory[image.untyped_storage()._cdata] = image
    return sum(tensor.untyped_storage().nbytes() for tensor in memory.values())


def key(generator: str, device: torch.device, resolution: int) -> str:
    """What a batch size depends on: generator, device by its model, output side."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{generator} {resolution} {name}"


def remembered(key: str) -> int | None:
    """The size that was found for a key, None where no run had to look for it."""
    size = _read(cache_folder() / FILE).get(key)
    return size if isinstance(size, int) and size > 0 else None


def remember(key: str, size: int) -> None:
    """Keeps a size for the runs to come; a cache that cannot be written is no reason to stop."""
    path = cache_folder() / FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            part = path.with_name(f"{FILE}.{os.getpid()}.part")
            part.write_text(json.dumps({**_read(path), key: size}, indent=1) + "\n")
            os.replace(part, path)
    except OSError:
        return


def _read(path: Path) -> dict[str, int]:
    try:
        sizes = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return sizes if isinstance(sizes, dict) else {}
