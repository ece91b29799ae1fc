"""Ordinary photos as data: every face in them, found, described, aligned as FFHQ is.

A face's box, landmarks and quad are in pixels of the whole upright photo, however much the photo
was reduced while it was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulse_exp import faces
from pulse_exp.alignment import Picture, Quad, crop_quad, quad_from_landmarks, quad_side
from pulse_exp.errors import UserError
from pulse_exp.face_remarks import remarks
from pulse_exp.faces import Face
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
    """The face in a quad (pixels of the whole photo) as an upright square `[size, size, 3]`."""
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
