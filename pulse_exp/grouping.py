"""Which records a request means: its keys and metrics, groups of records, one value an image."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pulse_exp.errors import UserError
from pulse_exp.metrics.catalog import CATALOG, MetricInfo
from pulse_exp.results import ABSENT, CHOICES, label_of, labels_in_order, natural_key

if TYPE_CHECKING:
    import pandas as pd

Restarts = Literal["best", "mean"]
Labels = tuple[str, ...]
"""One value for each key of an axis."""


def check_key(frame: pd.DataFrame, key: str, axis: str) -> None:
    """Raise a `UserError` with the keys there are where the records have no such key."""
    if key in frame.columns:
        return
    choices = [name for name in CHOICES if name in frame]
    notes = sorted(name for name in map(str, frame.columns) if name.startswith("note_"))
    close = difflib.get_close_matches(key, [*choices, *notes, *setting_keys(frame)], n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    more = " and any setting by its dotted name" if setting_keys(frame) else ""
    raise UserError(
        f"--{axis}: the records have no {key!r}.{hint} "
        f"They have {', '.join([*choices, *notes])}{more}."
    )


def metric_info(frame: pd.DataFrame, key: str) -> MetricInfo:
    """What a metric of the records means; a number outside the catalog has no direction.

    Raises:
        UserError: no such metric, or not one of the records names it.
    """
    from pandas.api.types import is_numeric_dtype

    if key in frame and key in CATALOG:
        return CATALOG[key]
    if key in frame and key not in CATALOG and is_numeric_dtype(frame[key]):
        return MetricInfo(key, key, "", -math.inf, math.inf, None, 3, f"{key} of the records.")
    there = [name for name in CATALOG if name in frame and frame[name].notna().any()]
    if key in CATALOG:
        raise UserError(
            f"--metrics: none of these records has {key}; it can be added without searching again "
            f"(task=measure results=DIR). They have {', '.join(there)}."
        )
    close = difflib.get_close_matches(key, list(CATALOG), n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise UserError(f"--metrics: no metric {key!r}.{hint} The records have {', '.join(there)}.")


def is_problem(key: str) -> bool:
    """Whether a key says what is to be restored, not how: results compare only where it agrees."""
    return key.startswith(("note_", "data.", "degradation")) or key in ("data", "factor", "image")


def restrict(frame: pd.DataFrame, where: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The records that have one of the wanted values of each key.

    Raises:
        UserError: no such key, no such value, or nothing left.
    """
    for key, wanted in where.items():
        check_key(frame, key, "where")
        labels = frame[key].map(label_of)
        for value in wanted:
            if value not in set(labels):
                there = ", ".join(labels_in_order(frame[key]))
                raise UserError(f"--where: no record has {key}={value}; they have {there}.")
        frame = frame[labels.isin(list(wanted))]
    if frame.empty:
        raise UserError("--where: no record fulfils all the conditions together.")
    return frame


def varying_keys(frame: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    """Those keys that tell records apart, less those that an earlier one already implies."""
    keys = list(keys)
    labels = frame[keys].drop_duplicates().map(label_of)
    chosen: list[str] = []
    groups = 1
    for key in keys:
        combined = len(labels[[*chosen, key]].drop_duplicates())
        if combined > groups:
            groups = combined
            chosen.append(key)
    return chosen


def setting_keys(frame: pd.DataFrame) -> list[str]:
    """The dotted names of resolved settings, such as `optimizer.learning_rate`."""
    return sorted(key for key in map(str, frame.columns) if "." in key)


def comparable_keys(frame: pd.DataFrame, besides: Sequence[str] = ()) -> list[str]:
    """The choices, then those settings that may change a result, less the keys in `besides`."""
    choices = [key for key in CHOICES if key in frame]
    aside = ("data.", "logger.", "trainer.")
    settings = [key for key in setting_keys(frame) if not key.startswith(aside)]
    return [key for key in (*choices, *settings) if key not in besides]


def compared_keys(frame: pd.DataFrame, besides: Sequence[str] = ()) -> tuple[str, ...]:
    """What tells these runs apart: choices, then settings; the method where nothing does.

    Keys in `besides` are told already, with all that they imply.
    """
    candidates = comparable_keys(frame, besides)
    chosen = [k for k in varying_keys(frame, [*besides, *candidates]) if k not in besides]
    return tuple(chosen or candidates[:1] or ["config_hash"])


def labels_along(
    frame: pd.DataFrame, keys: Sequence[str], where: Mapping[str, Sequence[str]]
) -> list[Labels]:
    """The combinations of values that the records have of the keys, `[()]` of none: in the order in
    which `where` names a key's values, else in natural order."""
    if not keys:
        return [()]
    order: dict[Labels, Any] = {}
    for values in frame[list(keys)].drop_duplicates().itertuples(index=False, name=None):
        labels = tuple(map(label_of, values))
        order[labels] = [
            (list(where[key]).index(label),) if key in where else natural_key(value)
            for key, label, value in zip(keys, labels, values, strict=True)
        ]
    return sorted(order, key=lambda labels: order[labels])


def speaking_labels(keys: Sequence[str], labels: Labels) -> list[str]:
    """Labels that speak for themselves: a number, "none" and what a setting says stand with their
    key's last part. What the runs do not have is left out, unless nothing else is there."""
    pairs = list(zip(keys, labels, strict=True))
    present = [(key, label) for key, label in pairs if label != ABSENT] or pairs
    bare = {"none", "True", "False"}
    return [
        f"{key.rpartition('.')[2]} {label}"
        if "." in key or label in bare or not label[:1].isalpha()
        else label
        for key, label in present
    ]


def best_restarts(part: pd.DataFrame) -> pd.DataFrame:
    """Of each image of each run, the finished search with the lowest downscaling error.

    Ties, and records without an error, go to the first restart; a failed search stands in where
    none finished. The truth has no say.
    """
    keys = [key for key in ("failed", "lr_mse", "restart") if key in {*part, "failed"}]
    ranked = part.assign(failed=part["status"] == "failed").sort_values(keys)
    return ranked.drop_duplicates(["config_hash", "image"])


def image_values(part: pd.DataFrame, metric: MetricInfo, restarts: Restarts) -> pd.Series:
    """One value an image, by image id: of its selected restart, averaged over the runs in `part`.

    A metric of a whole run gives one value a run instead.
    """
    finished = part[part["status"] != "failed"]
    if metric.scope == "run":
        return finished.groupby("config_hash")[metric.key].first().dropna()
    # Every search counts for the success rate; elsewhere a failed one has no value.
    usable = part if metric.key == "solved" else finished
    if restarts == "best":
        of_runs = best_restarts(usable).set_index("image")[metric.key]
    else:
        of_runs = usable.groupby(["config_hash", "image"])[metric.key].mean()
    return of_runs.dropna().groupby(level="image").mean().sort_index()


def compared_groups(
    frame: pd.DataFrame,
    by: Sequence[str],
    where: Mapping[str, Sequence[str]],
    besides: Sequence[str] = (),
) -> tuple[tuple[str, ...], list[tuple[Labels, pd.DataFrame]]]:
    """The keys that a figure compares (of none named, the choices that vary) and the records of
    each combination of their values, in the order of `labels_along`."""
    for key in by:
        check_key(frame, key, "by")
    keys = tuple(by) or compared_keys(frame, besides)
    labels = [frame[key].map(label_of) for key in keys]
    parts = {tuple(map(str, name)): part for name, part in frame.groupby(labels, sort=False)}
    return keys, [(name, parts[name]) for name in labels_along(frame, keys, where)]


def counts_of(frame: pd.DataFrame) -> str:
    """How much stands behind a figure: "8 images, 64 searches, 1 failed."."""
    images, failed = frame["image"].nunique(), int((frame["status"] == "failed").sum())
    text = f"{images} image{'s' if images != 1 else ''}, {len(frame)} searches"
    return text + (f", {failed} failed." if failed else ".")


def names(text: str) -> list[str]:
    """A comma-separated list of a command line."""
    return [name.strip() for name in text.split(",") if name.strip()]


def condition(text: str) -> tuple[str, list[str]]:
    """`key=value[,value...]` of a command line."""
    key, equals, values = text.partition("=")
    if not equals or not names(values):
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value[,value...]")
    return key.strip(), names(values)
