"""The crop that FFHQ was made with: from landmarks to an upright square face.

Karras, Laine & Aila (CVPR 2019), appendix A, and the numbers of their dataset's published tool.
Needs Pillow, numpy and SciPy only. A quad is the crop's four corners `[4, 2]` in pixels of the
photo, x and y, whole numbers at the middle of a pixel, in the order top left, bottom left,
bottom right, top right of the upright face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Quad = NDArray[np.float64]
Picture = NDArray[np.uint8]

SUPERSAMPLING = 4
"""The quad is first sampled at this many times the size asked for (FFHQ: 4096 for 1024)."""


def quad_from_landmarks(landmarks: ArrayLike) -> Quad:
    """The FFHQ quad of a face with these 68 landmarks `[68, 2]`.

    Its x axis runs along the eyes and square to the line from eyes to mouth, halfway between the
    two; half its side is twice the distance of the eyes or 1.8 times eyes to mouth, whichever is
    larger; its centre lies a tenth of the way from the eyes to the mouth.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (68, 2):
        raise ValueError(f"expected landmarks [68, 2], got {list(points.shape)}")
    left_eye, right_eye = points[36:42].mean(axis=0), points[42:48].mean(axis=0)
    eyes = (left_eye + right_eye) / 2
    across = right_eye - left_eye
    down = (points[48] + points[54]) / 2 - eyes
    axis = across + np.array([down[1], -down[0]])
    half_side = max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    length = np.hypot(*axis)
    if length == 0:
        raise ValueError("these landmarks have no direction: eyes and mouth coincide")
    return quad_from_axis(eyes + 0.1 * down, axis * (half_side / length))


def quad_from_axis(center: ArrayLike, axis: ArrayLike) -> Quad:
    """The square quad around `center` whose right side's middle lies at `center + axis`."""
    c, x = np.asarray(center, dtype=np.float64), np.asarray(axis, dtype=np.float64)
    y = np.array([-x[1], x[0]])
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def quad_side(quad: Quad) -> float:
    """Side of a square quad in pixels of the photo."""
    return float(np.hypot(*(quad[3] - quad[0])))


def crop_quad(image: Picture, quad: Quad, size: int) -> Picture:
    """The quad of an RGB photo `[H, W, 3]` uint8 as an upright square `[size, size, 3]`.

    FFHQ's steps: shrink the photo with antialiasing where it is much larger than the result, cut
    out the quad's surroundings, continue the photo by blurred reflection where the quad leaves
    it, sample the quad bilinearly at four times the size, reduce to `size` (Lanczos).
    """
    photo, quad = _shrink(Image.fromarray(image), np.asarray(quad, dtype=np.float64), size)
    photo, quad = _cut(photo, quad)
    photo, quad = _continue_by_reflection(photo, quad)
    large = SUPERSAMPLING * size
    face = photo.transform(
        (large, large),
        Image.Transform.QUAD,
        tuple((quad + 0.5).flatten()),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(face.resize((size, size), Image.Resampling.LANCZOS))


def _shrink(photo: Image.Image, quad: Quad, size: int) -> tuple[Image.Image, Quad]:
    factor = int(np.floor(quad_side(quad) / size * 0.5))
    if factor <= 1:
        return photo, quad
    smaller = (round(photo.width / factor), round(photo.height / factor))
    return photo.resize(smaller, Image.Resampling.LANCZOS), quad / factor


def _bounds(quad: Quad) -> tuple[int, int, int, int]:
    left, top = np.floor(quad.min(axis=0))
    right, bottom = np.ceil(quad.max(axis=0))
    return int(left), int(top), int(right), int(bottom)


def _border(quad: Quad) -> int:
    return max(round(quad_side(quad) * 0.1), 3)


def _cut(photo: Image.Image, quad: Quad) -> tuple[Image.Image, Quad]:
    left, top, right, bottom = _bounds(quad)
    border = _border(quad)
    left, top = max(left - border, 0), max(top - border, 0)
    right, bottom = min(right + border, photo.width), min(bottom + border, photo.height)
    if left >= right or top >= bottom:
        raise ValueError("the face's crop lies outside the photo")
    return photo.crop((left, top, right, bottom)), quad - np.array([left, top])


def _continue_by_reflection(photo: Image.Image, quad: Quad) -> tuple[Image.Image, Quad]:
    """Where the quad leaves the photo: reflect, then fade into blur and into the median colour."""
    from scipy.ndimage import gaussian_filter

    left, top, right, bottom = _bounds(quad)
    border, side = _border(quad), quad_side(quad)
    pads = np.array([-left, -top, right - photo.width, bottom - photo.height]) + border
    if max(pads.max(), 0) <= border - 4:
        return photo, quad
    left, top, right, bottom = np.maximum(pads, round(side * 0.3)).tolist()
    image = np.pad(np.asarray(photo), ((top, bottom), (left, right), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    # 1 at the outer edge, 0 where the photo begins, negative inside it.
    outside = np.maximum(
        1 - np.minimum(x / left, x[::-1] / right)[None, :],
        1 - np.minimum(y / top, y[::-1] / bottom)[:, None],
    )
    # A channel at a time: this is the step that needs memory.
    for channel in range(3):
        values = image[:, :, channel].astype(np.float32)
        blurred = gaussian_filter(values, side * 0.02)
        values += (blurred - values) * np.clip(3 * outside + 1, 0, 1)
        values += (np.median(values) - values) * np.clip(outside, 0, 1)
        image[:, :, channel] = np.rint(values).clip(0, 255)
    return Image.fromarray(image), quad + np.array([left, top])
