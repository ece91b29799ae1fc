"""The results of a run as files: one JSON object a line, appended whole or not at all."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from pulse_exp.errors import OutputError
from pulse_exp.problem import Record

RECORDS = "records.jsonl"
CURVES = "curves.jsonl"


class RecordFile:
    """An append-only file of JSON lines that survives kills and shared use.

    A line that a kill cut short is dropped when the file is next opened for writing; a reader
    ignores it until then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = FileLock(f"{path}.lock")

    def read(self) -> list[Record]:
        """Every whole line."""
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line]

    def append(self, rows: Iterable[Record]) -> None:
        """Adds the rows with one write, forced to the disk before it returns.

        Raises:
            OutputError: the disk is full or the file cannot be written; no part of the rows stays.
        """
        text = "".join(json.dumps(_finite(row), allow_nan=False) + "\n" for row in rows).encode()
        if not text:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.lock, self.path.open("ab") as file:
                self._drop_half_line(file.fileno())
                before = file.seek(0, os.SEEK_END)
                try:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), before)
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

    def _drop_half_line(self, descriptor: int) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.ftruncate(descriptor, content.rfind(b"\n") + 1)


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
