"""The door: image files to float tensors `[3, H, W]` in [0, 1], RGB, and back."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pulse_exp.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def image_files(root: str | Path, key: str = "data.root") -> list[Path]:
    """The image files directly in a folder, by name; `key` is the setting that named it.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}={root}: no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UserError(f"{key}={root}: no image in it ({', '.join(SUFFIXES)})")
    return files


def image_ids(files: list[Path]) -> list[str]:
    """A unique id for each file: its name without the suffix, with it where two would clash."""
    stems = Counter(p.stem for p in files)
    return [p.stem if stems[p.stem] == 1 else p.name for p in files]


def read_image(path: str | Path) -> Float[Tensor, "3 H W"]:
    """An image file, upright, as float RGB in [0, 1].

    Grey and palette images become RGB, transparency is laid over white, 16-bit is kept.

    Raises:
        UserError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as file:
            return from_pil(ImageOps.exif_transpose(file))
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that can be read") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: damaged or unreadable image ({error})") from error


def from_pil(image: Image.Image) -> Float[Tensor, "3 H W"]:
    """A Pillow image of any mode as float RGB in [0, 1]."""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image, dtype=np.float32) / 65535
        return torch.from_numpy(grey.clip(0, 1)).expand(3, -1, -1).clone()
    if image.mode == "F":
        grey = np.asarray(image, dtype=np.float32)
        return torch.from_numpy(grey / (255 if grey.max() > 1 else 1)).expand(3, -1, -1).clone()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def to_bytes(image: Float[Tensor, "3 H W"]) -> np.ndarray:
    """`[H, W, 3]` uint8, rounded; values outside [0, 1] are clamped."""
    rounded = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return rounded.permute(1, 2, 0).cpu().numpy()


def write_image(image: Float[Tensor, "3 H W"], path: Path) -> None:
    """Writes a png, whole or not at all."""
    write_pixels(to_bytes(image), path)


def write_pixels(pixels: np.ndarray, path: Path, icc_profile: bytes | None = None) -> None:
    """Writes a picture `[H, W, 3]` uint8 as png, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        picture = Image.fromarray(pixels)
        picture.save(part, format="PNG", compress_level=3, icc_profile=icc_profile)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def resized(image: Float[Tensor, "3 H W"], size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """The image at (height, width): antialiased bicubic, clamped to [0, 1]."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    out = torch.nn.functional.interpolate(
        image[None], size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return out[0].clamp(0, 1)
