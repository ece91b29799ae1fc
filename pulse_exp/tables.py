"""Benchmark tables from the records of finished runs.

`python -m pulse_exp.tables RESULTS... --rows prior --cols degradation --metrics niqe,psnr,solved`

Each cell is the mean over images with a bootstrap interval; failed searches are counted, never
dropped; the same command gives the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_exp.errors import UserError
from pulse_exp.grouping import (
    Labels,
    Restarts,
    check_key,
    comparable_keys,
    compared_keys,
    condition,
    image_values,
    is_problem,
    labels_along,
    metric_info,
    names,
    restrict,
    varying_keys,
)
from pulse_exp.metrics.catalog import MetricInfo
from pulse_exp.results import Results, label_of, labels_in_order, load_results
from pulse_exp.statistics import RESAMPLES, bootstrap_interval, holm, paired_p_value

if TYPE_CHECKING:
    import pandas as pd

Place = tuple[Labels, Labels, Labels]
"""Block, row and column of a cell."""

SIGNIFICANCE = 0.05
HEADLINE = ("solved", "lr_mse", "psnr", "niqe", "identity", "seconds")
"""The metrics of a table for which none are named, as far as the records have them."""


@dataclass(frozen=True)
class Cell:
    """The mean of one metric over `n` images, NaN for none.

    Attributes:
        low, high: ends of the 95 % bootstrap interval; NaN for one image or equal values.
        best: whether its printed mean is the best of those that solve the same problem.
        p: Holm-adjusted p-value against the baseline; NaN where there was no comparison.
        pairs: images in that comparison.
    """

    mean: float
    low: float
    high: float
    n: int
    best: bool = False
    p: float = float("nan")
    pairs: int = 0

    @property
    def differs(self) -> bool:
        return self.p < SIGNIFICANCE


NO_CELL = Cell(float("nan"), float("nan"), float("nan"), 0)


@dataclass(frozen=True)
class Group:
    """The searches of one place in the table.

    Attributes:
        images: images with at least one finished search.
        failed: images of which every search failed.
        solved: images with a search that solved them.
        searches, failed_searches: rows of the records, and those of them that failed.
        runs: the run folder and config hash of each run they come from.
    """

    images: int
    failed: int
    solved: int
    searches: int
    failed_searches: int
    runs: tuple[tuple[str, str], ...]


@dataclass
class Table:
    """A table before it takes a format.

    Attributes:
        row_keys, col_keys, block_keys: which keys of the records span each axis.
        rows, cols, blocks: the labels along each axis, in order; `[()]` for an axis without keys.
        metrics: what is measured, in order.
        groups: by place; a place without records is absent.
        cells: by place and metric key; absent with its group.
        baseline: the "key=value" that others were tested against, or None.
        notes: what a reader must know, one sentence each.
    """

    row_keys: Labels
    col_keys: Labels
    block_keys: Labels
    rows: list[Labels]
    cols: list[Labels]
    blocks: list[Labels]
    metrics: list[MetricInfo]
    groups: dict[Place, Group] = field(default_factory=dict)
    cells: dict[tuple[Place, str], Cell] = field(default_factory=dict)
    baseline: str | None = None
    notes: list[str] = field(default_factory=list)

    def places(self) -> list[Place]:
        return list(itertools.product(self.blocks, self.rows, self.cols))

    def tidy(self) -> pd.DataFrame:
        """One line for each cell and metric; a place without records has n = 0 and no mean."""
        import pandas as pd

        keys = (*self.block_keys, *self.row_keys, *self.col_keys)
        lines = []
        for place, metric in itertools.product(self.places(), self.metrics):
            cell = self.cells.get((place, metric.key), NO_CELL)
            group = self.groups.get(place, Group(0, 0, 0, 0, 0, ()))
            lines.append(
                {
                    **dict(zip(keys, itertools.chain(*place), strict=True)),
                    "metric": metric.key,
                    "unit": metric.unit,
                    "mean": cell.mean,
                    "low": cell.low,
                    "high": cell.high,
                    "n": cell.n,
                    "failed_images": group.failed,
                    "searches": group.searches,
                    "failed_searches": group.failed_searches,
                    "best": cell.best,
                    "baseline": self.baseline or "",
                    "p_holm": cell.p,
                    "pairs": cell.pairs,
                }
            )
        return pd.DataFrame(lines)


def build_table(
    results: Results,
    rows: Sequence[str] = (),
    cols: Sequence[str] = (),
    blocks: Sequence[str] = (),
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    restarts: Restarts = "best",
    where: Mapping[str, Sequence[str]] | None = None,
    common: bool = False,
) -> Table:
    """Average the metrics of finished runs over images.

    An image counts once in a cell. Of its restarts, `best` takes the finished one with the lowest
    downscaling error (never by the truth), `mean` averages the finished ones. Failed searches
    count as not solved and have no other value.

    Args:
        rows, cols, blocks: keys of the records that span the table; without `rows`, the choices
            that vary and stand nowhere else.
        metrics: keys of the metrics catalog, or any numeric key of the records.
        baseline: a value of a key on one of the axes, or `key=value`; every other value is
            compared with it by a Wilcoxon signed-rank test over the images that both have, the
            p-values of a metric Holm-adjusted over the whole table.
        where: keep only records with one of these values; the values' order is the table's.
        common: of each metric take only the images of which all cells that compete have a value.

    Raises:
        UserError: a key, metric, value or baseline that the records do not have.
    """
    where = where or {}
    frame = restrict(results.frame, where)
    for axis, keys in (("rows", rows), ("cols", cols), ("blocks", blocks)):
        for key in keys:
            check_key(frame, key, axis)
    rows = tuple(rows) or compared_keys(frame, besides=(*cols, *blocks))
    _check_distinct([*rows, *cols, *blocks])
    table = Table(
        row_keys=tuple(rows),
        col_keys=tuple(cols),
        block_keys=tuple(blocks),
        rows=labels_along(frame, rows, where),
        cols=labels_along(frame, cols, where),
        blocks=labels_along(frame, blocks, where),
        metrics=[metric_info(frame, key) for key in metrics or _headline(frame)],
    )
    values = _fill(table, frame, restarts)
    if common:
        _keep_common(table, values)
    if baseline is not None:
        _compare(table, values, baseline)
    _mark_best(table)
    table.notes = [*_notes(table, frame, restarts, common), *_notes_on_records(results)]
    return table


def _check_distinct(keys: Sequence[str]) -> None:
    twice = sorted({key for key in keys if list(keys).count(key) > 1})
    if twice:
        raise UserError(f"{twice[0]} spans two axes of the table; name it once.")


def _headline(frame: pd.DataFrame) -> list[str]:
    return [key for key in HEADLINE if key in frame and frame[key].notna().any()]


def _fill(
    table: Table, frame: pd.DataFrame, restarts: Restarts
) -> dict[tuple[Place, str], pd.Series]:
    """Fill groups and cells; returns each cell's values, one an image."""
    keys = [*table.block_keys, *table.row_keys, *table.col_keys]
    first, second = len(table.block_keys), len(table.block_keys) + len(table.row_keys)
    labels = frame[keys].map(label_of)
    values: dict[tuple[Place, str], pd.Series] = {}
    for name, part in frame.groupby([labels[key] for key in keys], sort=False):
        label = tuple(map(str, name))
        place = (label[:first], label[first:second], label[second:])
        finished = part[part["status"] != "failed"]
        images = finished["image"].nunique()
        table.groups[place] = Group(
            images=images,
            failed=part["image"].nunique() - images,
            solved=part["image"][part["status"] == "solved"].nunique(),
            searches=len(part),
            failed_searches=len(part) - len(finished),
            runs=tuple(sorted(set(zip(part["run_folder"], part["config_hash"], strict=True)))),
        )
        for metric in table.metrics:
            of_images = image_values(part, metric, restarts)
            values[place, metric.key] = of_images
            table.cells[place, metric.key] = _cell(of_images, metric)
    return values


def _cell(values: pd.Series, metric: MetricInfo) -> Cell:
    if values.empty:
        return NO_CELL
    low, high = (
        (float("nan"),) * 2 if metric.scope == "run" else bootstrap_interval(values.to_numpy())
    )
    return Cell(float(values.mean()), low, high, len(values))


def _keep_common(table: Table, values: dict[tuple[Place, str], pd.Series]) -> None:
    """Drop the values of images of which a rival of their cell has none, if it has any."""
    for metric in table.metrics:
        if metric.scope == "run":
            continue
        rivals: dict[Any, list[Place]] = {}
        for place in table.groups:
            if len(values[place, metric.key]):  # what has no search has no steps to compare
                rivals.setdefault(_contest(table, place), []).append(place)
        for places in rivals.values():
            images = set.intersection(*(set(values[p, metric.key].index) for p in places))
            for place in places:
                there = values[place, metric.key]
                values[place, metric.key] = kept = there[there.index.isin(images)]
                table.cells[place, metric.key] = _cell(kept, metric)


def _compare(table: Table, values: dict[tuple[Place, str], pd.Series], baseline: str) -> None:
    axis, index, value = _find_baseline(table, baseline)
    table.baseline = f"{_axis_keys(table)[axis][index]}={value}"
    headers = (table.blocks, table.rows, table.cols)[axis]
    with_value = [header for header in headers if header[index] == value]

    def partner(place: Place) -> Place:
        header = place[axis]
        replaced = (*header[:index], value, *header[index + 1 :])
        same = with_value[0] if len(with_value) == 1 else replaced
        moved = list(place)
        moved[axis] = same
        return moved[0], moved[1], moved[2]

    for metric in table.metrics:
        if metric.scope == "run":
            continue
        tested: list[tuple[Place, float, int]] = []
        for place in table.places():
            mine = values.get((place, metric.key))
            other = values.get((partner(place), metric.key))
            if place[axis][index] == value or mine is None or other is None:
                continue
            images = mine.index.intersection(other.index)
            p = paired_p_value(mine[images].to_numpy(), other[images].to_numpy())
            if len(images):
                tested.append((place, p, len(images)))
        adjusted = holm([p for _, p, _ in tested])
        for (place, _, pairs), p in zip(tested, adjusted, strict=True):
            cell = table.cells[place, metric.key]
            table.cells[place, metric.key] = replace(cell, p=float(p), pairs=pairs)


def _axis_keys(table: Table) -> tuple[Labels, Labels, Labels]:
    return table.block_keys, table.row_keys, table.col_keys


def _find_baseline(table: Table, baseline: str) -> tuple[int, int, str]:
    """Axis, index of the key on it, and value of a baseline named as `value` or `key=value`."""
    axes = (table.blocks, table.rows, table.cols)
    there = [
        (axis, index, key, label)
        for axis, keys in enumerate(_axis_keys(table))
        for index, key in enumerate(keys)
        for label in dict.fromkeys(labels[index] for labels in axes[axis])
    ]
    found = [item for item in there if baseline in (item[3], f"{item[2]}={item[3]}")]
    if len(found) == 1:
        axis, index, _, label = found[0]
        return axis, index, label
    if found:
        options = " or ".join(f"{key}={label}" for _, _, key, label in found)
        raise UserError(f"--baseline: {baseline!r} names several; say {options}.")
    options = ", ".join(f"{key}={label}" for _, _, key, label in there)
    raise UserError(f"--baseline: the table has no {baseline!r}; it has {options}.")


def _mark_best(table: Table) -> None:
    """Mark the best printed mean of each metric among rivals, unless all are alike."""
    for metric in table.metrics:
        rivals: dict[Any, dict[Place, float]] = {}
        for place in table.places():
            cell = table.cells.get((place, metric.key))
            if metric.lower_is_better is not None and cell is not None and cell.n:
                printed = round(cell.mean, metric.decimals)
                rivals.setdefault(_contest(table, place), {})[place] = printed
        for means in rivals.values():
            if len(set(means.values())) < 2:
                continue
            best = (min if metric.lower_is_better else max)(means.values())
            for place, mean in means.items():
                cell = table.cells[place, metric.key]
                table.cells[place, metric.key] = replace(cell, best=mean == best)


def _contest(table: Table, place: Place) -> tuple[Any, ...]:
    """What rivals share: block, column and problem; the row and problem where no row differs in
    more than its problem. Two degradations or two groups of people are no rivals.
    """
    block, row, col = place
    row_problem = _problem_of(table.row_keys, row)
    if len(row_problem) < len(row):
        return block, row_problem, col
    return block, row, _problem_of(table.col_keys, col)


def _problem_of(keys: Labels, labels: Labels) -> Labels:
    return tuple(label for key, label in zip(keys, labels, strict=True) if is_problem(key))


def _notes(table: Table, frame: pd.DataFrame, restarts: Restarts, common: bool) -> list[str]:
    notes = []
    if any(cell.low == cell.low for cell in table.cells.values()):
        notes.append(
            "Mean over images ± the larger side of its 95 % percentile bootstrap interval "
            f"({RESAMPLES:,} resamples of images); no ± for one image or equal values."
        )
    if frame.groupby(["config_hash", "image"])["restart"].nunique().max() > 1:
        notes.append(
            "Of an image's restarts the one with the lowest downscaling error counts."
            if restarts == "best"
            else "An image's value is the mean of its finished restarts."
        )
    groups = table.groups.values()
    failed = sum(group.failed_searches for group in groups)
    if failed:
        searches = sum(group.searches for group in groups)
        lost = sum(group.failed for group in groups)
        notes.append(
            f"{failed} of {searches} searches failed"
            + (f" and left {lost} images of cells without a result" if lost else "")
            + "; they count as not solved and have no other value."
        )
    if common:
        notes.append("Means are over the images of which all cells that compete have a value.")
    notes += _notes_on_unequal_cells(table, frame, common)
    notes += _notes_on_missing(table, frame)
    if table.baseline:
        notes.append(_note_on_tests(table))
    return notes


def _note_on_tests(table: Table) -> str:
    pairs = [
        [n for place in table.places() if (n := table.cells.get((place, m.key), NO_CELL).pairs)]
        for m in table.metrics
    ]
    tested = [of_metric for of_metric in pairs if of_metric]
    if not tested:
        return f"No image is common to {table.baseline} and another cell, so nothing was tested."
    comparisons = max(map(len, tested))
    corrected = f" after Holm's correction over the {comparisons} comparisons of a metric"
    if comparisons == 1:
        corrected = " (one comparison a metric)"
    note = (
        f"† differs from {table.baseline}: two-sided Wilcoxon signed-rank test over images, "
        f"p < {SIGNIFICANCE}{corrected}."
    )
    # The smallest two-sided p-value of n pairs is 2 / 2^n, and Holm multiplies the first by their
    # number.
    if all(len(metric) * 2.0 ** (1 - max(metric)) >= SIGNIFICANCE for metric in tested):
        most = max(map(max, tested))
        images = f"{most} image{'s' if most > 1 else ''}"
        note += f" With {images} no difference, however large, could reach that."
    return note


def _notes_on_unequal_cells(table: Table, frame: pd.DataFrame, common: bool) -> list[str]:
    """Say which other choices a cell averages over, and whether cells hold different images."""
    keys = [*table.block_keys, *table.row_keys, *table.col_keys]
    labels = [frame[key].map(label_of) for key in keys]
    others = [*comparable_keys(frame, besides=keys), *(["seed"] if "seed" in frame else [])]
    mixed: dict[str, set[Any]] = {}
    image_sets = set()
    for _, part in frame.groupby(labels, sort=False):
        image_sets.add(frozenset(part["image"]))
        for key in varying_keys(part, others):
            mixed.setdefault(key, set()).update(part[key])
    notes = [
        f"Cells average over {key}: {', '.join(labels_in_order(there))}."
        for key, there in mixed.items()
    ]
    if len(image_sets) > 1 and not common:
        notes.append("Cells do not all hold the same images: compare their means with care.")
    return notes


def _notes_on_missing(table: Table, frame: pd.DataFrame) -> list[str]:
    """Why a metric of the table was not measured, as far as the records say."""
    if "missing" not in frame:
        return []
    reasons: dict[str, None] = {}
    for text in frame["missing"].dropna().drop_duplicates():
        for reason in str(text).split("; "):
            if reason.partition(":")[0] in {metric.key for metric in table.metrics}:
                reasons[reason] = None
    return [f"Not measured: {reason}." for reason in sorted(reasons)]


def _notes_on_records(results: Results) -> list[str]:
    """What the account says beyond its first line, where anything was odd."""
    lines = results.account.lines()
    return lines if len(lines) > 1 else []


def to_wandb(table: Table) -> Any:
    """The tidy form as a `wandb.Table`, to be logged to a run."""
    import wandb

    return wandb.Table(dataframe=table.tidy())


def _parser() -> argparse.ArgumentParser:
    from pulse_exp.table_formats import FORMATS

    parser = argparse.ArgumentParser(
        prog="pulse-tables", description="Benchmark tables from the records of finished runs."
    )
    parser.add_argument(
        "results", nargs="+", help="run or multirun folders, or records.jsonl files"
    )
    for axis, what in (
        ("rows", "choices, settings or notes that span the rows (default: the choices that vary)"),
        ("cols", "the same for the columns"),
        ("blocks", "the same for blocks of rows"),
        ("metrics", f"what to show (default, as far as there: {','.join(HEADLINE)})"),
    ):
        parser.add_argument(f"--{axis}", type=names, default=[], metavar="KEY,...", help=what)
    parser.add_argument(
        "--baseline",
        metavar="VALUE",
        help="test the others against this value of an axis (or KEY=VALUE)",
    )
    parser.add_argument(
        "--restarts",
        choices=["best", "mean"],
        default="best",
        help="of an image's restarts, take the one with the lowest downscaling error, or the mean",
    )
    parser.add_argument(
        "--where",
        type=condition,
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="keep only these values, shown in this order; may be given several times",
    )
    parser.add_argument(
        "--common",
        action="store_true",
        help="of each metric take only the images of which all cells that compete have a value",
    )
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 for a mistake in the request."""
    from pulse_exp.table_formats import render

    given = _parser().parse_args(arguments)
    try:
        results = load_results(given.results)
        table = build_table(
            results,
            rows=given.rows,
            cols=given.cols,
            blocks=given.blocks,
            metrics=given.metrics,
            baseline=given.baseline,
            restarts=given.restarts,
            where=dict(given.where),
            common=given.common,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for line in results.account.lines():
        print(line, file=sys.stderr)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(render(table, given.format), encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(render(table, given.format, styled=sys.stdout.isatty()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
