"""Results without a search, in the same records: plain enlargement and other systems' outputs."""

from __future__ import annotations

import time
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.images import image_files, image_ids, read_image
from pulse_exp.operators import Downscaler
from pulse_exp.operators.resize import resize
from pulse_exp.problem import Candidate, Problem


class Baseline(Protocol):
    """Restores one image; it sees what a search sees."""

    def __call__(self, problem: Problem, downscaler: Downscaler) -> Float[Tensor, "3 H W"]:
        """The image `[3, H, W]`, nominally in [0, 1].

        Raises:
            UserError: this image cannot be restored; the others can.
        """
        ...


class Enlarge:
    """Plain enlargement, equal to Pillow's `resize`.

    Args:
        kind: "nearest", "bicubic" or "lanczos".
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, problem: Problem, downscaler: Downscaler) -> Float[Tensor, "3 H W"]:
        if not downscaler.is_image:
            raise UserError(
                f"baseline={self.kind}: these measurements are no picture to enlarge; choose "
                "another downscaler or a search"
            )
        height, width = (side * downscaler.factor for side in problem.lr.shape[1:])
        return resize(problem.lr, (height, width), self.kind).clamp(0, 1)


class Truth:
    """The truth itself: what a perfect restoration would score. An oracle, no method."""

    def __call__(self, problem: Problem, downscaler: Downscaler) -> Float[Tensor, "3 H W"]:
        if problem.hr is None:
            raise UserError(f"baseline=truth: the true image of {problem.image} is not known")
        return problem.hr


class Precomputed:
    """The outputs of another system: a folder with an image file named by each image's id.

    Args:
        root: the folder.
    """

    def __init__(self, root: str) -> None:
        files = image_files(root, "baseline.precomputed.root")
        self.root, self.files = root, dict(zip(image_ids(files), files, strict=True))

    def __call__(self, problem: Problem, downscaler: Downscaler) -> Float[Tensor, "3 H W"]:
        if problem.image not in self.files:
            raise UserError(f"baseline.precomputed.root={self.root}: no file for {problem.image}")
        path = self.files[problem.image]
        image = read_image(path)
        wanted = tuple(side * downscaler.factor for side in problem.lr.shape[1:])
        if tuple(image.shape[1:]) != wanted:
            found = f"{image.shape[2]}×{image.shape[1]}"
            raise UserError(f"{path}: {found}, but the result is {wanted[1]}×{wanted[0]}")
        return image


def baseline_candidate(
    baseline: Baseline, problem: Problem, restart: int, downscaler: Downscaler, eps: float
) -> Candidate:
    """What a baseline came back with, judged as a search is; a UserError becomes its reason."""
    began = time.perf_counter()
    try:
        sr = baseline(problem, downscaler)
    except UserError as error:
        return Candidate(problem.image, restart, "failed", str(error))
    seconds = time.perf_counter() - began
    lr_mse = float((downscaler(sr[None])[0] - problem.lr).square().mean())
    status = "solved" if lr_mse <= eps else "unsolved"
    return Candidate(
        problem.image, restart, status, sr=sr, lr_mse=lr_mse, seconds=seconds, curves={}
    )
