"""The nouns that travel through a run: a Problem goes in, Candidates come back, Records stay.

Every image is a float tensor `[3, H, W]` (a batch `[B, 3, H, W]`), RGB, in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

Record = dict[str, Any]
"""One flat row of the results: plain JSON values only, one for each (image, restart)."""


@dataclass
class Problem:
    """One low-res image to restore, and what is known about it.

    Attributes:
        image: id of the image, unique in a run and usable as a file name.
        lr: the observed low-res image `[3, h, w]`, as degraded: all that a search may see.
        hr: the truth `[3, H, W]`, or None for real low-res input. Only metrics read it.
        latent: the truth's own latent where it is known (generated data), for studies.
        notes: flat facts about the image that its records carry, such as a group label.
    """

    image: str
    lr: Float[Tensor, "3 h w"]
    hr: Float[Tensor, "3 H W"] | None = None
    latent: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class FailedProblem:
    """An input that could not be read or prepared; it becomes a `failed` record with its reason."""

    image: str
    reason: str


@dataclass
class Candidate:
    """What one search, one (image, restart), came back with.

    Attributes:
        image, restart: which search this is.
        status: "solved" (some step was within eps), "unsolved", or "failed".
        reason: why it failed; empty otherwise.
        sr: the image of the best point `[3, H, W]`, None when failed. Best is the point nearest
            to the prior among those within the objective's level, or the one of the lowest
            downscaling error if none was.
        variables: the latent variables that made it, by name.
        constants: what else made it and did not move, such as random noise inputs `[1, ...]`.
        lr_mse: its downscaling error, the mean squared error to the low-res input.
        steps: optimiser steps that were run; best_step: the step of the best point (0 = start);
            solved_step: the first step within eps, None if there was none.
        seconds: its share of the wall time of the batches it was in, without evaluation.
        curves: every term and `lr_mse` at each step, `steps + 1` values each.
    """

    image: str
    restart: int
    status: str
    reason: str = ""
    sr: Float[Tensor, "3 H W"] | None = None
    variables: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    lr_mse: float = float("nan")
    steps: int = 0
    best_step: int = 0
    solved_step: int | None = None
    seconds: float = 0.0
    curves: dict[str, list[float]] = field(default_factory=dict)
