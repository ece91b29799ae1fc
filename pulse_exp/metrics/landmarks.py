"""Are the features where they were: distance of 68 facial landmarks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_exp.metrics.base import Restoration
from pulse_exp.metrics.identity import require_faces
from pulse_exp.metrics.portraits import Portrait


def landmark_error(results: list[Portrait], truths: list[Portrait]) -> Float[Tensor, " B"]:
    """Mean distance of the landmarks over the truth's outer eye corners' (Sagonas et al. 2013).

    NaN where one of the two shows no face.
    """
    errors = []
    for result, truth in zip(results, truths, strict=True):
        if result.face is None or truth.face is None:
            errors.append(float("nan"))
            continue
        apart = np.linalg.norm(result.face.landmarks - truth.face.landmarks, axis=1)
        eyes = np.linalg.norm(truth.face.landmarks[36] - truth.face.landmarks[45])
        errors.append(float(apart.mean() / eyes))
    return torch.tensor(errors, dtype=torch.float64)


class LandmarkError:
    """Error of the result's landmarks against the truth's."""

    keys: tuple[str, ...] = ("landmark_error",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        require_faces()
        pair = restoration.sr_portraits, restoration.hr_portraits
        return {"landmark_error": landmark_error(*pair)}
