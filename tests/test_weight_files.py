from pathlib import Path

import pytest
import torch

from pulse_exp.complaints import complaints
from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.images import read_image
from pulse_exp.weight_files import convert, sample
from tests.compose import SMALL, job


def test_convert_writes_a_file_that_loads_without_its_kind(tmp_path: Path):
    output = tmp_path / "new" / "toy.safetensors"
    config, words = job(*SMALL, "task=convert", f"output={output}")
    assert convert(config, words, tmp_path) == 0
    assert [path.name for path in output.parent.iterdir()] == ["toy.safetensors"]
    z = torch.ones(1, 32)
    assert torch.equal(load("file", weights=output)(z), load(output)(z))
    assert load(output).architecture == "toy"


def test_convert_needs_a_safetensors_file(tmp_path: Path):
    assert any("output=FILE" in line for line in complaints(job(*SMALL, "task=convert")[0]))
    config, words = job(*SMALL, "task=convert", f"output={tmp_path}/toy.pt")
    with pytest.raises(UserError, match=r"name a \.safetensors file"):
        convert(config, words, tmp_path)


def test_sample_writes_a_sheet(tmp_path: Path):
    config, words = job(*SMALL, "task=sample", "samples.count=3")
    assert sample(config, words, tmp_path) == 0
    side = load("toy", resolution=config.generator.resolution).resolution
    assert read_image(tmp_path / "samples.png").shape == (3, 2 * side, 2 * side)
