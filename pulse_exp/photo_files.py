"""Photo files of any kind as upright 8-bit RGB, within bounded memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pulse_exp.alignment import Picture
from pulse_exp.errors import UserError

MAX_PIXELS = 2**25
"""Larger photos are halved while they are read until they have at most so many pixels."""

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """An upright photo as it was read.

    Attributes:
        pixels: `[H, W, 3]` uint8, RGB.
        scale: how many of the file's pixels one of them spans.
        icc_profile: what the file says its colours mean, for writing them again.
    """

    pixels: Picture
    scale: float
    icc_profile: bytes | None = None


def read_photo(path: str | Path, max_pixels: int | None = MAX_PIXELS) -> Photo:
    """A photo of any mode, upright as its EXIF says, as 8-bit RGB.

    Transparency is laid over white. A photo of more than `max_pixels` is halved until it has
    fewer: a JPEG while it is decoded, others right after.

    Raises:
        UserError: the file is damaged, cut short, too large for Pillow, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, of damaged metadata
            with Image.open(path) as file:
                full = max(file.size)
                turn = UPRIGHT.get(_orientation(file))
                small = _rgb(_decoded(file, max_pixels))
                upright = small if turn is None else small.transpose(turn)
                profile = file.info.get("icc_profile") if file.mode.startswith("RGB") else None
                return Photo(np.asarray(upright), full / max(upright.size), profile)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}; make it smaller first") from error
    except Exception as error:  # on a damaged file Pillow's decoders raise all kinds
        raise UserError(f"{path}: damaged or not an image ({error})") from error


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing
        return 1


def halvings(width: int, height: int, max_pixels: int | None) -> int:
    """The power of two that brings a picture to at most `max_pixels`."""
    factor = 1
    while max_pixels is not None and width * height > max_pixels * factor**2:
        factor *= 2
    return factor


def _decoded(file: Image.Image, max_pixels: int | None) -> Image.Image:
    factor = halvings(*file.size, max_pixels)
    if factor > 1:
        file.draft(None, (file.width // factor, file.height // factor))
    file.load()
    factor = halvings(*file.size, max_pixels)
    if factor == 1:
        return file
    # Palettes and 16 bits cannot be averaged as they are.
    averageable = file.mode in ("L", "LA", "RGB", "RGBA", "CMYK")
    return (file if averageable else _rgb(file)).reduce(factor)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float32)
        in_unit_range = image.mode == "F" and values.max() <= 1
        scale = 1 / 257 if image.mode == "I" else 255 if in_unit_range else 1
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        over_white = Image.new("RGB", rgba.size, "white")
        over_white.paste(rgba, mask=rgba.getchannel("A"))
        return over_white
    return image if image.mode == "RGB" else image.convert("RGB")
