"""What makes a face in a photo a hard one to restore."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pulse_exp.alignment import Quad, quad_side
from pulse_exp.faces import Face
from pulse_exp.photo_files import Photo

TURNED_AWAY = 0.35
"""Faces seen from the front stay below 0.25; 0.35 is reached at about 30 degrees."""
BLURRED = 0.05
"""Sharp faces measure 0.14 and more; a blur of 1 % of the face's side brings them below 0.06."""
CUT_OFF = 0.1
"""Share of the crop, or of the landmarks, outside the photo."""
SHARPNESS_SIDE = 128


def remarks(photo: Photo, face: Face, quad: Quad, small_below: float) -> tuple[str, ...]:
    """What makes this face a hard one to restore; empty for a good one.

    Args:
        small_below: a face whose crop has a shorter side than this many pixels is `small`.
    """
    said = {
        "small": quad_side(quad) < small_below,
        "cut_off": _share_outside(photo, face, quad) > CUT_OFF,
        "turned_away": abs(asymmetry(face)) > TURNED_AWAY,
        "blurred": sharpness(photo, face) < BLURRED,
        "sideways": quad[3, 0] - quad[0, 0] < abs(quad[3, 1] - quad[0, 1]),
    }
    return tuple(word for word, applies in said.items() if applies)


def _share_outside(photo: Photo, face: Face, quad: Quad) -> float:
    """The larger of the shares of the crop's area and of the landmarks outside the photo."""
    height, width = (side * photo.scale for side in photo.pixels.shape[:2])
    u, v = np.meshgrid(*2 * [(np.arange(32) + 0.5) / 32])
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    crop = quad[0] + u[..., None] * across + v[..., None] * down
    shares = [
        np.mean(((points < -0.5) | (points > [width - 0.5, height - 0.5])).any(axis=-1))
        for points in (crop, face.landmarks)
    ]
    return float(max(shares))


def asymmetry(face: Face) -> float:
    """How far the tip of the nose is from the middle of the jaw, along the eyes: −1 ... 1.

    0 is a face seen from the front; it is positive where the nose points to the picture's right.
    """
    points = face.landmarks
    along = points[45] - points[36]
    x = points @ (along / np.hypot(*along))
    left, right = x[30] - x[1:4].mean(), x[13:16].mean() - x[30]
    return float((left - right) / (left + right))


def sharpness(photo: Photo, face: Face) -> float:
    """Variance of the Laplacian over the variance of the grey values, in the face's box.

    Faces larger than 128 pixels are reduced to that first, so that it does not depend on size.
    """
    from scipy.ndimage import laplace

    height, width = photo.pixels.shape[:2]
    left, top, right, bottom = (round(edge / photo.scale) for edge in face.box)
    box = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    grey = Image.fromarray(photo.pixels[box[1] : box[3], box[0] : box[2]]).convert("L")
    grey.thumbnail((SHARPNESS_SIDE, SHARPNESS_SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    return float(laplace(values).var() / max(values.var(), 1e-12))
