import json
from pathlib import Path

import pytest

from pulse_exp.complaints import complaints
from pulse_exp.pipeline import run
from tests.compose import CONF, job

METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
SMALL = [
    *("generator=toy", "generator.resolution=32", "downscaler.factor=4", "logger=none"),
    *("data=generated", "data.count=2", "search.steps=4", "search.batch_size=2", "metrics=[psnr]"),
    *("refine=[back_projection]", "trainer=cpu"),
]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_end_to_end(method: str, tmp_path: Path):
    overrides = [*SMALL, f"method={method}"]
    if method == "precomputed":
        overrides.append(f"baseline.precomputed.root={precomputed(tmp_path)}")
    config, words = job(*overrides)
    if "statistics_draws" in config.latent:
        config.latent.statistics_draws = 2000
    if "p_norm" in config.prior:
        config.prior.p_norm.statistics_draws = 2000
    if "layers" in config.latent:
        config.latent.layers = [1, 2, 3]
    assert complaints(config) == []
    assert run(config, words, tmp_path / "run") == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "records.jsonl").open()]
    assert len(rows) == 2
    for row in rows:
        assert row["method"] == method
        assert row["status"] in ("solved", "unsolved")
        assert row["lr_mse_refined"] < row["lr_mse"] + 1e-9
        assert row["psnr"] > 5
        assert (tmp_path / "run" / "sr" / f"{row['image']}-0.png").is_file()


def precomputed(tmp_path: Path) -> Path:
    """The truths themselves, as another system's outputs."""
    config, words = job(*SMALL, "method=nearest")
    run(config, words, tmp_path / "nearest")
    return tmp_path / "nearest" / "hr"


@pytest.mark.parametrize(
    ("choices", "known"),
    [("downscaler.factor=2", True), ("downscaler.factor=4", False), ("method=bicubic", False)],
)
def test_the_records_of_the_default_method_keep_the_inputs_blur(choices, known, tmp_path: Path):
    config, words = job(*SMALL, choices)
    if "statistics_draws" in config.latent:
        config.latent.statistics_draws = 2000
    assert run(config, words, tmp_path) == 0
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").open()]
    assert all(("lr_blur" in row) == known for row in rows)
