"""Sweeps through the command line: skipped, shared, failing, killed at random, and their end."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pulse_exp.cells import Cell, ending, read_status
from pulse_exp.errors import BusyError, OutputError
from pulse_exp.records import RecordFile
from pulse_exp.sweeps import duration
from tests.compose import CONF, SMALL, job

RUN = CONF.parent / "run.py"
TINY = [
    *("generator=toy", "generator.resolution=16", "downscaler.factor=4", "logger=none"),
    *("metrics=[psnr]", "data=generated", "search.steps=4", "search.batch_size=1"),
]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.test_sweeps", "pulse_exp.pipeline", "hydra"])


class Command:
    """The command line in a process of its own, forked from one that has imported torch."""

    def __init__(self, *arguments: str) -> None:
        self.output = Path(tempfile.mkdtemp()) / "output"
        self.process = FORK.Process(
            target=_command, args=(arguments, str(self.output), dict(os.environ))
        )
        self.process.start()

    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self, timeout: float = 300) -> tuple[int | None, str]:
        """Exit status and what was printed."""
        self.process.join(timeout)
        return self.process.exitcode, self.output.read_text()


def _command(arguments: Sequence[str], output: str, environment: dict[str, str]) -> None:
    import torch

    from pulse_exp.command import main

    torch.set_num_threads(1)
    os.environ.update(environment)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = [str(RUN), *arguments]
    os.chdir(RUN.parent)
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as a script would end: nothing of this test's own is waited for


def run(*arguments: str) -> tuple[int | None, str]:
    return Command(*arguments).end()


def table(folder: Path) -> str:
    """What the table's command prints, without the columns that measure time."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pulse_exp.tables", str(folder), "--rows", "seed"),
            *("--metrics", "lr_mse,psnr,solved", "--format", "csv"),
        ],
        cwd=RUN.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def results(folder: Path) -> list[dict[str, Any]]:
    """All records below a folder, without time, memory and commit; none may be there twice."""
    rows = []
    for path in sorted(folder.rglob("records.jsonl")):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    keys = [(row["config_hash"], row["image"], row["restart"]) for row in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        del row["seconds"], row["peak_memory"], row["git_commit"]
    return sorted(rows, key=lambda row: (row["config_hash"], row["image"], row["restart"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed sweep of three cells."""
    folder = tmp_path_factory.mktemp("whole")
    code, printed = run("-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={folder}")
    assert code == 0, printed
    assert "3 of 3 cells done, 0 failed, 0 left" in printed
    return folder


def test_finished_cells_are_skipped_without_torch(whole: Path):
    before = results(whole)
    code = "import sys; from pulse_exp.command import main; code = main(); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    arguments = ["-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={whole}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=RUN.parent
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("All searches are done already") == 3
    assert "3 of 3 cells done" in done.stderr
    assert results(whole) == before


def test_the_end_lists_every_failure_and_the_status_tells(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    code, printed = run(
        "-m", *TINY, "data=folder", f"data.root={tmp_path / 'in'}", "downscaler.factor=3,4",
        f"hydra.sweep.dir={tmp_path / 'out'}",
    )  # fmt: skip
    end = printed[printed.rindex("0 of 2 cells done, 2 failed, 0 left") :]
    assert "downscaler.factor=3 does not divide" in end
    assert "broken, restart 0:" in end
    assert code == 2


def test_cells_run_in_processes_of_joblib(whole: Path, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="extra joblib")
    code, printed = run(
        "-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={tmp_path}", "hydra/launcher=processes"
    )
    assert code == 0, printed
    assert "3 of 3 cells done, 0 failed, 0 left" in printed
    assert results(tmp_path) == results(whole)


def test_processes_of_joblib_end_with_a_killed_sweep(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="extra joblib")
    command = Command(
        *("-m", *TINY, "search.steps=1000000", "seed=1,2", f"hydra.sweep.dir={tmp_path}"),
        "hydra/launcher=processes",
    )
    while states(tmp_path) != ["running", "running"]:
        assert command.alive(), command.end()
        time.sleep(0.05)
    command.kill()
    for lock in tmp_path.glob("*/.status.lock"):
        with FileLock(lock, timeout=60):  # who holds it for longer goes on
            pass


def states(folder: Path) -> list[str]:
    """What the cells of a sweep are doing."""
    return [read_status(path)["state"] for path in folder.glob("*/status.json")]


def test_cells_run_as_tasks_of_a_ray_started_here(whole: Path, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="extra ray")
    code, printed = run(
        *("-m", *TINY, "seed=1,2,3", f"hydra.sweep.dir={tmp_path}"),
        *("hydra/launcher=ray_tasks", "hydra.launcher.ray.init.num_cpus=2"),
    )
    assert code == 0, printed
    assert "3 of 3 cells done, 0 failed, 0 left" in printed
    assert results(tmp_path) == results(whole)


def test_a_killed_sweep_ends_like_an_undisturbed_one(whole: Path, tmp_path: Path):
    """Killed at random moments again and again; `tests/stress.py` does so for longer."""
    kills = disturbed(tmp_path, seeds=(1, 2, 3), moments=random.Random(0), most=4)
    assert kills
    assert results(tmp_path) == results(whole)
    assert table(tmp_path) == table(whole)


def disturbed(folder: Path, seeds: Sequence[int], moments: random.Random, most: int) -> int:
    """Runs the sweep, killing it at random moments up to `most` times; returns how often."""
    arguments = ["-m", *TINY, f"seed={','.join(map(str, seeds))}", f"hydra.sweep.dir={folder}"]
    arguments += ["trainer.checkpoint_seconds=0.001"]
    kills = 0
    while True:
        command = Command(*arguments)
        if kills < most and killed_while_working(command, folder, moments):
            kills += 1
            continue
        code, printed = command.end()
        assert code == 0, printed
        return kills


def killed_while_working(command: Command, folder: Path, moments: random.Random) -> bool:
    """Waits until something new is written, then a random moment, then kills. False: it ended."""
    before = newest(folder)
    while command.alive() and newest(folder) == before:
        time.sleep(0.005)
    time.sleep(moments.random() * 0.5)
    if not command.alive():
        return False
    command.kill()
    return True


def newest(folder: Path) -> int:
    """Changes whenever a search has begun or ended."""
    paths = [*folder.glob("*/records.jsonl"), *folder.glob("*/*.ckpt"), *folder.glob("*/status*")]
    return max((path.stat().st_mtime_ns for path in paths if path.exists()), default=0)


def test_shards_meet_in_one_folder(tmp_path: Path):
    data = [*TINY, "data.count=5"]
    shared = f"hydra.run.dir={tmp_path / 'shards'}"
    commands = [Command(*data, f"data.shard={i}/3", shared) for i in range(3)]
    code, printed = run(*data, f"hydra.run.dir={tmp_path / 'whole'}")
    assert code == 0, printed
    for command in commands:
        code, printed = command.end()
        assert code == 0, printed
    assert results(tmp_path / "shards") == results(tmp_path / "whole")
    assert table(tmp_path / "shards") == table(tmp_path / "whole")


# --- one cell ---------------------------------------------------------------------------------


def cell(folder: Path, *overrides: str, sweep: str = "") -> Cell:
    return Cell(folder, job(*SMALL, "data=generated", *overrides)[0], sweep)


def test_a_cell_is_finished_when_exactly_this_job_ended_well(tmp_path: Path):
    done = cell(tmp_path)
    assert not done.is_finished()
    with done.claimed():
        done.began()
        assert not cell(tmp_path).is_finished()
        (tmp_path / "records.jsonl").write_text('{"a": 1}\n')
        done.ended(ending(0, "", time.time()))
    assert cell(tmp_path).is_finished()
    assert cell(tmp_path, "logger=csv", "trainer=cpu").is_finished()
    assert not cell(tmp_path, "data.count=9").is_finished()
    assert not cell(tmp_path, "search.restarts=2").is_finished()
    assert not cell(tmp_path, "metrics=[psnr]").is_finished()
    assert not cell(tmp_path, "trainer.precision=bf16").is_finished()
    (tmp_path / "records.jsonl").write_text("")
    assert not cell(tmp_path).is_finished(), "its records are gone"
    done.path.write_text("{half")
    assert not cell(tmp_path).is_finished()


def test_a_new_picture_makes_a_finished_folder_unfinished(tmp_path: Path):
    (tmp_path / "in").mkdir()
    folder = [f"data.root={tmp_path / 'in'}", "data=folder"]
    done = cell(tmp_path / "out", *folder)
    with done.claimed():
        done.ended(ending(0, "", time.time()))
    assert cell(tmp_path / "out", *folder).is_finished()
    (tmp_path / "in" / "new.png").write_bytes(b"")
    assert not cell(tmp_path / "out", *folder).is_finished()


def test_the_second_process_in_a_folder_is_refused_with_folder_and_process(tmp_path: Path):
    first, second = cell(tmp_path), cell(tmp_path, sweep="s")
    with first.claimed():
        first.began()
        with pytest.raises(BusyError, match=rf"process {os.getpid()} on .* {tmp_path}"):
            second.claimed().__enter__()
        with cell(tmp_path, "data.shard=1/2").claimed():
            pass  # another shard works beside it
        assert read_status(first.path)["state"] == "running"
        assert read_status(second.refused_path)["sweep"] == "s"
    with second.claimed():
        second.began()
    assert not second.refused_path.exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        cell(tmp_path / "file" / "below").claimed().__enter__()


def test_a_process_holds_its_claim_until_it_is_killed(tmp_path: Path):
    slow = [*TINY, "search.steps=3000", f"hydra.run.dir={tmp_path}"]
    first = Command(*slow)
    while read_status(tmp_path / "status.json").get("state") != "running":
        time.sleep(0.02)
        assert first.alive()
    code, printed = run(*slow)
    assert code == 1
    assert f"process {first.process.pid} on" in printed
    assert str(tmp_path) in printed
    first.kill()
    FileLock(tmp_path / ".status.lock").acquire(timeout=5)


# --- records under two writers and a full disk ------------------------------------------------


def row(image: str, status: str = "solved", **more: Any) -> dict[str, Any]:
    return {
        "image": image,
        "restart": 0,
        "config_hash": "c",
        "status": status,
        "reason": "",
        **more,
    }


def test_a_row_that_another_process_has_written_is_not_written_again(tmp_path: Path):
    ours, theirs = RecordFile(tmp_path / "r.jsonl"), RecordFile(tmp_path / "r.jsonl")
    ours.append_new([row("a")])
    theirs.append_new([row("a"), row("b")])
    ours.append_new([row("b"), row("c")])
    assert [r["image"] for r in ours] == ["a", "b", "c"]


def test_a_failure_is_written_once_and_followed_by_a_success(tmp_path: Path):
    file = RecordFile(tmp_path / "r.jsonl")
    for _ in range(2):
        file.append_new([row("a", "failed", reason="x")])
    file.append_new([row("a", "failed", reason="y")])
    for _ in range(2):
        file.append_new([row("a")])
    file.append_new([row("a", "failed", reason="z")])
    assert [(r["status"], r["reason"]) for r in file] == [
        ("failed", "x"), ("failed", "y"), ("solved", "")
    ]  # fmt: skip


def test_rows_are_known_after_the_file_was_replaced(tmp_path: Path):
    file = RecordFile(tmp_path / "r.jsonl")
    file.append_new([row("a")])
    file.change(lambda old: {**old, "image": "longer-than-before"})
    file.append_new([row("longer-than-before"), row("a")])
    assert [r["image"] for r in file] == ["longer-than-before", "a"]


def test_a_disk_that_fills_up_keeps_whole_rows_only(tmp_path: Path):
    """A limit on the file's size cuts a write in the middle, as a full disk does."""
    code = f"""
import resource
from pathlib import Path
from pulse_exp.errors import OutputError
from pulse_exp.records import RecordFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = RecordFile(Path({str(tmp_path)!r}) / "r.jsonl")
for number in range(99):
    try:
        file.append([{{"image": number, "pad": "x" * 70}}])
    except OutputError as error:
        print(number, error)
        break
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=RUN.parent, check=True
    )
    written = RecordFile(tmp_path / "r.jsonl").read()
    number, _, said = done.stdout.partition(" ")
    assert [r["image"] for r in written] == list(range(int(number)))
    assert 5 < len(written) < 15
    assert "make room" in said
    assert (tmp_path / "r.jsonl").read_bytes().endswith(b"\n")


def test_durations_are_said_as_people_would():
    assert duration(80) == "about 80 s"
    assert duration(600) == "about 10 min"
    assert duration(7300) == "about 2 h"
    assert duration(400000) == "about 5 d"
