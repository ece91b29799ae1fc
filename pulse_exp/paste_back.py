"""The way back: a restored face blended into the photo it was taken from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_exp.alignment import Picture, Quad, crop_quad, quad_side
from pulse_exp.images import write_pixels
from pulse_exp.photo_files import read_photo
from pulse_exp.photos import PhotoFace

FEATHER = (0.7, 0.95)
"""The face is opaque within the first and gone beyond the second of these shares of the crop."""
COLOR_SIGMA = 1 / 16
"""Width, in sides of the crop, of the blur below which the photo's own colours are kept."""
BAND = 256


def paste_results(
    faces: Iterable[PhotoFace], results: Mapping[str, Path], folder: Path
) -> list[Path]:
    """Writes `folder/<photo>.png` for each photo with a result: all of its faces blended in.

    Losslessly and at the photo's own size, upright. Photos of many faces are read once.

    Args:
        results: the picture of the restored face for each face's id, where there is one.
    """
    by_photo: dict[Path, list[PhotoFace]] = {}
    for face in faces:
        if face.id in results:
            by_photo.setdefault(face.path, []).append(face)
    written = []
    for path, found in by_photo.items():
        photo = read_photo(path, max_pixels=None)
        pixels = photo.pixels.copy()
        for face in found:
            with Image.open(results[face.id]) as file:
                paste_face(pixels, np.asarray(file.convert("RGB")), face.quad)
        written.append(folder / f"{found[0].photo_id}.png")
        write_pixels(pixels, written[-1], photo.icc_profile)
    return written


def paste_face(photo: Picture, face: Picture, quad: Quad) -> None:
    """Blends a face `[R, R, 3]` uint8 into its quad of a photo `[H, W, 3]` uint8, in place.

    The inverse of `alignment.crop_quad`, with a mask that fades out towards the crop's edges. Its
    coarse colours are brought to the photo's, so that it does not stand out; its detail stays.
    """
    face = _in_colors_of(photo, face, quad)
    across, down = quad[3] - quad[0], quad[1] - quad[0]
    side, size = quad_side(quad), face.shape[0]
    # From the photo's pixels to shares of the crop: one row of the matrix for u, one for v.
    shares = np.stack([across, down]) / side**2
    left, top, right, bottom = _inside(photo, quad)
    for start in range(top, bottom, BAND):
        stop = min(start + BAND, bottom)
        x, y = np.arange(left, right), np.arange(start, stop)
        u = shares[0, 0] * (x - quad[0, 0]) + (shares[0, 1] * (y - quad[0, 1]))[:, None]
        v = shares[1, 0] * (x - quad[0, 0]) + (shares[1, 1] * (y - quad[0, 1]))[:, None]
        # Pillow counts from a pixel's corner, a quad from its middle.
        offset = shares @ (np.array([left, start]) - 0.5 - quad[0])
        affine = np.concatenate([shares, offset[:, None]], axis=1) * size
        band = Image.fromarray(face).transform(
            (right - left, stop - start),
            Image.Transform.AFFINE,
            tuple(affine.flatten()),
            Image.Resampling.BICUBIC,
        )
        opacity = feathered(u, v)[..., None]
        below = photo[start:stop, left:right]
        blended = opacity * np.asarray(band) + (1 - opacity) * below
        photo[start:stop, left:right] = np.rint(blended).astype(np.uint8)


def feathered(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Opacity at the shares (u, v) of a crop's width and height: 1 in its middle, 0 at its edge."""
    distance = ((2 * u - 1) ** 4 + (2 * v - 1) ** 4) ** 0.25
    inner, outer = FEATHER
    t = np.clip((outer - distance) / (outer - inner), 0, 1)
    return t * t * (3 - 2 * t)


def _in_colors_of(photo: Picture, face: Picture, quad: Quad) -> Picture:
    """The face at the crop's size in the photo, or its own if smaller, in the photo's colours."""
    from scipy.ndimage import gaussian_filter

    size = max(1, min(face.shape[0], round(quad_side(quad))))
    small = Image.fromarray(face).resize((size, size), Image.Resampling.LANCZOS)
    own = np.asarray(small, dtype=np.float32)
    difference = crop_quad(photo, quad, size) - own
    sigma = COLOR_SIGMA * size
    drift = gaussian_filter(difference, (sigma, sigma, 0), mode="nearest")
    return np.rint((own + drift).clip(0, 255)).astype(np.uint8)


def _inside(photo: Picture, quad: Quad) -> tuple[int, int, int, int]:
    height, width = photo.shape[:2]
    left, top = np.floor(quad.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(quad.max(axis=0)).astype(int).tolist()
    return max(left, 0), max(top, 0), min(right + 1, width), min(bottom + 1, height)
