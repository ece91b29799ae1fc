"""One random generator for each (seed, image, restart, purpose): rows never share randomness.

Draws are made on the CPU, so a row starts from the same numbers on every device, in every batch
and in every order of work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any sequence of ints and strings, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def random_generator(*parts: int | str) -> torch.Generator:
    """A fresh CPU generator for e.g. `(seed, image, restart, "start")`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


class RandomGenerators(Sequence[torch.Generator]):
    """`random_generator(*parts)` for each of `parts`, made when the first of them is looked at."""

    def __init__(self, parts: Iterable[tuple[int | str, ...]]) -> None:
        self.parts = list(parts)

    @cached_property
    def made(self) -> list[torch.Generator]:
        return [random_generator(*parts) for parts in self.parts]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[torch.Generator]:
        return iter(self.made)

    def __getitem__(self, index: Any) -> Any:
        return self.made[index]
