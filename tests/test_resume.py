"""A search that was stopped goes on, whatever stopped it, and ends as if nothing had happened."""

import json
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from pulse_exp import pipeline
from pulse_exp.batch_sizes import remember, remembered
from pulse_exp.callbacks import Checkpoints
from pulse_exp.errors import UserError
from pulse_exp.evaluation import Evaluation
from pulse_exp.search import LatentSearch
from tests.compose import SMALL, job

TIMES = {"seconds", "peak_memory"}
OVERRIDES = [
    *("data=generated", "data.count=3", "search.restarts=2", "metrics=[psnr]"),
    *("generator.resolution=16", "downscaler.factor=4"),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path / "cache"))


composed = cache(job)


def search(folder: Path, *overrides: str) -> int:
    config, words = composed(*SMALL, *OVERRIDES, *overrides)
    return pipeline.run(config, words, folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records without what measures time and memory, in order; each row must be there once."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    found = [{k: v for k, v in json.loads(x).items() if k not in TIMES} for x in lines]
    keys = [(row["image"], row["restart"]) for row in found]
    assert len(keys) == len(set(keys))
    return sorted(found, key=lambda row: (row["image"], row["restart"]))


def near(row: dict[str, Any]) -> dict[str, Any]:
    return {k: pytest.approx(v, rel=1e-3) if isinstance(v, float) else v for k, v in row.items()}


class Killed(BaseException):
    pass


def save_always(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Every batch is saved; after so many the process is as good as killed."""
    original = Checkpoints.on_train_batch_end
    count = 0

    def counted(self: Checkpoints, trainer: pl.Trainer, module: Any, *rest: object) -> None:
        nonlocal count
        self.saved = -1e9
        original(self, trainer, module, *rest)
        count += 1
        if count == batches:
            raise Killed

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", counted)


def killed(folder: Path, *overrides: str, after: int) -> None:
    """A search that is killed after so many batches."""
    with pytest.MonkeyPatch.context() as patch:
        save_always(patch, after)
        with pytest.raises(Killed):
            search(folder, *overrides)


def searched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The (image, restart) of every search that comes to its end from now on."""
    ended: list[tuple[str, int]] = []
    original = LatentSearch.candidate

    def candidate(self: LatentSearch, row: Any, slot: Any) -> Any:
        ended.append((slot.image, slot.restart))
        return original(self, row, slot)

    monkeypatch.setattr(LatentSearch, "candidate", candidate)
    return ended


@pytest.mark.parametrize(
    ("noise", "batch_size"), [("fixed", 1), ("fixed", 3), ("resampled", 1), ("trainable", 1)]
)
def test_a_resumed_search_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str, batch_size: int
):
    choice = [f"noise={noise}", f"search.batch_size={batch_size}"]
    assert search(tmp_path / "whole", *choice) == 0
    for batches in (2, 24 // batch_size, 4):
        killed(tmp_path / "cut", *choice, after=batches)
    assert list((tmp_path / "cut").glob("*.ckpt"))
    ended = searched(monkeypatch)
    assert search(tmp_path / "cut", *choice) == 0
    assert len(ended) == len(set(ended)), "nothing is searched twice"
    # In a batch with other neighbours a row's sums may be rounded another way.
    exactly = batch_size == 1
    for cut, whole in zip(rows(tmp_path / "cut"), rows(tmp_path / "whole"), strict=True):
        assert cut == (whole if exactly else near(whole))
    assert not list((tmp_path / "cut").glob("*.ckpt"))


def test_a_checkpoint_holds_no_generator(tmp_path: Path):
    killed(tmp_path, after=2)
    (path,) = tmp_path.glob("*.ckpt")
    assert torch.load(path, weights_only=True)["state_dict"] == {}


def test_rows_that_were_recorded_after_the_checkpoint_are_not_searched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search(tmp_path / "whole", "search.batch_size=2")
    with monkeypatch.context() as patch:

        def last_write(self: Evaluation, *written: Any) -> None:
            original(self, *written)
            raise Killed

        original = Evaluation.write
        save_always(patch, 10**9)
        patch.setattr(Evaluation, "write", last_write)
        with pytest.raises(Killed):
            search(tmp_path / "cut", "search.batch_size=2")
    assert len(rows(tmp_path / "cut")) == 2
    ended = searched(monkeypatch)
    search(tmp_path / "cut", "search.batch_size=2")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert sorted(ended) == [(f"generated0000{i}", r) for i in (1, 2) for r in (0, 1)]


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "version", "foreign"])
def test_a_checkpoint_that_cannot_be_used_is_said_and_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
):
    search(tmp_path / "whole")
    killed(tmp_path / "cut", after=3)
    (path,) = (tmp_path / "cut").glob("*.ckpt")
    content = path.read_bytes()
    if damage == "version":
        checkpoint = torch.load(path, weights_only=True)
        torch.save({**checkpoint, "made_by": "0.0.1"}, path)
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        damaged = {"empty": b"", "cut": content[: len(content) // 2], "noise": b"noise" * 999}
        path.write_bytes(damaged[damage])
    capsys.readouterr()
    assert search(tmp_path / "cut") == 0
    assert "cannot be used" in capsys.readouterr().err
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_full_disk_under_a_checkpoint_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    save_always(monkeypatch, 10**9)
    assert search(tmp_path) == 0
    assert capsys.readouterr().err.count("No space left") == 1
    assert len(rows(tmp_path)) == 6


def test_a_polite_request_to_end_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def ask(self: Any, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.SearchCurves, "on_train_batch_end", ask)
        with pytest.raises(SystemExit):
            search(tmp_path / "cut")
    assert list((tmp_path / "cut").glob("*.ckpt"))
    search(tmp_path / "cut")
    search(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


# --- memory -----------------------------------------------------------------------------------


# Corrected starts are rounded another way beside others.
UNCORRECTED = "latent.corrections=0"


def small_device(monkeypatch: pytest.MonkeyPatch, rows_that_fit: int) -> list[int]:
    """A device that holds so many rows with gradients; returns the list of sizes tried."""
    tried: list[int] = []
    original = torch.autograd.grad

    def grad(*arguments: Any, **options: Any) -> Any:
        batch = len(arguments[1][0])
        tried.append(batch)
        if batch > rows_that_fit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory (a test's)")
        return original(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    search(tmp_path / "whole", UNCORRECTED, "search.batch_size=1")
    with monkeypatch.context() as patch:
        tried = small_device(patch, 1)
        assert search(tmp_path / "tight", UNCORRECTED) == 0
    assert tried[:3] == [6, 3, 1]
    assert "1 at a time" in capsys.readouterr().err
    assert rows(tmp_path / "tight") == rows(tmp_path / "whole")
    with monkeypatch.context() as patch:
        tried = small_device(patch, 1)
        assert search(tmp_path / "again") == 0
    assert set(tried) == {1}, "the size that fits is remembered"


def test_rows_set_aside_by_a_full_memory_survive_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search(tmp_path / "whole", UNCORRECTED, "search.batch_size=2")
    small_device(monkeypatch, 2)
    killed(tmp_path / "tight", UNCORRECTED, "search.batch_size=4", after=8)
    assert search(tmp_path / "tight", UNCORRECTED, "search.batch_size=4") == 0
    assert rows(tmp_path / "tight") == rows(tmp_path / "whole")


def test_the_first_points_of_many_draws_may_not_fit_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    choice = ["latent.start=random", "latent.draws=2", UNCORRECTED]
    search(tmp_path / "whole", *choice, "search.batch_size=1")
    with monkeypatch.context() as patch:
        original = pipeline.build_objective

        def tight(*arguments: Any) -> Any:
            objective = original(*arguments)
            image = objective.image

            def of_few(rows: Any, variables: Any, *ws: Any) -> Any:
                if len(next(iter(variables.values()))) > 2:
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory (a test's)")
                return image(rows, variables, *ws)

            objective.image = of_few
            return objective

        patch.setattr(pipeline, "build_objective", tight)
        assert search(tmp_path / "tight", *choice) == 0
    assert rows(tmp_path / "tight") == rows(tmp_path / "whole")


def test_a_search_that_does_not_fit_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small_device(monkeypatch, 0)
    with pytest.raises(UserError, match="does not hold one search"):
        search(tmp_path)


def test_a_damaged_memory_of_batch_sizes_is_ignored(tmp_path: Path):
    assert remembered("toy") is None
    remember("toy", 3)
    remember("other", 5)
    assert remembered("toy") == 3
    (tmp_path / "cache" / "batch_sizes.json").write_text('{"toy": ')
    assert remembered("toy") is None


def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    most = {"problems": 0, "candidates": 0, "slots": 0}
    original = LatentSearch.training_step

    def step(self: LatentSearch, *arguments: Any) -> None:
        original(self, *arguments)
        most["slots"] = max(most["slots"], len(self.slots))

    original_add = Evaluation.add

    def add(self: Evaluation, candidate: Any) -> None:
        original_add(self, candidate)
        most["problems"] = max(most["problems"], len(self.problems.open))
        most["candidates"] = max(most["candidates"], sum(map(len, self.candidates.values())))
        assert len(self.expected) <= len(self.problems.open)

    monkeypatch.setattr(LatentSearch, "training_step", step)
    monkeypatch.setattr(Evaluation, "add", add)
    few = ["generator.resolution=8", "downscaler.factor=2", "search.steps=1", "metrics=[]"]
    assert search(tmp_path, *few, "data.count=80", "search.batch_size=5") == 0
    assert len(rows(tmp_path)) == 160
    assert most["slots"] == 5
    assert most["problems"] <= 5
    assert most["candidates"] <= 5
