"""Inputs that are more than reduced, blurred or saved as JPEG, with the default method."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pulse_exp.measure import run as measure
from pulse_exp.pipeline import run
from tests.compose import job

TOY = ["generator=toy", "downscaler.factor=2", "logger=none", "search.steps=10"]
GENERATED = ["data=generated", "data.count=2", "metrics=[psnr,lr_psnr]"]
BLUR = ["degradation=gaussian_blur", "degradation.gaussian_blur.sigma=2.0"]
JPEG = ["degradation=jpeg"]
DAMAGES = {"lr_blur": BLUR, "lr_jpeg": JPEG}
"""By what the records say of them."""


def restored(folder: Path, *overrides: str) -> list[dict]:
    config, words = job(*TOY, "latent.statistics_draws=2000", *overrides)
    assert run(config, words, folder) == 0
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    return rows_of(folder)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_a_search_that_allows_for_the_blur_restores_what_it_took(tmp_path: Path, capsys):
    rows = restored(tmp_path / "estimated", *GENERATED, *BLUR)
    assert [row["lr_blur"] for row in rows] == pytest.approx([1.0, 1.0], abs=0.1)
    assert "took it into account" in capsys.readouterr().out.replace("\n", " ")
    ignoring = restored(tmp_path / "ignored", *GENERATED, *BLUR, "search.blur=ignored")
    assert "search.blur=estimated" in capsys.readouterr().out.replace("\n", " ")
    assert [row["lr_blur"] for row in ignoring] == [row["lr_blur"] for row in rows]
    for row, hazy in zip(rows, ignoring, strict=True):
        assert row["psnr"] > hazy["psnr"] + 1


def test_a_refined_image_is_consistent_through_the_blur(tmp_path: Path):
    words = [*GENERATED, *BLUR, "search.steps=20"]  # after ten, one is still far from its input
    for row in restored(tmp_path, *words):
        assert row["lr_mse_refined"] < 1.5e-4
        assert row["lr_mse_refined"] < 0.05 * row["lr_mse"]


def test_a_search_that_allows_for_compression_restores_more(tmp_path: Path, capsys):
    words = [*GENERATED, *JPEG, "search.steps=20"]  # after ten, one is still far from its input
    rows = restored(tmp_path / "estimated", *words)
    assert [row["lr_jpeg"] for row in rows] == [30, 30]
    told = capsys.readouterr().out.replace("\n", " ")
    assert "JPEG generated00000, generated00001: 2 of 2 inputs, of quality 30" in told
    assert "took it into account" in told
    ignoring = restored(tmp_path / "ignored", *words, "search.compression=ignored")
    assert "search.compression=estimated" in capsys.readouterr().out.replace("\n", " ")
    assert [row["lr_jpeg"] for row in ignoring] == [30, 30]
    for row, blocky in zip(rows, ignoring, strict=True):
        assert row["psnr"] > blocky["psnr"] + 1
        assert row["lr_mse_refined"] < row["lr_mse"]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_errors_measured_later_are_of_what_the_search_assumed(damage, tmp_path: Path):
    at_once = restored(tmp_path, *GENERATED, *damage)
    config, words = job("task=measure", f"results={tmp_path}", "metrics=[lr_psnr]")
    assert measure(config, words, tmp_path / "unused") == 0
    for row, before in zip(rows_of(tmp_path), at_once, strict=True):
        assert row["lr_psnr"] == pytest.approx(before["lr_psnr"], abs=1)


@pytest.mark.parametrize("told", DAMAGES)
def test_damaged_and_other_inputs_in_one_batch_are_as_alone(told, tmp_path: Path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for name, degradation in {"damaged": DAMAGES[told], "other": []}.items():
        config, words = job(*TOY, *GENERATED, "method=nearest", *degradation)
        assert run(config, words, tmp_path / name) == 0
        (tmp_path / name / "lr" / "generated00000.png").rename(inputs / f"{name}.png")
    low_res = ("data=low_res", f"data.root={inputs}", "metrics=[]")
    together, alone = (
        restored(tmp_path / f"batch-{size}", f"search.batch_size={size}", *low_res)
        for size in (2, 1)
    )
    assert [row[told] > 0 for row in together] == [True, False]
    for row, single in zip(together, alone, strict=True):
        assert row["image"] == single["image"]
        # a batch rounds otherwise, and a search spreads that
        assert row["lr_mse"] == pytest.approx(single["lr_mse"], rel=5e-3)
