"""Where images come from: a portrait, folders, or the generator itself.

A dataset knows its ids without opening a file and loads one sample at a time, so that memory
does not grow with the number of images.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator
from pulse_exp.images import from_pil, image_files, image_ids, read_image, resized
from pulse_exp.seeding import random_generator


@dataclass
class Sample:
    """An image as the data gives it: the truth `hr`, or a real low-res input `lr`, not both."""

    hr: Float[Tensor, "3 H W"] | None = None
    lr: Float[Tensor, "3 h w"] | None = None
    latent: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class Dataset:
    """Images by index.

    Attributes:
        ids: the id of each image, unique and usable as a file name.
    """

    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def factor(self, index: int) -> int | None:
        """The downscaling factor that an image's own size fixes; None where the config says it.

        Raises:
            UserError: the size fits no factor.
        """
        return None

    def load(self, index: int) -> Sample:
        """One sample.

        Raises:
            UserError: this image cannot be used; the others can.
        """
        raise NotImplementedError


def shard_of(items: Sequence[Any], shard: str) -> list[Any]:
    """Every n-th item from the i-th on, for "i/n"."""
    index, count = (int(part) for part in shard.split("/"))
    return list(items[index::count])


def require_square(image: Tensor, name: str) -> None:
    height, width = image.shape[1:]
    if height != width:
        raise UserError(
            f"{name}: {width}×{height} is not square; crop it to the face (data=photos aligns)"
        )


class Portrait(Dataset):
    """The public-domain NASA portrait of Eileen Collins that scikit-image ships, as FFHQ crops."""

    def __init__(
        self,
        centre: tuple[float, float],
        axis: tuple[float, float],
        generator: Generator,
        seed: int = 0,
    ) -> None:
        self.ids = ["astronaut"]
        self.centre, self.axis, self.resolution = centre, axis, generator.resolution

    def load(self, index: int) -> Sample:
        from skimage import data

        from pulse_exp.alignment import crop_quad, quad_from_axis

        quad = quad_from_axis(self.centre, self.axis)
        face = crop_quad(data.astronaut(), quad, self.resolution)
        return Sample(hr=from_pil(Image.fromarray(face)))


class FolderOfImages(Dataset):
    """The image files of a folder and what a csv beside them says of each."""

    def __init__(
        self,
        root: str,
        generator: Generator,
        limit: int | None = None,
        shard: str = "0/1",
        facts: str | None = None,
        seed: int = 0,
    ) -> None:
        files = image_files(root)
        pairs = shard_of(list(zip(image_ids(files), files, strict=True))[:limit], shard)
        self.ids = [name for name, _ in pairs]
        self.files = [path for _, path in pairs]
        self.resolution = generator.resolution
        self.facts = read_facts(Path(root).expanduser() / facts) if facts else {}

    def notes(self, index: int) -> dict[str, Any]:
        return self.facts.get(self.ids[index], {})


class Folder(FolderOfImages):
    """Aligned photos: each is a truth, brought to the generator's resolution."""

    def load(self, index: int) -> Sample:
        image = read_image(self.files[index])
        require_square(image, str(self.files[index]))
        side = (self.resolution, self.resolution)
        return Sample(hr=resized(image, side), notes=self.notes(index))


class LowResFolder(FolderOfImages):
    """Real low-res images of any size that divides the generator's resolution; no truth."""

    def factor(self, index: int) -> int | None:
        path = self.files[index]
        try:
            with Image.open(path) as file:
                width, height = file.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path}: not an image that can be read") from error
        if width != height or self.resolution % width:
            sides = [2**k for k in range(2, self.resolution.bit_length()) if 2**k < self.resolution]
            raise UserError(
                f"{path}: {width}×{height} does not divide the output's "
                f"{self.resolution}×{self.resolution}; use a square side such as "
                f"{', '.join(str(s) for s in sides if self.resolution % s == 0)}"
            )
        return self.resolution // width

    def load(self, index: int) -> Sample:
        return Sample(lr=read_image(self.files[index]), notes=self.notes(index))


class Generated(Dataset):
    """The generator's own samples: what a search can reach in principle, with known latents."""

    def __init__(
        self,
        count: int,
        generator: Generator,
        limit: int | None = None,
        shard: str = "0/1",
        seed: int = 0,
    ) -> None:
        self.numbers = shard_of(range(count)[:limit], shard)
        self.ids = [f"generated{number:05d}" for number in self.numbers]
        self.generator, self.seed = generator, seed

    @torch.no_grad()
    def load(self, index: int) -> Sample:
        rng = random_generator(self.seed, "generated", self.numbers[index])
        z = torch.randn(1, self.generator.z_dim, generator=rng)
        device = next(self.generator.parameters()).device
        ws = self.generator.mapping(z.to(device))
        image = self.generator.synthesis(ws)[0].clamp(0, 1)
        return Sample(hr=image.float().cpu(), latent=ws[0].cpu())


def read_facts(path: Path) -> dict[str, dict[str, Any]]:
    """A csv's rows by its column `id`; keys become `note_<column>`.

    Raises:
        UserError: no such file, or no column `id`.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"data.facts: {path} cannot be read ({error.strerror})") from error
    if rows and "id" not in rows[0]:
        raise UserError(f"data.facts: {path} has no column 'id' naming each image file")
    return {
        row["id"]: {f"note_{key}": value for key, value in row.items() if key != "id"}
        for row in rows
    }
