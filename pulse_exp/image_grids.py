"""Grids of pictures: samples beside their input and truth, and where restarts differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pulse_exp.errors import UserError
from pulse_exp.figure_style import MUTED, style
from pulse_exp.grouping import (
    Labels,
    best_restarts,
    compared_groups,
    counts_of,
    is_problem,
    labels_along,
    restrict,
    speaking_labels,
)
from pulse_exp.results import Results, natural_key

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

TILE = 1.15
"""Side of a picture in a grid, in inches; its pixels are at most `TILE_PIXELS` a side."""
TILE_PIXELS = 256
COLUMNS = 10
"""Pictures side by side."""


def samples_figure(
    results: Results,
    by: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
    images: int = 6,
    columns: int = COLUMNS,
) -> Figure:
    """Pictures: a column an image, a row each combination of `by`, between low-res and truth. Where
    not all saw the same low-res images, each input stands above the rows that saw it.

    Of an image's restarts the one with the lowest downscaling error is shown. More images than
    `columns` continue below, as many in each band.
    """
    frame = restrict(results.frame, where or {})
    shown = _shown_images(frame, where or {}, images)
    keys, parts = compared_groups(frame, by, where or {})
    tiles = []
    for _, part in parts:
        chosen = best_restarts(part).drop_duplicates("image").set_index("image")
        tiles.append([_result_tile(chosen, image) for image in shown])
    rows = _below_their_inputs(keys, parts, tiles, shown)
    folders = _folders_by_image(frame)
    truth = [_first_picture(folders, "hr", image) for image in shown]
    if any(tile.pixels is not None for tile in truth):
        rows.append(("Truth", truth))
    return _grid(rows, shown, columns, _note(frame, shown))


def diversity_figure(
    results: Results,
    by: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
    images: int = 6,
    columns: int = COLUMNS,
) -> Figure:
    """Per-pixel standard deviation over the restarts of an image, averaged over the channels; more
    images than `columns` continue below.

    Raises:
        UserError: no image has two results.
    """
    frame = restrict(results.frame, where or {})
    shown = _shown_images(frame, where or {}, images)
    keys, parts = compared_groups(frame, by, where or {})
    tiles = [[_deviation_tile(part, image) for image in shown] for _, part in parts]
    rows = _below_their_inputs(keys, parts, tiles, shown)
    maps = [tile for _, tiles in rows for tile in tiles if tile.is_map]
    if not maps:
        raise UserError("No image has results of two restarts: run with restarts=2 or more.")
    return _grid(rows, shown, columns, f"Standard deviation over restarts. {_note(frame, shown)}")


def _note(frame: pd.DataFrame, shown: Sequence[str]) -> str:
    hidden = frame["image"].nunique() - len(shown)
    return counts_of(frame) + (f" The first {len(shown)} images are shown." if hidden else "")


@dataclass(frozen=True)
class _Tile:
    """A picture of a grid `[H, W, 3]` or a map `[H, W]`, or words in its place."""

    pixels: NDArray[np.float64] | None = None
    words: str = ""

    @property
    def is_map(self) -> bool:
        return self.pixels is not None and self.pixels.ndim == 2


_Row = tuple[str, list[_Tile]]


def _shown_images(frame: pd.DataFrame, where: Mapping[str, Sequence[str]], limit: int) -> list[str]:
    return [image for (image,) in labels_along(frame, ["image"], where)][:limit]


def _folders_by_image(frame: pd.DataFrame) -> dict[str, list[str]]:
    groups = frame.groupby(frame["image"].map(str))["run_folder"]
    return {str(image): sorted(set(folders), key=natural_key) for image, folders in groups}


def _picture(path: Path, pixels: int = TILE_PIXELS) -> _Tile:
    """The picture with at most so many pixels a side, or words where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
    except OSError:
        return _Tile(words="no picture")
    rgb.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    return _Tile(np.asarray(rgb, dtype=np.float64) / 255)


def _first_picture(folders: Mapping[str, Sequence[str]], kind: str, image: str) -> _Tile:
    for folder in folders.get(image, []):
        tile = _picture(Path(folder) / kind / f"{image}.png")
        if tile.pixels is not None:
            return tile
    return _Tile(words="none")


def _below_their_inputs(
    keys: Sequence[str],
    parts: Sequence[tuple[Labels, pd.DataFrame]],
    tiles: Sequence[list[_Tile]],
    shown: Sequence[str],
) -> list[_Row]:
    """The rows of all groups in their order, below the low-res inputs: once where all saw the same,
    else those that saw the same together below theirs."""
    inputs: list[tuple[list[_Tile], list[int]]] = []
    for number, (_, part) in enumerate(parts):
        folders = _folders_by_image(part)
        seen = [_first_picture(folders, "lr", image) for image in shown]
        for place, (others, numbers) in enumerate(inputs):
            if _agree(seen, others):
                both = zip(others, seen, strict=True)
                known = [b if a.pixels is None else a for a, b in both]
                inputs[place] = known, [*numbers, number]
                break
        else:
            inputs.append((seen, [number]))
    rows: list[_Row] = []
    for seen, numbers in inputs:
        name = ["Low-res"]
        if len(inputs) > 1:
            labels = parts[numbers[0]][0]
            problem = [n for n, key in enumerate(keys) if is_problem(key)]
            name += speaking_labels([keys[n] for n in problem], tuple(labels[n] for n in problem))
        rows.append((", ".join(name), seen))
        rows += [(", ".join(speaking_labels(keys, parts[n][0])), tiles[n]) for n in numbers]
    return rows


def _agree(tiles: Sequence[_Tile], others: Sequence[_Tile]) -> bool:
    """Whether pictures that both have of an image are equal, and there are any, or none at all."""
    common = [
        np.array_equal(a.pixels, b.pixels)
        for a, b in zip(tiles, others, strict=True)
        if a.pixels is not None and b.pixels is not None
    ]
    nothing = all(tile.pixels is None for tile in (*tiles, *others))
    return all(common) if common else nothing


def _result_tile(chosen: pd.DataFrame, image: str) -> _Tile:
    if image not in chosen.index:
        return _Tile(words="no record")
    row = chosen.loc[image]
    if row["status"] == "failed":
        return _Tile(words="failed")
    return _picture(Path(row["run_folder"]) / "sr" / f"{image}-{row['restart']}.png")


def _deviation_tile(part: pd.DataFrame, image: str) -> _Tile:
    """The map of the first run that has two results of the image, taken at full size."""
    from PIL import Image

    rows = part[(part["image"].map(str) == image) & (part["status"] != "failed")]
    for _, run in rows.groupby("config_hash"):
        paths = [
            Path(folder) / "sr" / f"{image}-{restart}.png"
            for folder, restart in zip(run["run_folder"], run["restart"], strict=True)
        ]
        tiles = [_picture(path, pixels=1 << 16) for path in paths]
        pictures = [tile.pixels for tile in tiles if tile.pixels is not None]
        if len(pictures) > 1:
            deviation = np.stack(pictures).std(axis=0).mean(axis=-1)
            shrunk = Image.fromarray(deviation.astype(np.float32))
            shrunk.thumbnail((TILE_PIXELS, TILE_PIXELS), Image.Resampling.BOX)
            return _Tile(np.asarray(shrunk, dtype=np.float64))
    return _Tile(words="no two results")


def _grid(
    rows: Sequence[tuple[str, list[_Tile]]], shown: Sequence[str], columns: int, note: str
) -> Figure:
    from matplotlib.figure import Figure

    maps = [tile.pixels for _, tiles in rows for tile in tiles if tile.is_map]
    brightest = max((float(pixels.max()) for pixels in maps if pixels is not None), default=1.0)
    bands = -(-len(shown) // columns)
    columns = -(-len(shown) // bands)  # no image left alone in the last
    with style():
        figure = Figure(
            figsize=(TILE * columns + 1.3, (TILE * len(rows) + 0.2) * bands + 0.3),
            layout="compressed",
        )
        axes = figure.subplots(len(rows) * bands, columns, squeeze=False)
        shown_map = None
        for number, image in enumerate(shown):
            band, column = divmod(number, columns)
            for r, (name, tiles) in enumerate(rows):
                place, tile = axes[band * len(rows) + r, column], tiles[number]
                drawn = _draw_tile(place, tile, brightest)
                shown_map = drawn if tile.is_map else shown_map
                if r == 0:
                    place.set_title(image, size=7, color=MUTED)
                if column == 0:
                    place.set_ylabel(
                        name.replace(", ", ",\n"), rotation=0, ha="right", va="center", labelpad=6
                    )
        for place in axes[-len(rows) :, len(shown) - columns * (bands - 1) :].flat:
            place.set_axis_off()
        if shown_map is not None:
            bar = figure.colorbar(shown_map, ax=axes, shrink=0.5, aspect=25, pad=0.01)
            bar.set_label("Standard deviation of a pixel (0 to 1)")
            bar.outline.set_visible(False)  # type: ignore[operator]
        figure.supxlabel(note, size=7, color=MUTED)
    return figure


def _draw_tile(axes: Axes, tile: _Tile, brightest: float) -> Any:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if tile.pixels is None:
        axes.set_facecolor("#f0f0f0")
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, tile.words, ha="center", va="center", color=MUTED, size=7,
                  transform=axes.transAxes)  # fmt: skip
        return None
    if tile.is_map:
        return axes.imshow(tile.pixels, cmap="magma", vmin=0, vmax=brightest)
    blocky = max(tile.pixels.shape) <= 64  # a low-res input shows its pixels
    return axes.imshow(tile.pixels, interpolation="nearest" if blocky else "antialiased")
