"""Results as pictures of a person: the pixels that faces are looked for in, and the face found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pulse_exp import faces

SIDE = 512
"""Longer side in pixels of the copy: the detector then finds and measures faces of images of any
size alike, and small aligned images become large enough for it."""


@dataclass(frozen=True)
class Portrait:
    """One image as faces are looked for in it.

    Attributes:
        pixels: the copy, `[h, w, 3]` uint8 RGB, its longer side 512.
        face: the largest face in the copy's pixels; None where there is none, or where the extra
            `faces` is missing.
    """

    pixels: NDArray[np.uint8]
    face: faces.Face | None

    @cached_property
    def embedding(self) -> NDArray[np.float64]:
        """Identity vector `[128]`, NaN without a face."""
        if self.face is None:
            return np.full(128, np.nan)
        return faces.embed(self.pixels, self.face)


def portraits(images: Float[Tensor, "B 3 H W"]) -> list[Portrait]:
    """A portrait of each image in [0, 1]."""
    height, width = images.shape[2:]
    scale = SIDE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    copies = images.detach().float().cpu()
    if size != (height, width):
        copies = F.interpolate(copies, size, mode="bicubic", align_corners=False, antialias=True)
    levels = (copies.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [_portrait(pixels) for pixels in levels.numpy()]


def _portrait(pixels: NDArray[np.uint8]) -> Portrait:
    found = faces.detect(pixels) if faces.available() is None else []
    return Portrait(pixels, found[0] if found else None)
