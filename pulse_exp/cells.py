"""A cell of a sweep: one job in its folder, which process is at it, and what became of it.

Each cell has a `status.json` in its folder (one a shard, where shards share a folder), written
whole or not at all. From it the same command sees at once that a cell is finished, and a sweep,
wherever its cells run, sees how far it is. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from pulse_exp.config import config_hash
from pulse_exp.errors import BusyError, OutputError
from pulse_exp.records import RECORDS

Status = dict[str, Any]
"""state (running, interrupted, finished, failed), code, reason, pid, host, began, seconds, ..."""

WITHOUT_EFFECT = ("logger", "trainer", "debug", "dry_run", "optimize")
"""Keys of the configuration that change nothing in the results folder."""


def part_of(config: DictConfig) -> str:
    """What tells a shard's own files from those of the other shards: "-1of4"; empty for none."""
    shard = str(OmegaConf.select(config, "data.shard", default="0/1"))
    return "" if shard == "0/1" else "-" + shard.replace("/", "of")


class Cell:
    """One job in its results folder.

    Args:
        folder: the results folder.
        config: the composed job.
        sweep: id of the sweep that runs it; empty outside one.
    """

    def __init__(self, folder: Path, config: DictConfig, sweep: str) -> None:
        self.folder, self.sweep = folder, sweep
        self.path = folder / f"status{part_of(config)}.json"
        self.refused_path = folder / f"status{part_of(config)}-refused.json"
        self.lock = FileLock(folder / f".{self.path.stem}.lock")
        self.job, self.config_hash = job_hash(config), config_hash(config)

    def is_finished(self) -> bool:
        """Whether exactly this job ended well here, and its records are still there."""
        status = read_status(self.path)
        return (
            status.get("state") == "finished"
            and (status.get("job"), status.get("config_hash")) == (self.job, self.config_hash)
            and self.records_size() >= status["records_bytes"]
        )

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps other processes out for as long as it lasts; a killed process lets go by itself.

        Raises:
            BusyError: another process is at work here.
            OutputError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            other = read_status(self.path)
            reason = (
                f"process {other.get('pid', '?')} on {other.get('host', '?')} is at work in "
                f"{self.folder}; run the command again when it has ended, or choose another "
                "folder with hydra.run.dir=DIR"
            )
            with suppress(OSError):
                self._write(ending(1, reason, time.time()), self.refused_path)
            raise BusyError(reason) from None
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror})") from error
        try:
            yield
        finally:
            self.lock.release()

    def began(self) -> None:
        """Raises OutputError where the folder cannot be written."""
        try:
            self.refused_path.unlink(missing_ok=True)
            self._write({"state": "running", "began": time.time()}, self.path)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be written ({error.strerror})") from error

    def ended(self, status: Status) -> None:
        """Says what became of the cell; on a full disk it stays `running`, for which no one is."""
        with suppress(OSError):
            self._write({**status, "records_bytes": self.records_size()}, self.path)

    def records_size(self) -> int:
        try:
            return (self.folder / RECORDS).stat().st_size
        except OSError:
            return 0

    def _write(self, status: Status, path: Path) -> None:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "sweep": self.sweep}
        what = {"job": self.job, "config_hash": self.config_hash}
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_text(json.dumps({**status, **who, **what}, indent=1) + "\n")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def ending(code: int, reason: str, began: float, worked: bool = True) -> Status:
    """The status of a cell that has ended.

    Args:
        code: the exit status.
        reason: why it failed as a whole; empty where only some of its rows did.
        began: when, in seconds since the epoch.
        worked: False where everything was there already.
    """
    return {
        "state": "failed" if code else "finished",
        "code": code,
        "reason": reason,
        "began": began,
        "seconds": round(time.time() - began, 2),
        "worked": worked,
    }


def read_status(path: Path) -> Status:
    """A status file; empty where there is none or it is unreadable."""
    try:
        status = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def job_hash(config: DictConfig) -> str:
    """Of everything that decides what a finished folder holds, its input files included."""
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    relevant = {key: value for key, value in plain.items() if key not in WITHOUT_EFFECT}
    relevant["files"] = [list(_listing(folder)) for folder in _folders(relevant)]
    text = json.dumps(relevant, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _folders(node: Any) -> Iterator[Path]:
    """The existing folders that values called `root` name."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "root" and isinstance(value, str) and Path(value).expanduser().is_dir():
            yield Path(value).expanduser()
        else:
            yield from _folders(value)


def _listing(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every file of a folder, by name."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            facts = entry.stat()
            yield entry.name, facts.st_size, facts.st_mtime_ns
