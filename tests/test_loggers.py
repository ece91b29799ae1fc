"""An experiment server that does not answer costs a line, never a result."""

import json
import socket
from pathlib import Path

import pytest

from pulse_exp import loggers, pipeline
from tests.compose import SMALL, job


def test_an_unreachable_wandb_server_leaves_the_run_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setattr(loggers, "SECONDS_TO_BEGIN", 2.0)
        few = ["data=generated", "data.count=1", "metrics=[psnr]", "generator.resolution=16"]
        config, words = job(*SMALL, *few, "downscaler.factor=4", "logger=wandb")
        assert pipeline.run(config, words, tmp_path) == 0
        said = capsys.readouterr()
    assert "W&B cannot be reached" in said.err
    assert "wandb sync" in said.out
    (line,) = (tmp_path / "records.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] != "failed"
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
