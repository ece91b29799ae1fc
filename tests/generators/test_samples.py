import torch

from pulse_exp.generators import load
from pulse_exp.generators.samples import CELL, mean_style, sample_sheet
from pulse_exp.seeding import random_generator


def test_a_sheet_is_seeded_and_its_cells_do_not_depend_on_the_count():
    toy = load("toy", resolution=32)
    sheet = sample_sheet(toy, count=5, truncation=0.5, seed=3)
    assert sheet.shape == (3, 64, 96)
    assert torch.equal(sheet, sample_sheet(toy, count=5, truncation=0.5, seed=3))
    assert torch.equal(sheet[:, :32, :32], sample_sheet(toy, count=1, truncation=0.5, seed=3))
    assert not torch.equal(sheet, sample_sheet(toy, count=5, truncation=0.5, seed=4))
    assert sheet[:, 32:, 64:].eq(0).all(), "the place of a sixth is empty"


def test_truncation_pulls_towards_the_mean():
    toy = load("toy", resolution=32)
    z = torch.randn(1, toy.z_dim, generator=random_generator(0, "sample", 0))
    whole = toy(z).clamp(0, 1)[0]
    assert torch.allclose(sample_sheet(toy, count=1, truncation=1.0), whole, atol=1e-6)
    mean = toy.synthesis(mean_style(toy).expand(1, toy.num_ws, -1)).clamp(0, 1)[0]
    assert torch.allclose(sample_sheet(toy, count=1, truncation=0.0), mean, atol=1e-6)


def test_large_samples_are_made_smaller():
    toy = load("toy", resolution=2 * CELL)
    assert sample_sheet(toy, count=1).shape == (3, CELL, CELL)
