"""Finished runs as one data frame, and an account of what was read, used and left out.

Reads `records.jsonl` and the files beside it; never a live object, never torch.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_exp import config
from pulse_exp.errors import UserError
from pulse_exp.metrics.catalog import CATALOG, value_of

if TYPE_CHECKING:
    import pandas as pd

CHOICES = (*config.CHOICES, "factor", "eps")
"""The choices of a run that its records name, in the order of display."""

OF_SOME_OPTIONS = {"lr_blur", "lr_jpeg", "lr_mse_refined"}
"""What refinements and estimated starts tell: a record without is not of another version."""

IDENTITY = ("config_hash", "image", "restart")
"""What makes a row unique; a second row with the same three is a duplicate."""

STATUSES = ("solved", "unsolved", "failed")


@dataclass
class Account:
    """What became of every line of every file; `lines()` says it in words.

    Attributes:
        rows: rows of each file that could be read, by the file's shown name.
        unreadable: "file:line: why" for each line that could not.
        repeated: rows left out because an identical one is kept.
        retried: failed rows left out because the search was run again.
        conflicting: one sentence for each set of rows that share an identity and differ.
        lacking: one sentence for each group of keys that only part of the rows have.
        versions: one sentence for each package or commit of which there are several.
        used, failed: rows in the frame, and those of them that are failed searches.
    """

    rows: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    repeated: int = 0
    retried: int = 0
    conflicting: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    used: int = 0
    failed: int = 0

    def lines(self) -> list[str]:
        """The whole account, one sentence a line; the first sums up, the others say what is odd."""
        read = sum(self.rows.values())
        summary = (
            f"{_count(self.used, 'record')} used of {_count(read + len(self.unreadable), 'line')} "
            f"in {_count(len(self.rows), 'file')}"
        )
        summary += f"; {self.failed} of them failed." if self.failed else "."
        lines = [summary]
        lines += [f"{name} holds no records." for name, rows in self.rows.items() if rows == 0]
        lines += _at_most_ten([f"Not used: {where}." for where in self.unreadable])
        if self.repeated:
            lines.append(f"{_count(self.repeated, 'identical duplicate')} left out.")
        if self.retried:
            attempts = _count(self.retried, "failed attempt")
            lines.append(f"{attempts} left out: the same search was run again.")
        return lines + _at_most_ten(self.conflicting) + self.lacking + self.versions


@dataclass
class Results:
    """The rows of finished runs.

    Attributes:
        frame: one row a search, sorted by (config_hash, image, restart): the keys of the records,
            every number of the metrics catalog that they hold or imply (NaN where a row has
            none), `run_folder`, and the run's resolved settings under their dotted names
            (`optimizer.learning_rate`) where a `.hydra/config.yaml` has them.
        account: what was read and what was left out.
    """

    frame: pd.DataFrame
    account: Account


@dataclass(frozen=True)
class _Row:
    record: dict[str, Any]
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{shown(self.path)}:{self.line}"


def load_results(paths: Iterable[str | Path]) -> Results:
    """Read any number of run folders, multirun folders or record files.

    The result is the same whatever the order of `paths`, and however often one is named.

    Raises:
        UserError: a path does not exist or has no records, or none of the lines is usable.
    """
    account = Account()
    rows: list[_Row] = []
    for path in _record_files(paths):
        found = _read_file(path, account)
        account.rows[shown(path)] = len(found)
        rows += found
    rows = _without_duplicates(rows, account)
    if not rows:
        reasons = account.unreadable[:1] or ["the files are empty"]
        raise UserError(f"{', '.join(account.rows)}: no usable record ({reasons[0]}).")
    _note_mixtures(rows, account)
    account.used = len(rows)
    account.failed = sum(row.record["status"] == "failed" for row in rows)
    return Results(_frame(rows), account)


def shown(path: Path) -> str:
    """A path as people are shown it: relative to the working directory where it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else Path(relative).as_posix()


def natural_key(value: Any) -> tuple[Any, ...]:
    """Sorts numbers by size, then "none", then text with the numbers in it by size; what is not
    recorded comes last."""
    if value is None or value != value:
        return (2, 0.0, ())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), ())
    if value == "none":
        return (1, 0.0, ())
    parts = re.split(r"(\d+)", str(value))
    return (1, 0.0, tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts))


ABSENT = "–"
"""The label of a choice that is not recorded, or of a setting of an option that was not chosen."""


def label_of(value: Any) -> str:
    """A choice's value as a heading: whole numbers without a point, `ABSENT` for none."""
    if value is None or value != value:
        return ABSENT
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def labels_in_order(values: Iterable[Any]) -> list[str]:
    """The labels of the distinct values, in natural order."""
    order = {label_of(value): natural_key(value) for value in values}
    return sorted(order, key=order.__getitem__)


def command_of(run_folder: str | Path) -> str | None:
    """The command that made a run, from its `.hydra/overrides.yaml`; None where that is missing."""
    import shlex

    import yaml

    path = Path(run_folder) / ".hydra" / "overrides.yaml"
    try:
        overrides = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, yaml.YAMLError):
        return None
    return shlex.join(["python", "run.py", *map(str, overrides)])


def load_curves(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of `curves.jsonl` that belong to the rows of a frame, in the frame's order.

    Each is `{image, restart, config_hash, step: [...], lr_mse: [...], ...}` with the index of its
    row in the frame as `row`. Lines that cannot be read, or have no steps, are left out.
    """
    wanted = {tuple(key): row for row, key in frame[list(IDENTITY)].iterrows()}
    found: dict[int, dict[str, Any]] = {}
    for folder in sorted(set(frame["run_folder"]), key=natural_key):
        path = Path(folder) / "curves.jsonl"
        if not path.is_file():
            continue
        for line in path.read_bytes().splitlines():
            try:
                curve = json.loads(line)
                row = wanted.get(tuple(curve[key] for key in IDENTITY))
            except (ValueError, KeyError, TypeError):
                continue
            if (
                row is not None
                and curve.get("step")
                and curve.get("lr_mse")
                and frame.at[row, "run_folder"] == folder
            ):
                found[row] = {**curve, "row": row}
    return [found[row] for row in sorted(found)]


def _record_files(paths: Iterable[str | Path]) -> list[Path]:
    files: set[Path] = set()
    for given in paths:
        path = Path(given)
        if path.is_file():
            files.add(path.resolve())
            continue
        if not path.is_dir():
            raise UserError(f"{given}: no such file or folder; name a run or multirun folder.")
        found = list(path.rglob("records.jsonl"))
        if not found:
            raise UserError(
                f"{given}: no records.jsonl in this folder or below; name the folder of a "
                "finished run or multirun."
            )
        files.update(file.resolve() for file in found)
    return sorted(files, key=natural_key)


def _read_file(path: Path, account: Account) -> list[_Row]:
    content = path.read_bytes()
    lines = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cut_short = number == len(lines)  # the writer ends every line, the last one too
        try:
            record = json.loads(line)
            problem = _problem_with(record)
        except ValueError:
            problem = "cut short" if cut_short else "not JSON"
        if problem:
            account.unreadable.append(f"{shown(path)}:{number}: {problem}")
        else:
            rows.append(_Row(record, path, number))
    return rows


def _problem_with(record: Any) -> str:
    if not isinstance(record, dict):
        return "not a JSON object"
    missing = [key for key in (*IDENTITY, "status") if record.get(key) is None]
    if missing:
        return f"no {', '.join(missing)}"
    if record["status"] not in STATUSES:
        return f"status {record['status']!r} is none of {', '.join(STATUSES)}"
    return ""


def _without_duplicates(rows: Sequence[_Row], account: Account) -> list[_Row]:
    groups: dict[tuple[Any, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row.record[key] for key in IDENTITY)].append(row)
    kept = []
    for (_, image, restart), group in groups.items():
        distinct = {json.dumps(row.record, sort_keys=True): row for row in group}
        account.repeated += len(group) - len(distinct)
        # The last of the most complete: a finished search beats a failed one, more numbers beat
        # fewer (a row measured again has more), and later beats earlier.
        chosen = max(reversed(distinct.values()), key=lambda row: _completeness(row.record))
        kept.append(chosen)
        failed = [row for row in distinct.values() if row.record["status"] == "failed"]
        retried = [row for row in failed if row is not chosen]
        account.retried += len(retried)
        if len(distinct) - len(retried) > 1:
            others = ", ".join(
                row.where for row in distinct.values() if row is not chosen and row not in retried
            )
            account.conflicting.append(
                f"Image {image}, restart {restart} has differing records: used the "
                f"last complete one, {chosen.where}, and not {others}."
            )
    return sorted(kept, key=lambda row: [natural_key(row.record[key]) for key in IDENTITY])


def _completeness(record: dict[str, Any]) -> tuple[bool, int]:
    return record["status"] != "failed", sum(value is not None for value in record.values())


def _note_mixtures(rows: Sequence[_Row], account: Account) -> None:
    """Say which keys only part of the rows have, and which versions and commits are mixed."""
    # A failed search has no metrics; that is no sign of a mixed schema.
    finished = [row for row in rows if row.record["status"] != "failed"]
    having = Counter(key for row in finished for key in row.record if key not in OF_SOME_OPTIONS)
    groups: dict[int, list[str]] = defaultdict(list)
    for key, count in having.items():
        if count < len(finished):
            groups[len(finished) - count].append(key)
    for count, keys in sorted(groups.items()):
        verb = "is" if len(keys) == 1 else "are"
        account.lacking.append(
            f"{', '.join(sorted(keys))} {verb} missing from {count} of the {len(finished)} "
            "records of finished searches (made by another version, or not measured)."
        )
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for named in filter(None, str(row.record.get("versions") or "").split(", ")):
            name, _, version = named.rpartition(" ")
            seen[name or "versions"][version] += 1
        if row.record.get("git_commit"):
            seen["git_commit"][str(row.record["git_commit"])] += 1
    for name, counts in sorted(seen.items()):
        if len(counts) > 1:
            each = ", ".join(
                f"{v} ({_count(counts[v], 'record')})" for v in sorted(counts, key=natural_key)
            )
            account.versions.append(f"Mixed {name}: {each}.")


def _frame(rows: Sequence[_Row]) -> pd.DataFrame:
    import pandas as pd

    folders = [row.path.parent for row in rows]
    settings = {folder: _settings(folder) for folder in set(folders)}
    merged = []
    for row, folder in zip(rows, folders, strict=True):
        numbers = {key: value_of(row.record, key) for key in CATALOG}
        measured = {key: value for key, value in numbers.items() if value is not None}
        derived = ("steps_to_solve", "seconds_to_solve") if "solved_step" in row.record else ()
        blank = {key: None for key in CATALOG if key in row.record or key in derived}
        merged.append(
            {**settings[folder], **row.record, **blank, **measured, "run_folder": str(folder)}
        )
    frame = pd.DataFrame(merged)
    for key in CATALOG:
        if key in frame:
            frame[key] = frame[key].astype(float)
    return frame


def _settings(folder: Path) -> dict[str, Any]:
    """The leaves of a run's resolved config by dotted name; a list becomes "[a, b]"."""
    import yaml

    try:
        resolved = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    leaves: dict[str, Any] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                if not str(key).startswith("_"):
                    walk(child, f"{name}.{key}" if name else str(key))
        elif "." in name:
            leaves[name] = json.dumps(node) if isinstance(node, list) else node

    walk(resolved, "")
    return leaves


def _at_most_ten(lines: list[str]) -> list[str]:
    more = len(lines) - 10
    return lines if more <= 0 else [*lines[:10], f"(... and {more} more like the last.)"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
