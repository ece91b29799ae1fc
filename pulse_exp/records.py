"""The results of a run as files: one JSON object a line, appended whole or not at all."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pulse_exp.errors import OutputError

if TYPE_CHECKING:
    from pulse_exp.problem import Record

RECORDS = "records.jsonl"
CURVES = "curves.jsonl"


def row_key(row: Record) -> tuple[str, int, str]:
    """What makes a row unique: one search of one configuration."""
    return row["image"], row["restart"], row["config_hash"]


class RecordFile:
    """An append-only file of JSON lines that survives kills and shared use.

    A line that a kill cut short is dropped when the file is next opened for writing; a reader
    ignores it until then, as it does a line that is no JSON. Memory does not grow with the file,
    but for a key a row once `append_new` is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(f"{path}.lock")
        self._known: set[tuple[tuple[str, int, str], str]] = set()
        self._known_until = self._inode = 0

    def __iter__(self) -> Iterator[Record]:
        """Every whole line, as it is read."""
        return (row for row, _ in self._lines(0))

    def read(self) -> list[Record]:
        """Every whole line."""
        return list(self)

    def append(self, rows: Iterable[Record]) -> None:
        """Adds the rows with one write, forced to the disk before it returns.

        Raises:
            OutputError: the disk is full or the file cannot be written; no part of the rows stays.
        """
        self._append(rows, new_only=False)

    def append_new(self, rows: Iterable[Record]) -> None:
        """Adds those rows whose search is not in the file yet, whoever wrote it there.

        The same failure of the same search, met again by the same command, is not new either.

        Raises:
            OutputError: as `append`.
        """
        self._append(rows, new_only=True)

    def _append(self, rows: Iterable[Record], new_only: bool) -> None:
        rows = list(rows)
        if not rows:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.lock, self.path.open("a+b", buffering=0) as file:
                end = _drop_half_line(file)
                if new_only:
                    rows = self._unknown(rows)
                try:
                    _write(file, "".join(map(_line, rows)).encode())
                except OSError:
                    os.ftruncate(file.fileno(), end)
                    raise
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, then run the same "
                "command again: finished images are kept"
            ) from error

    def change(self, changed: Callable[[Record], Record]) -> None:
        """Replaces each row by `changed(row)`: all of them or, where that fails, none.

        Lines that are no rows, and rows that come back as the same object, keep their bytes.

        Raises:
            OutputError: the file cannot be written; it is as it was.
        """
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            with self.lock:
                with part.open("wb") as file:
                    for line in self.path.read_bytes().split(b"\n")[:-1]:
                        file.write(_changed_line(line, changed) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        finally:
            part.unlink(missing_ok=True)

    def _unknown(self, rows: list[Record]) -> list[Record]:
        """Those of the rows that the file, read on from where it was last read, does not hold."""
        facts = self.path.stat()
        if facts.st_ino != self._inode or facts.st_size < self._known_until:
            self._known, self._known_until, self._inode = set(), 0, facts.st_ino
        for row, end in self._lines(self._known_until):
            self._known.add((row_key(row), _failure(row)))
            self._known_until = end
        return [
            row
            for row in rows
            if not {(row_key(row), ""), (row_key(row), _failure(row))} & self._known
        ]

    def _lines(self, start: int) -> Iterator[tuple[Record, int]]:
        """The whole lines from a position on, each with the position behind it."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                start += len(line)
                if not line.endswith(b"\n"):
                    return
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    yield row, start


def _failure(row: Record) -> str:
    """Why a row's search failed; empty for one that did not."""
    return str(row.get("reason")) if row.get("status") == "failed" else ""


def _line(row: Record) -> str:
    return json.dumps(_finite(row), allow_nan=False) + "\n"


def _write(file: FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _drop_half_line(file: FileIO, step: int = 4096) -> int:
    """Cuts off what follows the last line's end; returns the file's size."""
    size = place = file.seek(0, os.SEEK_END)
    while place:
        start = max(0, place - step)
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            place = start + found + 1
            break
        place = start
    if place < size:
        os.ftruncate(file.fileno(), place)
    return place


def _changed_line(line: bytes, changed: Callable[[Record], Record]) -> bytes:
    try:
        row = json.loads(line)
    except ValueError:
        return line
    new = changed(row) if isinstance(row, dict) else row
    return line if new is row else json.dumps(_finite(new), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    """NaN and infinity as null, which JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


@cache
def versions() -> str:
    """The versions that can change a result, on one line."""
    names = ["pulse-exp", "torch", "pytorch-lightning", "numpy"]
    found = [f"python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


@cache
def git_commit() -> str | None:
    """The commit of the code that runs, with `+` where tracked files differ; None outside git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
