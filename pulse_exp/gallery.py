"""What the gallery of a report holds: its cards, its filters and the thumbnails of its pictures."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_exp.grouping import best_restarts, compared_keys
from pulse_exp.metrics.catalog import CATALOG
from pulse_exp.results import label_of, labels_in_order, natural_key
from pulse_exp.tables import HEADLINE

if TYPE_CHECKING:
    import pandas as pd

SIDES = ((300, 256), (2500, 192))
"""Up to so many cards get thumbnails with so many pixels a side; more get `SMALLEST`."""
SMALLEST = 144
BLOCKY = 64
"""Pictures up to this side are enlarged by whole pixels: a low-res input shows them on paper."""
MOST_VALUES = 40
"""A note with more values than this is no filter."""


def gallery_data(frame: pd.DataFrame, runs: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Plain JSON for the page's script.

    Args:
        frame: the records.
        runs: number of each (run folder, config hash) in the page's list of runs.

    Returns:
        `metrics`: key, label, unit, decimals of each number of a card; `filters`: key, label and
        values; `thumbnails`: data URIs; `cards`: one a record, in order of image, options and
        restart, each with `image`, `restart`, `status`, `reason`, `run`, `selected`, `filters`
        (indices into the values), `numbers`, and `pictures`: indices of the thumbnails of low-res,
        result and truth, -1 for none.
    """
    keys = [*compared_keys(frame), *_notes(frame)]
    filters = {key: labels_in_order(frame[key]) for key in keys if frame[key].nunique() > 1}
    metrics = _metrics(frame)
    frame = frame.iloc[_order(frame, list(filters))]
    selected = set(best_restarts(frame).index)
    pictures, thumbnails = _thumbnails(frame)
    cards = []
    for (index, row), indices in zip(frame.iterrows(), pictures, strict=True):
        numbers = [None if row[key] != row[key] else float(f"{row[key]:.6g}") for key in metrics]
        cards.append(
            {
                "image": str(row["image"]),
                "restart": int(row["restart"]),
                "status": row["status"],
                "reason": str(row.get("reason") or ""),
                "run": runs[row["run_folder"], row["config_hash"]],
                "selected": index in selected,
                "filters": [v.index(label_of(row[key])) for key, v in filters.items()],
                "numbers": numbers,
                "pictures": indices,
            }
        )
    return {
        "metrics": [
            {
                "key": key,
                "label": CATALOG[key].label,
                "unit": CATALOG[key].unit,
                "decimals": CATALOG[key].decimals,
                "description": CATALOG[key].description,
                "headline": key in HEADLINE,
            }
            for key in metrics
        ],
        "filters": [
            {"key": key, "label": key.removeprefix("note_").replace("_", " "), "values": values}
            for key, values in filters.items()
        ],
        "thumbnails": thumbnails,
        "cards": cards,
    }


def _notes(frame: pd.DataFrame) -> list[str]:
    notes = sorted(key for key in map(str, frame.columns) if key.startswith("note_"))
    return [key for key in notes if frame[key].nunique() <= MOST_VALUES]


def _metrics(frame: pd.DataFrame) -> list[str]:
    """The numbers of a card; its status stands for `solved`."""
    there = [key for key in CATALOG if key in frame and frame[key].notna().any()]
    return [key for key in there if key != "solved" and CATALOG[key].scope == "row"]


def _order(frame: pd.DataFrame, keys: list[str]) -> list[int]:
    columns = ["image", *keys, "restart"]
    rows = [
        [natural_key(value) for value in row]
        for row in frame[columns].itertuples(index=False, name=None)
    ]
    return sorted(range(len(rows)), key=rows.__getitem__)


def _thumbnails(frame: pd.DataFrame) -> tuple[list[list[int]], list[str]]:
    """For each row the indices of its three thumbnails, and the thumbnails without repetition."""
    paths = []
    for row in frame.itertuples():
        folder, image = Path(str(row.run_folder)), str(row.image)
        sr = folder / "sr" / f"{image}-{row.restart}.png"
        paths.append((folder / "lr" / f"{image}.png", sr, folder / "hr" / f"{image}.png"))
    side = next((side for most, side in SIDES if len(frame) <= most), SMALLEST)
    wanted = list(dict.fromkeys(path for row in paths for path in row))
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        content = dict(zip(wanted, pool.map(_read, wanted), strict=True))
        first = {digest: path for path, digest in reversed(content.items()) if digest}
        made = dict(
            zip(first, pool.map(lambda path: thumbnail(path, side), first.values()), strict=True)
        )
    listed: dict[str, int] = {}
    for path in wanted:
        uri = made.get(content[path])
        if uri:
            listed.setdefault(uri, len(listed))
    number = {path: listed.get(made.get(digest) or "", -1) for path, digest in content.items()}
    return [[number[path] for path in row] for row in paths], list(listed)


def _read(path: Path) -> str:
    """A digest of a file, empty where there is none: equal pictures are shrunk once."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""


def thumbnail(path: Path, side: int) -> str | None:
    """A picture as a data URI of at most `side` pixels a side; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
    except OSError:
        return None
    buffer = io.BytesIO()
    if max(rgb.size) <= BLOCKY:
        times = -(-2 * BLOCKY // max(rgb.size))
        enlarged = rgb.resize((rgb.width * times, rgb.height * times), Image.Resampling.NEAREST)
        enlarged.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        rgb.thumbnail((side, side), Image.Resampling.LANCZOS)
        rgb.save(buffer, "WEBP", quality=72, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
