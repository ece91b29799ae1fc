"""Numbers are tuned by Optuna and by W&B sweeps, which see the command line only."""

import json
from pathlib import Path

import pytest
import yaml

from pulse_exp.complaints import complaints
from tests.compose import CONF, job
from tests.test_sweeps import TINY, run


def test_optuna_is_told_the_mean_of_the_named_value_and_goes_on_after_a_failure(tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="extra optuna")
    code, printed = run(
        "-m", *TINY, "data.count=2", "hydra/sweeper=tune", "hydra.sweeper.n_trials=4",
        "optimize=lr_mse", "search.eps=choice(0.001,-1)",
        "optimizer.learning_rate=tag(log,interval(0.01,0.3))", f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    means = []
    for path in tmp_path.glob("*/records.jsonl"):
        errors = [json.loads(line)["lr_mse"] for line in path.read_text().splitlines()]
        means.append(sum(errors) / len(errors))
    assert best["best_value"] == pytest.approx(min(means))
    assert 0.01 <= best["best_params"]["optimizer.learning_rate"] <= 0.3
    failed = 4 - len(means)
    assert failed, "the seeded sampler tries the impossible eps too"
    assert f"{len(means)} of 4 cells done, {failed} failed, 0 left" in printed
    assert code == 2


def test_the_sweep_file_of_wandb_runs_the_command_line():
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((CONF.parent / "experiments" / "wandb_sweep.yaml").read_text())
    assert (CONF.parent / sweep["program"]).is_file()
    picked = {
        name: {"value": values.get("min", values.get("values", [None])[0])}
        for name, values in sweep["parameters"].items()
    }
    expanded = create_sweep_command_args({"args": picked})["args_no_hyphens"]
    command = []
    for word in sweep["command"]:
        command += expanded if word == "${args_no_hyphens}" else [word]
    assert command[:3] == ["${env}", "python", "${program}"]
    config, _ = job(*command[3:])
    assert not complaints(config)
    assert config.optimizer.learning_rate == sweep["parameters"]["optimizer.learning_rate"]["min"]
    assert sweep["metric"]["name"].removeprefix("summary/") == "lr_mse"
