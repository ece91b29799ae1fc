"""The panel: low-res | result | truth, labelled, a row an image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

CELL = 320
MARGIN = 12
HEADING = 34
CAPTION = 26
MOST_ROWS = 24
INK, QUIET, PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)


@dataclass
class PanelRow:
    """One image of a panel: its three pictures (truth may be None) and a caption under each."""

    lr: Path
    sr: Path | None
    hr: Path | None
    captions: tuple[str, str, str]


def write_panel(rows: Sequence[PanelRow], path: Path) -> None:
    """Draws the first rows (at most 24) and writes the picture, whole or not at all."""
    rows = rows[:MOST_ROWS]
    columns = ["low-res input", "result", "truth"]
    if all(row.hr is None for row in rows):
        columns.pop()
    width = MARGIN + len(columns) * (CELL + MARGIN)
    height = HEADING + len(rows) * (CELL + CAPTION + MARGIN)
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    heading, caption = ImageFont.load_default(17), ImageFont.load_default(13)
    for column, title in enumerate(columns):
        pen.text((MARGIN + column * (CELL + MARGIN), 9), title, INK, font=heading)
    for number, row in enumerate(rows):
        top = HEADING + number * (CELL + CAPTION + MARGIN)
        for column, source in enumerate([row.lr, row.sr, row.hr][: len(columns)]):
            left = MARGIN + column * (CELL + MARGIN)
            if source is None:
                pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), outline=QUIET)
                pen.text((left + 12, top + 12), "none", QUIET, font=caption)
            else:
                sheet.paste(_cell(source, enlarge=column == 0), (left, top))
            pen.text((left, top + CELL + 5), row.captions[column], QUIET, font=caption)
    part = path.with_suffix(f".{os.getpid()}.part")
    sheet.save(part, format="PNG")
    part.replace(path)


def _cell(path: Path, enlarge: bool) -> Image.Image:
    """A picture at cell size; a low-res one keeps its pixels visible."""
    with Image.open(path) as file:
        how = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
        return file.convert("RGB").resize((CELL, CELL), how)
