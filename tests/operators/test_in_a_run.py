import json
from pathlib import Path

import pytest

from pulse_exp.complaints import complaints
from pulse_exp.pipeline import run
from tests.compose import SMALL, job


@pytest.mark.parametrize(
    "choice",
    [
        "degradation=[motion_blur,gaussian_noise,jpeg]",
        "downscaler=block_mask downscaler.factor=1 degradation=poisson",
        "downscaler=masked_bicubic downscaler@downscaler.then=random_mask",
        "downscaler=reduced_gaussian_measurements",
    ],
)
def test_every_kind_of_measurement_is_searched_and_refined(choice: str, tmp_path: Path):
    overrides = ["search.steps=2", "data=generated", "data.count=1", "refine=back_projection"]
    config, words = job(*SMALL, *overrides, "metrics=[psnr]", *choice.split())
    assert not complaints(config)
    assert run(config, words, tmp_path) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "records.jsonl").open()]
    assert row["lr_mse_refined"] < row["lr_mse"] / 4, "exact but for the final clamp to [0, 1]"
