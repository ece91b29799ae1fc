"""Is it still the same person: distance of dlib's face embeddings.

Vectors of 128 numbers by a residual network; two pictures are taken for one person where they are
less than 0.6 apart (King 2017: 99.38 % of the pairs of Labeled Faces in the Wild).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp import faces
from pulse_exp.metrics.base import MetricUnavailable, Restoration
from pulse_exp.metrics.portraits import Portrait


def require_faces() -> None:
    """Raises MetricUnavailable where the extra `faces` is missing."""
    reason = faces.available()
    if reason is not None:
        raise MetricUnavailable(reason)


def identity_distance(first: list[Portrait], second: list[Portrait]) -> Float[Tensor, " B"]:
    """Euclidean distance of the embeddings of each pair; NaN where one shows no face."""
    distances = [
        float(np.linalg.norm(a.embedding - b.embedding)) for a, b in zip(first, second, strict=True)
    ]
    return torch.tensor(distances, dtype=torch.float64)


class Identity:
    """Distance of the result's face from the truth's."""

    keys: tuple[str, ...] = ("identity",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        require_faces()
        pair = restoration.sr_portraits, restoration.hr_portraits
        return {"identity": identity_distance(*pair)}


class IdentityInPlace:
    """The same distance with both pictures cut out where the truth's face is.

    For comparing methods of which some leave images too blurred for a detector, or for its
    landmarks to mean much. What has moved in a result counts against it.
    """

    keys: tuple[str, ...] = ("identity_in_place",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        require_faces()
        truths = restoration.hr_portraits
        pairs = zip(restoration.sr_portraits, truths, strict=True)
        placed = [Portrait(result.pixels, truth.face) for result, truth in pairs]
        return {"identity_in_place": identity_distance(placed, truths)}


class InputIdentity:
    """Distance of the result's face from the enlarged low-res input's."""

    keys: tuple[str, ...] = ("identity_lr",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        require_faces()
        pair = restoration.sr_portraits, restoration.lr_portraits
        return {"identity_lr": identity_distance(*pair)}
