"""Stages that work strip by strip, side by side in threads, each as far as its input has come."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import NamedTuple

import torch

WORKERS = 2
"""Threads with a share each of PyTorch's: short operations lose much when they are cut up."""


class Progress:
    """How many rows of an array are written."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows


class Need(NamedTuple):
    """What a stage waits for: so many rows of an array."""

    of: Progress
    rows: int

    @property
    def met(self) -> bool:
        return self.of.rows >= self.rows


Stage = Iterator[Need]
"""Yields what its next strip needs, and computes it when resumed."""


class Pipeline:
    """Runs stages until all are through. The last that can go on goes first, for its input is the
    one that is still in the cache."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.needs = [next(stage, None) for stage in stages]
        self.running: set[int] = set()
        self.changed = threading.Condition()
        self.stopped = False

    def run(self) -> None:
        threads = torch.get_num_threads()
        if threads < WORKERS:
            self.work(False)
            return
        workers = pool(threads // WORKERS, threads, os.getpid())
        inference = torch.is_inference_mode_enabled()
        futures = [workers.submit(self.work, inference) for _ in range(WORKERS)]
        try:
            for future in futures:
                future.result()
        finally:  # also where the user interrupts: nobody may write any more
            self.stop()
            wait(futures)

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def work(self, inference: bool) -> None:
        with torch.inference_mode(inference or torch.is_inference_mode_enabled()), torch.no_grad():
            while (number := self.next()) is not None:
                try:
                    need = next(self.stages[number], None)
                except BaseException:
                    self.stop()
                    raise
                with self.changed:
                    self.needs[number] = need
                    self.running.remove(number)
                    self.changed.notify_all()

    def next(self) -> int | None:
        """A stage that can go on, now running; None when none ever will."""
        with self.changed:
            while not self.stopped:
                waiting = [n for n, need in enumerate(self.needs) if need and n not in self.running]
                for number in reversed(waiting):
                    need = self.needs[number]
                    if need and need.met:
                        self.running.add(number)
                        return number
                if not waiting and not self.running:
                    return None
                self.changed.wait()
            return None


@cache
def pool(share: int, threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that use `share` of PyTorch's `threads` each; of this process, as a fork has none."""
    ready = threading.Barrier(WORKERS + 1)

    def begin() -> None:
        torch.get_num_threads()  # a new thread's first question would undo what was set before it
        torch.set_num_threads(share)
        ready.wait()

    workers = ThreadPoolExecutor(WORKERS, "strips", begin)
    for _ in range(WORKERS):
        workers.submit(lambda: None)
    ready.wait()
    torch.set_num_threads(threads)  # of threads to come; each has its own number
    return workers
