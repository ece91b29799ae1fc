"""How different the restarts' answers to one input are."""

from __future__ import annotations

from typing import ClassVar

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

    def __init__(self) -> None:
        self.images: list[str] = []
        self.levels: list[Tensor] = []

    def update(self, restoration: Restoration) -> None:
        self.images += restoration.images
        # Eight bits, as the results are saved: a quarter of the memory.
        self.levels += list((restoration.sr.clamp(0, 1) * 255).round().to(torch.uint8).cpu())

    def compute(self) -> dict[str, Tensor]:
        pixels = [level.flatten() for level in self.levels]
        largest = torch.tensor([255 * level.numel() ** 0.5 for level in pixels])
        return {"diversity_rmse": _by_image(self.images, pixels) / largest}


class FaceDiversity:
    """Distance of each result's face embedding from the other restarts' of its image."""

    keys: tuple[str, ...] = ("diversity_identity",)
    needs_truth: ClassVar[bool] = False

    def __init__(self) -> None:
        self.images: list[str] = []
        self.embeddings: list[Tensor] = []

    def update(self, restoration: Restoration) -> None:
        require_faces()
        self.images += restoration.images
        self.embeddings += [torch.from_numpy(p.embedding) for p in restoration.sr_portraits]

    def compute(self) -> dict[str, Tensor]:
        return {"diversity_identity": _by_image(self.images, self.embeddings)}


def _by_image(images: list[str], points: list[Tensor]) -> Float[Tensor, " N"]:
    distances = torch.full((len(points),), float("nan"), dtype=torch.float64)
    for image in dict.fromkeys(images):
        rows = [row for row, name in enumerate(images) if name == image]
        distances[rows] = mean_distance_to_others(torch.stack([points[row] for row in rows]))
    return distances
