"""A race of starts: the nearest half of them is corrected and measured again, until one is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch

from pulse_exp.rows import Rows, join, select, where


def race(
    starts: Sequence[Rows],
    measured: Callable[[Rows], Rows],
    corrected: Callable[[Rows], Rows],
    corrections: int,
) -> Rows:
    """For each row the start nearest to the input that is met on the way.

    Successive halving (Jamieson & Talwalkar, AISTATS 2016): images are spent on the starts that
    come near. Eight starts and six corrections make 8 + 4 + 2 + 1 + 1 + 1 + 1 images of a row.

    Args:
        starts: the rows at each of their starts.
        measured: adds what a start's image tells: its `distance` `[B]` to the input and whatever
            `corrected` reads.
        corrected: a start without what its measured image has too much and with what it lacks.
        corrections: how many rounds follow the first.
    """
    field = [measured(start) for start in starts]
    best = nearest(field, 1)[0]
    for _ in range(corrections):
        field = [measured(corrected(start)) for start in nearest(field, max(1, len(field) // 2))]
        for start in field:
            best = where(start["distance"] < best["distance"], start, best)
    return best


def nearest(field: Sequence[Rows], count: int) -> list[Rows]:
    """For each row the `count` nearest starts, the nearest first."""
    row = torch.arange(len(field[0]["distance"]))
    order = torch.stack([start["distance"].cpu() for start in field]).argsort(stable=True, dim=0)
    together = reduce(join, field)
    return [select(together, order[place] * len(row) + row) for place in range(count)]
