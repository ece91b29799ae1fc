import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.images import read_image
from pulse_exp.operators.downscalers import Bicubic
from pulse_exp.pipeline import run
from tests.compose import SMALL, job

REQUIRED = {
    *("image", "restart", "seed", "status", "method", "lr_mse", "psnr", "lr_psnr", "steps"),
    *("seconds", "generator", "latent", "prior", "downscaler", "degradation", "loss"),
    *("optimizer", "factor", "eps", "config_hash", "git_commit", "versions"),
}


def restore(folder: Path, *overrides: str) -> tuple[int, list[dict]]:
    config, words = job(*SMALL, "metrics=[psnr,lr_psnr]", "data=generated", *overrides)
    code = run(config, words, folder)
    lines = (folder / "records.jsonl").read_text().splitlines()
    return code, [json.loads(line) for line in lines]


def test_a_run_leaves_records_pictures_curves_and_a_panel(tmp_path: Path):
    code, rows = restore(tmp_path, "data.count=2", "search.restarts=2")
    assert code == 0
    assert [(r["image"], r["restart"]) for r in rows] == [
        (f"generated0000{i}", r) for i in range(2) for r in range(2)
    ]
    assert set(rows[0]) >= REQUIRED
    assert all(not isinstance(value, dict | list) for value in rows[0].values()), "rows are flat"
    assert [r["selected"] for r in rows].count(True) == 2
    assert rows[0]["lr_mse"] != rows[1]["lr_mse"], "restarts differ"
    for row in rows:
        sr = read_image(tmp_path / "sr" / f"{row['image']}-{row['restart']}.png")
        lr = read_image(tmp_path / "lr" / f"{row['image']}.png")
        error = (Bicubic(8)(sr[None])[0] - lr).square().mean()
        # Clamping to [0, 1] for the file can only bring it nearer to an image in that range.
        assert float(error) <= row["lr_mse"] * 1.02 + 2e-5
    curves = [json.loads(x) for x in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert curves[0]["step"] == [0, 1, 2, 3, 4, 5]
    assert min(curves[0]["lr_mse"]) == pytest.approx(rows[0]["lr_mse"], rel=1e-4)
    assert (tmp_path / "panel.png").is_file()
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_same_command_searches_nothing_twice_and_more_restarts_only_add(tmp_path: Path):
    restore(tmp_path, "data.count=1")
    before = (tmp_path / "records.jsonl").read_text()
    restore(tmp_path, "data.count=1")
    assert (tmp_path / "records.jsonl").read_text() == before
    _, rows = restore(tmp_path, "data.count=2", "search.restarts=2")
    assert (tmp_path / "records.jsonl").read_text().startswith(before)
    assert sorted((r["image"][-1], r["restart"]) for r in rows) == [
        ("0", 0), ("0", 1), ("1", 0), ("1", 1)
    ]  # fmt: skip


def test_same_seed_same_bytes_another_seed_another_result(tmp_path: Path):
    drop = ("seconds", "peak_memory")
    results = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        _, rows = restore(tmp_path / name, "data.count=1", "method=pulse", f"seed={seed}")
        results.append([{k: v for k, v in row.items() if k not in drop} for row in rows])
    assert results[0] == results[1]
    assert results[0][0]["lr_mse"] != results[2][0]["lr_mse"]
    first = (tmp_path / "a/sr/generated00000-0.png").read_bytes()
    assert first == (tmp_path / "b/sr/generated00000-0.png").read_bytes()


def test_a_folder_of_another_configuration_is_refused(tmp_path: Path):
    restore(tmp_path, "data.count=1")
    with pytest.raises(UserError, match="another configuration"):
        restore(tmp_path, "data.count=1", "search.steps=6")


def test_one_bad_image_never_stops_the_others(tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (64, 64), "tan").save(photos / "good.png")
    (photos / "bad.png").write_bytes(b"no image")
    wanted = ["data=folder", f"data.root={photos}"]
    code, rows = restore(tmp_path / "out", *wanted)
    assert code == 1
    status = {row["image"]: row["status"] for row in rows}
    assert status["bad"] == "failed"
    assert status["good"] in ("solved", "unsolved")
    assert "bad.png" in next(row["reason"] for row in rows if row["image"] == "bad")
    code, again = restore(tmp_path / "out", *wanted)
    assert code == 1
    assert len(again) == len(rows), "the same failure is written once"
    Image.new("RGB", (64, 64), "gold").save(photos / "bad.png")
    code, mended = restore(tmp_path / "out", *wanted)
    assert code == 0
    assert len(mended) == len(rows) + 1


def test_real_low_res_images_of_several_sizes(tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for side in (4, 8, 5):
        Image.new("RGB", (side, side), "tan").save(photos / f"{side}.png")
    code, rows = restore(tmp_path / "out", "data=low_res", f"data.root={photos}")
    by_image = {row["image"]: row for row in rows}
    assert code == 1
    assert by_image["5"]["status"] == "failed"
    assert (by_image["4"]["factor"], by_image["8"]["factor"]) == (16, 8)
    assert by_image["8"]["psnr"] is None
    assert by_image["8"]["lr_psnr"] is not None
    assert not (tmp_path / "out" / "hr").exists()


def test_a_search_that_is_not_finite_fails_with_its_step(tmp_path: Path):
    wild = ["optimizer.learning_rate=nan", "prior=none", "data.count=1", "search.steps=20"]
    code, rows = restore(tmp_path, *wild)
    assert code == 1
    assert rows[0]["status"] == "failed"
    assert "not finite at step" in rows[0]["reason"]


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config, words = job(*SMALL, "data=generated", "dry_run=true")
    assert run(config, words, tmp_path) == 0
    assert not list(tmp_path.iterdir())
    assert "dual_ascent" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="trainer=gpu"):
        restore(tmp_path, "trainer=gpu")


@pytest.mark.parametrize("logger", ["csv", "tensorboard", "wandb"])
def test_loggers_leave_curves(tmp_path: Path, logger: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, _ = restore(
        tmp_path, "data.count=1", f"logger={logger}", "logger.every_steps=1",
        "logger.images_every_steps=2",
    )  # fmt: skip
    assert code == 0
    if logger == "csv":
        text = (tmp_path / "csv" / "metrics.csv").read_text()
        assert "search/lr_mse" in text
    elif logger == "wandb":
        assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    else:
        assert list(tmp_path.glob("tensorboard/*tfevents*"))
