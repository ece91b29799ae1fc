"""A picture to check before a long search: the photo with its faces marked, each face aligned."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pulse_exp.photo_files import Photo
from pulse_exp.photos import PhotoFace, aligned

PHOTO_SIDE = 1000
LARGEST_CELL, SMALLEST_CELL = 320, 96
MARGIN, CAPTION = 12, 34
INK, QUIET, PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)
GOOD, REMARKED = (40, 170, 80), (230, 120, 20)


def overview(photo: Photo, faces: Sequence[PhotoFace]) -> Image.Image:
    """The photo with box, crop and number of each face, the aligned faces beside or below it.

    Green is a good face, orange one with remarks; the caption says which, and the side of the
    crop in pixels of the photo.
    """
    marked = _marked(photo, faces)
    beside = marked.height > marked.width
    cell = int(sqrt(0.5 * PHOTO_SIDE**2 / len(faces)))
    cell = min(LARGEST_CELL, max(SMALLEST_CELL, cell))
    if beside:
        columns = ceil(len(faces) / max(1, marked.height // (cell + CAPTION + MARGIN)))
    else:
        columns = min(len(faces), max(1, marked.width // (cell + MARGIN)))
    rows = ceil(len(faces) / columns)
    grid = (columns * (cell + MARGIN), rows * (cell + CAPTION + MARGIN))
    if beside:
        left, top = marked.width + 2 * MARGIN, MARGIN
        size = (left + grid[0], max(marked.height, grid[1]) + 2 * MARGIN)
    else:
        left, top = MARGIN, marked.height + 2 * MARGIN
        size = (max(marked.width, grid[0]) + 2 * MARGIN, top + grid[1])
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(marked, (MARGIN, MARGIN))
    for number, face in enumerate(faces):
        row, column = divmod(number, columns)
        corner = (left + column * (cell + MARGIN), top + row * (cell + CAPTION + MARGIN))
        _draw_cell(sheet, corner, aligned(photo, face.quad, cell), face)
    return sheet


def _marked(photo: Photo, faces: Sequence[PhotoFace]) -> Image.Image:
    picture = Image.fromarray(photo.pixels)
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BOX)
    scale = picture.width / (photo.pixels.shape[1] * photo.scale)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for face in faces:
        color = _color(face)
        quad = (face.quad + 0.5) * scale
        pen.rectangle(tuple(np.multiply(face.face.box, scale)), outline=color)
        pen.polygon([tuple(corner) for corner in quad], outline=color, width=2)
        left, top = quad.min(axis=0).clip(0)
        corner = (float(left) + 4, float(top) + 2)
        pen.text(corner, _number(face), PAPER, font, stroke_width=2, stroke_fill=color)
    return picture


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], picture: np.ndarray, face: PhotoFace
) -> None:
    left, top = corner
    side = picture.shape[0]
    sheet.paste(Image.fromarray(picture), corner)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    pen.rectangle((left, top, left + side - 1, top + side - 1), outline=_color(face), width=2)
    said = face.notes()
    pen.text((left, top + side + 2), f"{_number(face)}  {said['note_crop_side']:.0f} px", INK, font)
    pen.text((left, top + side + 17), said["note_face"].replace("_", " "), _color(face), font)


def _number(face: PhotoFace) -> str:
    return "#" + face.id.rpartition("#")[2]


def _color(face: PhotoFace) -> tuple[int, int, int]:
    return REMARKED if face.remarks else GOOD
