"""Batch sizes that a device's memory was found to hold, remembered between runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from filelock import FileLock

from pulse_exp.generators.weights import cache_folder

FILE = "batch_sizes.json"


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
