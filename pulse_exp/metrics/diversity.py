"""How different the restarts' answers to one input are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.metrics.base import Restoration
from pulse_exp.metrics.identity import require_faces


def mean_distance_to_others(points: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
    """Mean Euclidean distance of each point to the others; their mean is that of all pairs.

    Points with a NaN are left out; NaN for them, and for a point without another.
    """
    distances = torch.full((len(points),), float("nan"), dtype=torch.float64)
    whole = (~points.isnan().any(dim=1)).nonzero()[:, 0].tolist()
    if len(whole) < 2:
        return distances
    # One pair after the other: a whole image in float64 is large, and torch.cdist inexact.
    for row in whole:
        total = sum((points[row].double() - points[other].double()).norm() for other in whole)
        distances[row] = total / (len(whole) - 1)
    return distances


def pixel_deviation(images: Float[Tensor, "R 3 H W"]) -> Float[Tensor, "H W"]:
    """Standard deviation of each pixel over the restarts (R − 1), root mean square of the colours.

    Between 0 and 1/√2; zeros for a single restart. Draw it with one scale for all images.
    """
    if len(images) < 2:
        return torch.zeros(images.shape[2:], dtype=images.dtype, device=images.device)
    return images.var(dim=0).mean(dim=0).sqrt()


class ImageDiversity:
    """Root-mean-square difference of each result from the other restarts' of its image."""

    keys: tuple[str, ...] = ("diversity_rmse",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        pixels = restoration.sr.flatten(1)
        distances = _by_image(restoration.images, pixels) / pixels.shape[1] ** 0.5
        return {"diversity_rmse": distances}


class FaceDiversity:
    """Distance of each result's face embedding from the other restarts' of its image."""

    keys: tuple[str, ...] = ("diversity_identity",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        require_faces()
        embeddings = np.stack([p.embedding for p in restoration.sr_portraits])
        distances = _by_image(restoration.images, torch.from_numpy(embeddings))
        return {"diversity_identity": distances}


def _by_image(images: Sequence[str], points: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
    distances = torch.full((len(points),), float("nan"), dtype=torch.float64)
    for image in dict.fromkeys(images):
        rows = [row for row, name in enumerate(images) if name == image]
        distances[rows] = mean_distance_to_others(points[rows])
    return distances
