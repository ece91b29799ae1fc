"""One random generator for each (seed, image, restart, purpose): rows never share randomness.

Draws are made on the CPU, so a row starts from the same numbers on every device, in every batch
and in every order of work.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of ints and strings, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator for e.g. `(seed, image, restart, "start")`."""
    return torch.Generator().manual_seed(derive_seed(*parts))
