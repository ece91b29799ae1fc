"""Ordinary photos as data: every face in them, found, described, aligned as FFHQ is.

Two modes. In "evaluate" a photo is the truth: its face is aligned at the generator's resolution,
degraded, searched. In "restore" it is the low-res input: its face is aligned and reduced with
antialiasing, and there is no truth. A face with fewer pixels than the low-res size asked for is
in both modes used as it is, without a truth: at the largest low-res size that its pixels fill.

A face's box, landmarks and quad are in pixels of the whole upright photo, however much the photo
was reduced while it was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from pulse_exp import faces
from pulse_exp.alignment import Picture, Quad, crop_quad, quad_from_landmarks, quad_side
from pulse_exp.data import Dataset, Sample, shard_of
from pulse_exp.errors import UserError
from pulse_exp.face_remarks import remarks
from pulse_exp.faces import Face
from pulse_exp.generators.base import Generator
from pulse_exp.images import from_pil, image_files, image_ids, resized
from pulse_exp.photo_files import Photo, halvings, read_photo

UPSAMPLED_PIXELS = 2**24
"""Smaller photos are doubled for the detector (twice at most) while they stay below this."""
TURNED_PIXELS = 2**22
"""A photo without an upright face is looked at sideways in at most so many pixels."""
SURE = 0.3
"""Detections below this score are left out: in enlarged textures they are mostly false."""


@dataclass(frozen=True)
class PhotoFace:
    """One face of a photo.

    Attributes:
        id: `photo#1`, `photo#2` ...
        path: the photo's file.
        face, quad: where it is, in pixels of the whole upright photo.
        remarks: of `small`, `cut_off`, `turned_away`, `blurred`, `sideways`, those that apply.
        faces_in_photo: how many were found there, whether they became rows or not.
    """

    id: str
    path: Path
    face: Face
    quad: Quad
    remarks: tuple[str, ...]
    faces_in_photo: int

    @property
    def photo_id(self) -> str:
        """The photo's own id, without the face's number."""
        return self.id.rpartition("#")[0]

    def notes(self) -> dict[str, Any]:
        """What the records say of this face, one plain value each."""
        left, top, right, bottom = self.face.box
        return {
            "note_photo": self.path.name,
            "note_faces_in_photo": self.faces_in_photo,
            "note_face": "+".join(self.remarks) or "good",
            "note_face_box": f"{left},{top},{right},{bottom}",
            "note_face_size": round(self.face.size, 1),
            "note_face_score": round(self.face.score, 3),
            "note_crop_side": round(quad_side(self.quad), 1),
            "note_landmarks": " ".join(f"{x:.1f},{y:.1f}" for x, y in self.face.landmarks),
        }


@dataclass(frozen=True)
class UnusablePhoto:
    """A photo that gives no face, and why."""

    id: str
    path: Path
    reason: str


class Photos(Dataset):
    """Every face in the photos of a folder, aligned as FFHQ is. Needs the extra `faces`.

    The photos are looked at when the rows are first asked for; a photo that cannot be read or
    shows no face becomes one row that says so.

    Args:
        mode: "evaluate" or "restore", see above.
        factor: the downscaling factor asked for.
        min_face: side of the smallest face box used, in pixels of the photo.
        max_faces: how many faces of a photo, the largest ones; None for all.
        order: "size" or "left_to_right": how a photo's faces are numbered.
        limit, shard: which photos.
    """

    def __init__(
        self,
        root: str,
        generator: Generator,
        factor: int,
        mode: str = "evaluate",
        min_face: float = 0,
        max_faces: int | None = None,
        order: str = "size",
        limit: int | None = None,
        shard: str = "0/1",
        seed: int = 0,
    ) -> None:
        files = image_files(root)
        named = list(zip(image_ids(files), files, strict=True))
        self.photos = shard_of(named[:limit], shard)
        self.resolution, self.mode, self.asked_factor = generator.resolution, mode, factor
        self.min_face, self.max_faces, self.order = min_face, max_faces, order

    @cached_property
    def rows(self) -> list[PhotoFace | UnusablePhoto]:
        missing = faces.available()
        if missing:
            raise UserError(f"data=photos needs an extra: {missing}")
        looked_at = track(
            self.photos, "Looking for faces", console=Console(stderr=True), transient=True
        )
        return [row for name, path in looked_at for row in self._rows_of(name, path)]

    @property
    def faces(self) -> list[PhotoFace]:
        """The rows that are faces."""
        return [row for row in self.rows if isinstance(row, PhotoFace)]

    @cached_property
    def ids(self) -> list[str]:  # type: ignore[override]
        return [row.id for row in self.rows]

    def factor(self, index: int) -> int | None:
        row = self.rows[index]
        if isinstance(row, UnusablePhoto):
            raise UserError(row.reason)
        pixels = quad_side(row.quad)
        if self.asked_factor == 1 or pixels >= self.resolution // self.asked_factor:
            return None
        sides = [side for side in range(8, int(pixels) + 1) if self.resolution % side == 0]
        if not sides:
            raise UserError(
                f"{row.path}: the crop of face {row.id} has only {pixels:.0f} pixels a side"
            )
        return self.resolution // max(sides)

    def load(self, index: int) -> Sample:
        own_factor, row = self.factor(index), self.rows[index]
        assert isinstance(row, PhotoFace)
        if self.mode == "evaluate" and own_factor is None:
            return Sample(hr=self.aligned(row, self.resolution), notes=row.notes())
        side = self.resolution // (own_factor or self.asked_factor)
        return Sample(lr=self.low_res(row, side), notes=row.notes())

    def aligned(self, row: PhotoFace, size: int) -> Tensor:
        """A face as an upright square image `[3, size, size]`."""
        return from_pil(Image.fromarray(aligned(_last_photo(row.path), row.quad, size)))

    def low_res(self, row: PhotoFace, side: int) -> Tensor:
        """A face at a low-res size that it fills: sampled about as finely as the photo, reduced."""
        grid = side
        while grid < min(quad_side(row.quad), self.resolution):
            grid *= 2
        return resized(self.aligned(row, grid), (side, side))

    def _rows_of(self, name: str, path: Path) -> list[PhotoFace | UnusablePhoto]:
        # In evaluation a face is the truth: below a quarter of the side it is mostly enlargement.
        share = min(4, self.asked_factor) if self.mode == "evaluate" else self.asked_factor
        try:
            found = faces_in_photo(
                path, name, self.resolution / share, self.min_face, self.max_faces, self.order
            )
        except UserError as error:
            return [UnusablePhoto(name, path, str(error))]
        return [*found]


@lru_cache(maxsize=1)
def _last_photo(path: Path) -> Photo:
    return read_photo(path)


def faces_in_photo(
    path: Path,
    name: str,
    small_below: float,
    min_face: float = 0,
    max_faces: int | None = None,
    order: str = "size",
) -> list[PhotoFace]:
    """Every face of a photo that is to become a row.

    Args:
        name: the photo's id; its faces are `name#1`, `name#2` ...
        small_below: side of the crop in pixels below which a face is remarked as small.
        min_face: side of the smallest face box, in pixels of the photo.
        max_faces: how many faces, the largest ones; None for all.
        order: "size", the largest first, or "left_to_right".

    Raises:
        UserError: the photo cannot be read, or shows no face that is large enough.
    """
    photo = read_photo(path)
    found = find_faces(photo)
    if not found:
        raise UserError(f"{path}: no face found")
    kept = [face for face in found if face.size >= min_face][:max_faces]
    if not kept:
        largest = f"{found[0].size:.0f} pixels"
        raise UserError(f"{path}: its largest face is {largest}, below data.min_face={min_face}")
    if order == "left_to_right":
        kept.sort(key=lambda face: face.box[0] + face.box[2])
    rows = []
    for number, face in enumerate(kept, start=1):
        quad = quad_from_landmarks(face.landmarks)
        said = remarks(photo, face, quad, small_below)
        rows.append(PhotoFace(f"{name}#{number}", path, face, quad, said, len(found)))
    return rows


def aligned(photo: Photo, quad: Quad, size: int) -> Picture:
    """The face in a quad of the whole photo as an upright square `[size, size, 3]` uint8."""
    return crop_quad(photo.pixels, (quad + 0.5) / photo.scale - 0.5, size)


def find_faces(photo: Photo) -> list[Face]:
    """Every face of a photo, the largest first, in pixels of the whole upright photo.

    Where no face is upright, the photo is looked at sideways and upside down too: its EXIF may be
    wrong. Raises UserError without the extra `faces`.
    """
    found = _sure(photo.pixels, _doublings(photo.pixels))
    if found:
        return [_scaled(face, photo.scale) for face in found]
    height, width = photo.pixels.shape[:2]
    factor = halvings(width, height, TURNED_PIXELS)
    small = np.asarray(Image.fromarray(photo.pixels).reduce(factor))
    for quarter_turns in (1, 3, 2):
        found = _sure(np.rot90(small, quarter_turns), upsample=0)
        if found:
            back = [_turned_back(face, quarter_turns, small.shape) for face in found]
            return [_scaled(face, photo.scale * factor) for face in back]
    return []


def _sure(image: Picture, upsample: int) -> list[Face]:
    return [face for face in faces.detect(image, upsample) if face.score >= SURE]


def _doublings(image: Picture) -> int:
    pixels = image.shape[0] * image.shape[1]
    return sum(pixels * 4**n <= UPSAMPLED_PIXELS for n in (1, 2))


def _scaled(face: Face, scale: float) -> Face:
    left, top, right, bottom = (round(edge * scale) for edge in face.box)
    return Face((left, top, right, bottom), (face.landmarks + 0.5) * scale - 0.5, face.score)


def _turned_back(face: Face, quarter_turns: int, shape: tuple[int, ...]) -> Face:
    """A face of `np.rot90(image, quarter_turns)` in the pixels of that image, of this shape."""
    points = face.landmarks
    corners = np.array(face.box, dtype=np.float64).reshape(2, 2)
    for turn in reversed(range(quarter_turns)):
        width = shape[1 - turn % 2]  # before this turn, which sent (x, y) to (y, width - 1 - x)
        points = np.stack([width - 1 - points[:, 1], points[:, 0]], axis=1)
        corners = np.stack([width - corners[:, 1], corners[:, 0]], axis=1)
    left, top = corners.min(axis=0).astype(int).tolist()
    right, bottom = corners.max(axis=0).astype(int).tolist()
    return Face((left, top, right, bottom), points, face.score)
