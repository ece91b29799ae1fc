"""Figures from the records of finished runs, each as PNG and PDF.

`python -m pulse_exp.figures RESULTS... KIND --output figures/NAME`

Kinds: `severity` (a metric against a number), `steps` (downscaling error over steps), `time`
(share of searches within eps over time), `samples` (a grid of pictures), `diversity` (where the
restarts of an image differ). Same records, same bytes, for one version of matplotlib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pulse_exp.errors import UserError
from pulse_exp.figure_style import COLOURS, DASHES, MARKERS, MUTED, save_figure, style
from pulse_exp.grouping import (
    Restarts,
    check_key,
    compared_groups,
    condition,
    counts_of,
    image_values,
    metric_info,
    names,
    restrict,
    setting_keys,
    speaking_labels,
)
from pulse_exp.image_grids import COLUMNS, diversity_figure, samples_figure
from pulse_exp.metrics.catalog import CATALOG, MetricInfo
from pulse_exp.results import (
    Results,
    label_of,
    labels_in_order,
    load_curves,
    load_results,
    natural_key,
)
from pulse_exp.statistics import bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


LOGARITHMIC = ("eps", "factor")
"""Keys whose values one chooses as multiples of each other."""


def severity_figure(
    results: Results,
    metric: str = "psnr",
    x: str | None = None,
    by: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
    restarts: Restarts = "best",
) -> Figure:
    """A metric against a number of the records, a line for each combination of `by`.

    Mean over images with its 95 % bootstrap interval. Without `x`, the first number that varies
    (a setting of the degradation before the factor); words instead of numbers become points
    side by side.

    Raises:
        UserError: a key or metric that the records do not have, or nothing that varies.
    """
    frame = restrict(results.frame, where or {})
    x = x or _default_x(frame)
    check_key(frame, x, "x")
    frame = frame[frame[x].notna()]
    info = metric_info(frame, metric)
    numeric = _is_numeric(frame[x])
    ticks = labels_in_order(frame[x])
    if metric not in frame or frame[metric].isna().all():
        raise UserError(f"None of these records has a value of {metric}.")
    keys, parts = compared_groups(frame, by, where or {}, besides=(x,))
    with style():
        figure, axes = _plot()
        for number, (labels, part) in enumerate(parts):
            at, means, lows, highs = _means_along(part, x, info, ticks, numeric, restarts)
            shift = 0 if numeric else 0.12 * (number - (len(parts) - 1) / 2)
            look = _look(number)
            axes.errorbar(
                at + shift,
                means,
                yerr=np.stack([means - lows, highs - means]),
                capsize=2,
                elinewidth=0.9,
                label=", ".join(speaking_labels(keys, labels)),
                **(look if numeric else {**look, "linestyle": "none"}),
            )
        if not numeric:
            axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlim(-0.5, len(ticks) - 0.5)
        elif x in LOGARITHMIC:
            axes.set_xscale("log")
            axes.set_xticks([float(tick) for tick in ticks], ticks)
            axes.minorticks_off()
        axes.set_xlabel(_axis_name(x))
        axes.set_ylabel(metric_name(info))
        _legend(figure, axes, keys)
        _explain(axes, f"Mean over images and 95 % bootstrap interval. {counts_of(frame)}")
    return figure


def steps_figure(
    results: Results,
    by: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Downscaling error over steps: median and quartiles of all searches, from `curves.jsonl`.

    A search that ended early keeps its last error from there on.

    Raises:
        UserError: no run has curves.
    """
    frame = restrict(results.frame, where or {})
    curves = {curve["row"]: curve for curve in load_curves(frame)}
    if not curves:
        raise UserError("None of these runs has a curves.jsonl with curves of its records.")
    keys, parts = compared_groups(frame, by, where or {})
    with style():
        figure, axes = _plot()
        for number, (labels, part) in enumerate(parts):
            mine = [curves[row] for row in part.index if row in curves]
            if not mine:
                continue
            steps, errors = _on_common_steps(mine)
            low, median, high = np.nanquantile(errors, [0.25, 0.5, 0.75], axis=0)
            look = _look(number)
            axes.plot(
                steps,
                median,
                color=look["color"],
                ls=look["linestyle"],
                label=", ".join(speaking_labels(keys, labels)),
            )
            axes.fill_between(steps, low, high, color=look["color"], alpha=0.18, lw=0)
        for eps in sorted(set(frame.get("eps", [])), key=natural_key):
            if isinstance(eps, float) and eps == eps:
                axes.axhline(eps, color=MUTED, lw=0.8, ls=(0, (2, 2)))
                axes.annotate(
                    f"eps = {label_of(eps)}", (1, eps), xycoords=("axes fraction", "data"),
                    xytext=(0, 2), textcoords="offset points", ha="right", color=MUTED, size=7,
                )  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("Step")
        axes.set_ylabel(metric_name(CATALOG["lr_mse"]))
        _legend(figure, axes, keys)
        without = f" {len(frame) - len(curves)} without a curve." * (len(curves) < len(frame))
        _explain(axes, f"Median and quartiles of {len(curves)} searches.{without}")
    return figure


def time_figure(
    results: Results,
    by: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Share of searches within eps after so many seconds; unsolved and failed ones never are.

    Results without a search, such as those of a baseline, are left out.

    Raises:
        UserError: no search came within eps.
    """
    frame = restrict(results.frame, where or {})
    frame = frame[(frame["steps"] > 0) | (frame["status"] == "failed")]
    if "seconds_to_solve" not in frame or frame["seconds_to_solve"].isna().all():
        raise UserError("No search of these runs came within eps, so there is no time to solve.")
    end = float(frame["seconds"].max())
    keys, parts = compared_groups(frame, by, where or {})
    with style():
        figure, axes = _plot()
        for number, (labels, part) in enumerate(parts):
            times = np.sort(part["seconds_to_solve"].dropna().to_numpy())
            share = np.arange(len(times) + 1) / len(part)
            look = _look(number)
            axes.step(
                [0.0, *times, end], [*share, share[-1]], where="post",
                color=look["color"], ls=look["linestyle"],
                label=", ".join(speaking_labels(keys, labels)),
            )  # fmt: skip
        axes.set_ylim(0, 1.02)
        axes.set_xlim(0, end)
        axes.set_xlabel("Time of the search (s)")
        axes.set_ylabel("Share of searches within eps")
        _legend(figure, axes, keys)
        _explain(axes, counts_of(frame))
    return figure


def metric_name(info: MetricInfo) -> str:
    """A metric as the title of an axis, with its unit and direction."""
    unit = f" ({info.unit})" if info.unit else ""
    better = {True: ", lower is better", False: ", higher is better", None: ""}
    return f"{info.label}{unit}{better[info.lower_is_better]}"


def _default_x(frame: pd.DataFrame) -> str:
    settings = [key for key in setting_keys(frame) if key.startswith("degradation.")]
    candidates = ["severity", *settings, "factor", "eps", *setting_keys(frame), "degradation"]
    for key in candidates:
        if key in frame and frame[key].nunique() > 1:
            return key
    raise UserError("--x: no number varies among these records; name the key that should be x.")


def _is_numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(column) and not is_bool_dtype(column)


def _means_along(
    part: pd.DataFrame,
    x: str,
    info: MetricInfo,
    ticks: Sequence[str],
    numeric: bool,
    restarts: Restarts,
) -> tuple[NDArray[np.float64], ...]:
    """x, mean, and both ends of the interval, for the values of x that have any."""
    points = []
    for value, here in part.groupby(part[x].map(label_of)):
        values = image_values(here, info, restarts)
        if values.empty:
            continue
        mean = float(values.mean())
        low, high = bootstrap_interval(values.to_numpy())
        at = float(here[x].iloc[0]) if numeric else ticks.index(str(value))
        points.append((at, mean, mean if low != low else low, mean if high != high else high))
    columns = np.asarray(sorted(points), dtype=np.float64).reshape(-1, 4).T
    return tuple(columns)


def _on_common_steps(
    curves: Sequence[Mapping[str, Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps `[S]` and errors `[curves, S]`, each curve held at its last value."""
    steps = np.unique(np.concatenate([np.asarray(c["step"], dtype=np.float64) for c in curves]))
    errors = []
    for curve in curves:
        values = np.asarray([np.nan if v is None else v for v in curve["lr_mse"]], dtype=float)
        errors.append(np.interp(steps, curve["step"], values))
    return steps, np.stack(errors)


def _plot() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    return figure, figure.subplots()


def _look(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


def _axis_name(key: str) -> str:
    info = CATALOG.get(key)
    if info is not None:
        return f"{info.label} ({info.unit})" if info.unit else info.label
    return ", ".join(key.split(".")[-2:]).replace("_", " ").capitalize()


def _legend(figure: Figure, axes: Axes, keys: Sequence[str]) -> None:
    """Below the axes, so that long names leave the plot its width; none for a single line."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) < 2:
        return
    columns = max(1, min(4, len(handles), 70 // (max(map(len, labels)) + 8)))
    title = ", ".join(keys)
    figure.legend(handles, labels, title=title, loc="outside lower center", ncols=columns)


def _explain(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", size=7, color=MUTED)


KINDS = ("severity", "steps", "time", "samples", "diversity")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pulse-figures", description="Figures from the records of finished runs."
    )
    parser.add_argument(
        "results", nargs="+", help="run or multirun folders, or records.jsonl files"
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="path without suffix, .png and .pdf are written; or with .jpg, that alone",
    )
    parser.add_argument("--metric", default="psnr", help="severity: the metric of the y axis")
    parser.add_argument("--x", metavar="KEY", help="severity: the key of the x axis")
    parser.add_argument(
        "--by", type=names, default=[], metavar="KEY,...", help="a line or row for each value"
    )
    parser.add_argument("--images", type=_count, default=6, help="samples, diversity: how many")
    parser.add_argument(
        "--columns", type=_count, default=COLUMNS, help="at most so many in a row, others below"
    )
    parser.add_argument(
        "--where", type=condition, action="append", default=[], metavar="KEY=VALUE,...",
        help="keep only these values, shown in this order; may be given several times",
    )  # fmt: skip
    return parser


def draw(kind: str, results: Results, **options: Any) -> Figure:
    """The figure of one of `KINDS`, with the options that its function takes."""
    functions = {
        "severity": severity_figure,
        "steps": steps_figure,
        "time": time_figure,
        "samples": samples_figure,
        "diversity": diversity_figure,
    }
    return functions[kind](results, **options)  # type: ignore[operator, no-any-return]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 for a mistake in the request."""
    given = _parser().parse_args(arguments)
    options: dict[str, Any] = {"by": given.by, "where": dict(given.where)}
    if given.kind == "severity":
        options |= {"metric": given.metric, "x": given.x}
    if given.kind in ("samples", "diversity"):
        options |= {"images": given.images, "columns": given.columns}
    try:
        results = load_results(given.results)
        paths = save_figure(draw(given.kind, results, **options), given.output)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    for line in results.account.lines():
        print(line, file=sys.stderr)
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
