import json
import multiprocessing
import os
from pathlib import Path

import pytest

from pulse_exp.errors import OutputError
from pulse_exp.records import RecordFile, git_commit, versions


def test_rows_come_back_and_nan_is_null(tmp_path: Path):
    file = RecordFile(tmp_path / "deep" / "records.jsonl")
    assert file.read() == []
    file.append([{"image": "a", "psnr": float("nan"), "list": [1.0, float("inf")]}])
    file.append([])
    assert file.read() == [{"image": "a", "psnr": None, "list": [1.0, None]}]


def test_a_line_cut_by_a_kill_is_ignored_then_dropped(tmp_path: Path):
    file = RecordFile(tmp_path / "records.jsonl")
    file.append([{"n": 1}])
    with file.path.open("a") as raw:
        raw.write('{"n": 2, "half')
    assert file.read() == [{"n": 1}]
    file.append([{"n": 3}])
    assert [json.loads(line) for line in file.path.read_text().splitlines()] == [{"n": 1}, {"n": 3}]


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = RecordFile(tmp_path / "records.jsonl")
    file.append([{"n": 1}])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        file.append([{"n": 2}])
    assert file.read() == [{"n": 1}]


def _append(path: Path, worker: int) -> None:
    file = RecordFile(path)
    for number in range(20):
        file.append([{"worker": worker, "number": number}])


def test_processes_sharing_a_file_lose_and_double_nothing(tmp_path: Path):
    path = tmp_path / "records.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(path, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = {(row["worker"], row["number"]) for row in RecordFile(path).read()}
    assert len(rows) == len(path.read_text().splitlines()) == 60


def test_provenance():
    assert "torch" in versions()
    assert "python" in versions()
    commit = git_commit()
    assert commit is None or len(commit.rstrip("+")) == 12
