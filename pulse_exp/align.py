"""`task=align`: shows what data=photos would search, before a long search."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pulse_exp.building import build_dataset, build_generator
from pulse_exp.errors import UserError
from pulse_exp.images import write_image, write_pixels
from pulse_exp.overview import overview
from pulse_exp.photo_files import read_photo
from pulse_exp.photos import PhotoFace, Photos
from pulse_exp.problem import Record

MOST_ROWS = 24


def run(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """Writes every face of the photos aligned, and pictures to check them by.

    In `folder`: `aligned/<photo#n>.png` at the generator's resolution; `lr/<photo#n>.png` where
    the search starts from the photo's own pixels; `overview/<photo>.png`; `faces.jsonl` with box,
    landmarks and remarks of each face, or the reason why a photo gives none.

    Returns:
        The exit status: 0, or 1 if a photo or a face cannot be used.
    """
    dataset = build_dataset(config, build_generator(config, torch.device("cpu")))
    assert isinstance(dataset, Photos)  # config.complaints saw to it
    if config.dry_run:
        print(f"{len(dataset.photos)} photos, {len(dataset.faces)} faces; results go to {folder}")
        return 0
    rows = [write_face(dataset, index, folder) for index in range(len(dataset))]
    for path in dict.fromkeys(face.path for face in dataset.faces):
        found = [face for face in dataset.faces if face.path == path]
        picture = np.asarray(overview(read_photo(path), found))
        write_pixels(picture, folder / "overview" / f"{found[0].photo_id}.png")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faces.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print_faces(rows, folder)
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def write_face(dataset: Photos, index: int, folder: Path) -> Record:
    """Writes the pictures of one row of the data; returns its line of `faces.jsonl`."""
    face = dataset.rows[index]
    try:
        sample = dataset.load(index)
    except UserError as error:
        return {"image": face.id, "status": "failed", "reason": str(error)}
    assert isinstance(face, PhotoFace)
    upright = dataset.aligned(face, dataset.resolution) if sample.hr is None else sample.hr
    write_image(upright, folder / "aligned" / f"{face.id}.png")
    side = dataset.resolution // (dataset.factor(index) or dataset.asked_factor)
    if sample.lr is not None:
        write_image(sample.lr, folder / "lr" / f"{face.id}.png")
    return {"image": face.id, "status": "found", "reason": "", "lr_side": side, **sample.notes}


def print_faces(rows: list[Record], folder: Path) -> None:
    """Prints the first faces, what cannot be used, and where the pictures are."""
    console = Console()
    found = [row for row in rows if row["status"] == "found"]
    failed = [row for row in rows if row["status"] == "failed"]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("face", "crop in pixels", "low-res side", "remarks"):
        table.add_column(heading, justify="left" if heading in ("face", "remarks") else "right")
    for row in found[:MOST_ROWS]:
        cells = f"{row['note_crop_side']:.0f}", str(row["lr_side"]), row["note_face"]
        table.add_row(escape(row["image"]), *cells)
    console.print(table)
    if len(found) > MOST_ROWS:
        console.print(f"... and {len(found) - MOST_ROWS} more", style="dim")
    for row in failed[:MOST_ROWS]:
        reason = f"[red]failed[/] {escape(row['image'])}: {escape(row['reason'])}"
        console.print(reason, soft_wrap=True)
    unusable = f"; {len(failed)} photos or faces that cannot be used" if failed else ""
    console.print(("1 face" if len(found) == 1 else f"{len(found)} faces") + unusable)
    for name in ("overview", "aligned", "lr", "faces.jsonl"):
        if (folder / name).exists():
            console.print(escape(str(folder / name)), soft_wrap=True, style="dim")
