"""One self-contained page about finished runs: tables, figures, a gallery, failures, commands.

The page needs no network and works from a file. Pictures are embedded as thumbnails; the files
beside the page open by relative links.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pulse_exp.errors import UserError
from pulse_exp.figure_style import inline_raster, inline_vector
from pulse_exp.figures import severity_figure, steps_figure, time_figure
from pulse_exp.gallery import gallery_data
from pulse_exp.grouping import best_restarts, compared_keys, is_problem
from pulse_exp.image_grids import diversity_figure, samples_figure
from pulse_exp.metrics.catalog import CATALOG
from pulse_exp.results import (
    CHOICES,
    Results,
    command_of,
    label_of,
    labels_in_order,
    load_results,
    natural_key,
)
from pulse_exp.table_formats import html_table, place_id
from pulse_exp.tables import HEADLINE, Table, build_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

MOST_LINES = 6
"""Figures compare at most so many groups: as many as their palette can tell apart."""
MOST_GROUPS = 8
"""Labels with more values than this are no groups of images."""


@dataclass(frozen=True)
class Run:
    """One configuration in one folder.

    Attributes:
        folder: its path; `name` and `link` are the same relative to the page, to read and to open.
        options: what tells it apart from the other runs.
        command: what made it; None where the folder has no overrides.
    """

    folder: str
    config: str
    name: str
    link: str
    options: list[tuple[str, str]]
    searches: int
    solved: int
    failed: int
    command: str | None


@dataclass(frozen=True)
class ReportTable:
    """A table of the page, and for each place in it the options and the numbers of its runs."""

    caption: str
    html: str
    cells: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page as an HTML element."""

    caption: str
    html: str


def write_report(results_dir: str | Path) -> Path:
    """Write `report.html` into a folder of runs from the records in it; returns its path.

    Raises:
        UserError: the folder does not exist or has no usable records.
    """
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    folder = Path(results_dir).resolve()
    if not folder.is_dir():
        raise UserError(f"{results_dir}: no such folder; name the folder of a run or multirun.")
    results = load_results([folder])
    frame = results.frame
    runs = _runs(frame, folder)
    tables = _tables(results, runs)
    data = gallery_data(frame, {(run.folder, run.config): n for n, run in enumerate(runs)})
    data |= {
        "runs": [
            {"name": r.name, "link": r.link, "options": r.options, "command": r.command}
            for r in runs
        ],
        "tables": [table.cells for table in tables],
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("pulse_exp").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=folder.name,
        facts=_facts(frame),
        options=_options(frame),
        tables=tables,
        figures=_figures(results),
        failures=_failures(frame, runs),
        runs=runs,
        account=results.account.lines(),
        data=data,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def run(config: DictConfig, words: dict[str, str], folder: Path) -> int:
    """`task=report results=DIR`: writes the page and says where it is."""
    print(write_report(config.results))
    return 0


def _facts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The few numbers at the top: a value and what it counts."""
    best = best_restarts(frame)
    solved = int((best["status"] == "solved").sum())
    counted = [
        (frame["image"].nunique(), "image", "images"),
        (frame["config_hash"].nunique(), "configuration", "configurations"),
        (len(frame), "search", "searches"),
        (int((frame["status"] == "failed").sum()), "failed search", "failed searches"),
    ]
    facts = [(str(n), one if n == 1 else many) for n, one, many in counted]
    return [*facts, (f"{100 * solved / len(best):.0f} %", "of images solved")]


def _options(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Each choice and its values; those with several come first."""
    keys = [key for key in (*CHOICES, "seed", "git_commit", "versions") if key in frame]
    compared = [key for key in compared_keys(frame) if key not in keys and key != "config_hash"]
    listed = [(key, labels_in_order(frame[key])) for key in (*compared, *keys)]
    return sorted(listed, key=lambda option: len(option[1]) == 1)


def _runs(frame: pd.DataFrame, base: Path) -> list[Run]:
    keys = compared_keys(frame)
    ordered: list[tuple[Any, Run]] = []
    for (folder, config), part in frame.groupby(["run_folder", "config_hash"], sort=False):
        first = part.iloc[0]
        name = Path(os.path.relpath(str(folder), base)).as_posix()
        run = Run(
            folder=str(folder),
            config=str(config),
            name=name,
            link=quote(name),
            options=[(key, ", ".join(labels_in_order(part[key]))) for key in keys],
            searches=len(part),
            solved=int((part["status"] == "solved").sum()),
            failed=int((part["status"] == "failed").sum()),
            command=command_of(str(folder)),
        )
        order = [natural_key(first[key]) for key in keys]
        ordered.append(((order, natural_key(name), str(config)), run))
    return [run for _, run in sorted(ordered, key=lambda item: item[0])]


def _tables(results: Results, runs: Sequence[Run]) -> list[ReportTable]:
    """The headline metrics, the others, and the headline by each labelled group of images."""
    frame = results.frame
    there = [key for key in CATALOG if key in frame and frame[key].notna().any()]
    headline = [key for key in HEADLINE if key in there]
    others = [key for key in there if key not in HEADLINE]
    keys = compared_keys(frame)
    rows = [key for key in keys if not is_problem(key)] or list(keys)
    blocks = [key for key in keys if key not in rows]
    tables = [("Main results.", build_table(results, rows, blocks=blocks, metrics=headline))]
    if others:
        table = build_table(results, rows, blocks=blocks, metrics=others)
        tables.append(("All other measurements.", table))
    for note in sorted(key for key in map(str, frame.columns) if key.startswith("note_")):
        if 1 < frame[note].nunique() <= MOST_GROUPS:
            group = note.removeprefix("note_").replace("_", " ")
            table = build_table(results, rows, blocks=[*blocks, note], metrics=headline)
            tables.append((f"Main results by {group}.", table))
    return [ReportTable(text, html_table(table), _cells(table, runs)) for text, table in tables]


def _cells(table: Table, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    keys = (*table.block_keys, *table.row_keys, *table.col_keys)
    number = {(run.folder, run.config): n for n, run in enumerate(runs)}
    return {
        place_id(table, place): {
            "options": list(zip(keys, [label for axis in place for label in axis], strict=True)),
            "runs": sorted(number[run] for run in group.runs),
        }
        for place, group in ((p, table.groups[p]) for p in table.places() if p in table.groups)
    }


def _figures(results: Results) -> list[ReportFigure]:
    """Every figure that these records allow."""
    frame = results.frame
    by = compared_keys(frame)
    if len(frame[list(by)].map(label_of).drop_duplicates()) > MOST_LINES:
        by = by[:1]
    Draw = Callable[[], "Figure"]
    figures: list[tuple[str, Draw, Callable[[Figure], str]]] = [
        ("Downscaling error over the steps.", lambda: steps_figure(results, by), inline_vector),
        ("Searches within eps over time.", lambda: time_figure(results, by), inline_vector),
        ("PSNR.", lambda: severity_figure(results, "psnr"), inline_vector),
        ("NIQE.", lambda: severity_figure(results, "niqe"), inline_vector),
        ("Samples.", lambda: samples_figure(results, by), inline_raster),
        ("Where restarts differ.", lambda: diversity_figure(results, by), inline_raster),
    ]
    drawn = []
    for caption, draw, embed in figures:
        try:
            drawn.append(ReportFigure(caption, embed(draw())))
        except UserError:  # these records lack what it shows
            continue
    return drawn


def _failures(frame: pd.DataFrame, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The failed searches by reason, the most frequent first."""
    options = {(run.folder, run.config): run for run in runs}
    failed = frame[frame["status"] == "failed"]
    if failed.empty:
        return []
    reasons = []
    for reason, part in failed.groupby(failed["reason"].fillna("").map(str)):
        searches = [
            (str(row.image), int(row.restart), options[row.run_folder, row.config_hash])
            for row in part.itertuples()
        ]
        searches.sort(key=lambda search: (natural_key(search[0]), search[1], search[2].name))
        reasons.append({"reason": reason or "no reason given", "searches": searches})
    return sorted(reasons, key=lambda group: (-len(group["searches"]), group["reason"]))
