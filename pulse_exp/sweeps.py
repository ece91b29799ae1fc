"""A sweep as a whole: how far it is, and what failed. Cells may run in any process, anywhere."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pulse_exp.cells import Status, read_status
from pulse_exp.naming import register_resolvers
from pulse_exp.records import RECORDS, RecordFile, row_key

launched: SweepProgress | None = None
"""The sweep that this process has launched."""

current = ""
"""The id of the sweep that the job in this process belongs to; empty outside one."""


class SweepProgress(Callback):
    """Hydra's callback for every job: prints how a sweep goes on, and keeps its id.

    It travels to every worker with the job, so that a cell's status file can name its sweep. The
    process that launched the sweep looks at the cells' status files every `seconds`.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.id = ""
        self.launcher = 0  # the process that launched the sweep
        self.folder = Path()
        self.cells: int | None = None
        self.began = 0.0
        self.said = ""
        self.known: dict[Path, tuple[int, Status]] = {}
        self.over: threading.Event | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "known": {}, "over": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        register_resolvers()  # a worker composes its job anew

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        global launched
        if config.dry_run:
            return
        launched = self
        self.began = time.time()
        self.launcher = os.getpid()
        self.id = f"{socket.gethostname()}-{self.launcher}-{self.began:.3f}"
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)  # a sweeper may keep files of its own there
        self.cells = count_cells(config)
        self.over = threading.Event()
        threading.Thread(target=self._watch, args=(self.over,), daemon=True).start()

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        global current
        if current != self.id and os.getppid() == self.launcher:  # a process that joblib keeps
            threading.Thread(target=end_with_parent, args=(self.launcher,), daemon=True).start()
        current = self.id

    def statuses(self) -> dict[Path, Status]:
        """What the cells of this sweep say, by their status file."""
        for path in self.folder.glob("*/status*.json"):
            try:
                changed = path.stat().st_mtime_ns
            except OSError:
                continue
            if path not in self.known or self.known[path][0] != changed:
                self.known[path] = (changed, read_status(path))
        return {p: s for p, (_, s) in sorted(self.known.items()) if s.get("sweep") == self.id}

    def line(self) -> str:
        """Cells done, left and failed, and the time left."""
        statuses = list(self.statuses().values())
        count = Counter(status["state"] for status in statuses)
        done, failed = count["finished"], count["failed"]
        if self.cells is None:
            return f"sweep: {done} cells done, {failed} failed"
        left = self.cells - done - failed
        line = f"sweep: {done} of {self.cells} cells done, {failed} failed, {left} left"
        worked = sum(bool(status.get("worked")) for status in statuses)
        if worked and left:
            line += f", {duration((time.time() - self.began) / worked * left)} to go"
        return line

    def finish(self, stopped: bool) -> int:
        """Prints the end of the sweep: totals, and every failure with its reason.

        Args:
            stopped: Hydra stopped it, for a mistake in the command if no cell began.

        Returns:
            The exit status: 0 all rows searched, 1 some failed, 2 a cell's configuration is wrong.
        """
        assert self.over is not None
        self.over.set()
        statuses = self.statuses()
        if stopped and not statuses:
            return 2
        ended = {p: s for p, s in statuses.items() if s["state"] in ("finished", "failed")}
        lost = (len(ended) if self.cells is None else self.cells) - len(ended)
        print(self.line(), file=sys.stderr)
        codes = [0]
        for path, status in ended.items():
            if status["code"]:
                codes.append(status["code"])
                for reason in reasons(path, status):
                    print(f"failed  {path.parent.name}: {reason}", file=sys.stderr)
        if lost > 0:
            codes.append(1)
            print(f"{lost} cells did not end; the same command goes on from here", file=sys.stderr)
        return max(codes)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(self.seconds):
            line = self.line()
            without_time = line.partition(", about")[0]
            if without_time != self.said:
                self.said = without_time
                print(line, file=sys.stderr, flush=True)


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent is gone, killed say: nobody waits for its jobs any more.

    Without it joblib's processes go through all the jobs that they were given, and the same command
    run again is refused where they are at work.
    """
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)  # as if killed too, which may happen to a cell at any moment


def reasons(path: Path, status: Status) -> Iterator[str]:
    """Why a cell failed: as a whole, or each of its failed searches."""
    if status["reason"]:
        yield status["reason"]
        return
    rows = {}
    for row in RecordFile(path.parent / RECORDS):
        if row["config_hash"] == status["config_hash"]:
            rows[row_key(row)] = row
    failed = [row for row in rows.values() if row["status"] == "failed"]
    for row in failed:
        yield f"{row['image']}, restart {row['restart']}: {row['reason']}"
    if not failed:
        yield f"exit status {status['code']}"


def count_cells(config: DictConfig) -> int | None:
    """How many jobs the sweeper will launch; None where it does not say."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sweeper = config.hydra.sweeper
    if "n_trials" in sweeper:
        return int(sweeper.n_trials)
    if not sweeper._target_.endswith(BasicSweeper.__name__):
        return None
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    words = [f"{key}={value}" for key, value in (sweeper.params or {}).items()]
    overrides = parser.parse_overrides([*words, *config.hydra.overrides.task])
    return len(BasicSweeper.split_arguments(overrides, None)[0])


def duration(seconds: float) -> str:
    """About how long, in the unit people would use."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {seconds:.0f} s"
