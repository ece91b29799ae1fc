import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_exp.baselines import Enlarge, Precomputed, baseline_candidate
from pulse_exp.complaints import complaints
from pulse_exp.errors import UserError
from pulse_exp.images import write_image
from pulse_exp.operators.downscalers import Area, Bicubic
from pulse_exp.operators.measurements import GaussianMeasurements
from pulse_exp.pipeline import run
from pulse_exp.problem import Problem
from tests.compose import SMALL, job

LR = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
PROBLEM = Problem("face", LR)


@pytest.mark.parametrize("kind", ["nearest", "bicubic", "lanczos"])
def test_enlargement_equals_pillow(kind: str):
    image = Enlarge(kind)(PROBLEM, Bicubic(4))
    for channel, low in zip(image, LR, strict=True):
        pillow = Image.fromarray(low.numpy()).resize((24, 24), Image.Resampling[kind.upper()])
        np.testing.assert_allclose(channel, np.asarray(pillow).clip(0, 1), atol=1e-5)


def test_random_measurements_are_no_picture():
    with pytest.raises(UserError, match="no picture"):
        Enlarge("bicubic")(PROBLEM, GaussianMeasurements(2))


def test_precomputed_reads_by_id_and_says_what_is_wrong(tmp_path: Path):
    image = torch.rand(3, 24, 24)
    write_image(image, tmp_path / "face.png")
    baseline = Precomputed(str(tmp_path))
    assert (baseline(PROBLEM, Bicubic(4)) - image).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(UserError, match="no file for other"):
        baseline(Problem("other", LR), Bicubic(4))
    with pytest.raises(UserError, match="24×24"):
        baseline(PROBLEM, Bicubic(2))
    with pytest.raises(UserError, match="no such folder"):
        Precomputed(str(tmp_path / "nowhere"))


def test_a_baseline_is_judged_by_the_downscaling_error():
    nearest, area = Enlarge("nearest"), Area(4)  # the mean of a repeated pixel is the pixel
    solved = baseline_candidate(nearest, PROBLEM, 0, area, eps=1e-6)
    assert solved.status == "solved"
    assert solved.lr_mse < 1e-12
    lanczos = baseline_candidate(Enlarge("lanczos"), PROBLEM, 0, area, eps=1e-6)
    assert lanczos.status == "unsolved"
    assert lanczos.sr is not None
    expected = float((area(lanczos.sr[None])[0] - LR).square().mean())
    assert lanczos.lr_mse == pytest.approx(expected)


def test_baselines_run_into_the_same_records(tmp_path: Path):
    config, words = job(*SMALL, "method=bicubic", "data=generated", "data.count=2")
    assert not complaints(config)
    assert run(config, words, tmp_path / "bicubic") == 0
    other = [f"baseline.precomputed.root={tmp_path / 'bicubic' / 'sr'}", "method=precomputed"]
    rows = [json.loads(x) for x in (tmp_path / "bicubic" / "records.jsonl").open()]
    assert [row["method"] for row in rows] == ["bicubic"] * 2
    assert {row["latent"] for row in rows} == {"none"}
    assert all(row["psnr"] > 10 for row in rows)
    config, words = job(*SMALL, *other, "data=generated", "data.count=2")
    assert run(config, words, tmp_path / "again") == 1  # its files are named <id>-<restart>
    rows = [json.loads(x) for x in (tmp_path / "again" / "records.jsonl").open()]
    assert all("no file for generated" in row["reason"] for row in rows)


def test_baselines_refuse_restarts():
    config, _ = job(*SMALL, "method=nearest", "data=generated", "search.restarts=2")
    assert any("restarts" in line for line in complaints(config))
