import pytest
import torch

from pulse_exp.errors import UserError
from pulse_exp.operators.downscalers import Area, Bicubic
from pulse_exp.operators.measurements import (
    BlockMask,
    Composed,
    GaussianMeasurements,
    Identity,
    RandomMask,
)

ALL = {
    "identity": Identity(),
    "block": BlockMask(),
    "random": RandomMask(rate=0.3),
    "gaussian": GaussianMeasurements(factor=4),
    "masked_bicubic": Composed(4, Bicubic, BlockMask()),
    "reduced_gaussian": Composed(4, Area, GaussianMeasurements(factor=2)),
}


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", ALL)
def test_is_linear_meets_its_adjoint_and_treats_images_alone(name):
    measure = ALL[name]
    x = images(2, 3, 16, 24).requires_grad_()
    other = images(2, 3, 16, 24, seed=1)
    result = measure(x)
    size = (16 // measure.factor, 24 // measure.factor)
    assert result.shape == (2, 3, *size) == (2, 3, *measure.output_size(16, 24))
    y = images(2, 3, *size, seed=2)
    (adjoint,) = torch.autograd.grad((result * y).sum(), x)
    torch.testing.assert_close((measure(other) * y).sum(), (other * adjoint).sum())
    torch.testing.assert_close(measure(2 * x - other), 2 * result - measure(other))
    singles = torch.cat([measure(image[None]) for image in other])
    torch.testing.assert_close(measure(other), singles)
    assert measure(other.half()).dtype == torch.float16


@pytest.mark.parametrize("name", ALL)
def test_the_range_null_space_correction_is_exact(name):
    measure = ALL[name]
    x, y = images(1, 3, 16, 24), measure(images(1, 3, 16, 24, seed=1))
    refined = x + measure.pseudo_inverse(y - measure(x))
    assert (measure(refined) - y).abs().max() < 1e-6


def test_masks_hide_what_they_say():
    white = torch.ones(1, 3, 20, 40)
    seen = BlockMask(top=0.5, left=0.25, height=0.25, width=0.9)(white)
    assert seen[:, :, 10:15, 10:].sum() == 0
    assert seen.sum() == 3 * (20 * 40 - 5 * 30)
    hidden = 1 - RandomMask(rate=0.3)(torch.ones(1, 3, 200, 200))
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    assert hidden.mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(RandomMask(seed=1)(white), RandomMask(seed=1)(white))
    assert not torch.equal(RandomMask(seed=1)(white), RandomMask(seed=2)(white))


def test_the_error_of_gaussian_measurements_estimates_that_of_the_image():
    measure = GaussianMeasurements(factor=2)
    difference = images(8, 3, 32, 32) - images(8, 3, 32, 32, seed=1)
    ratio = measure(difference).square().mean() / difference.square().mean()
    assert ratio == pytest.approx(1, abs=0.05)
    assert not measure.is_image
    assert not ALL["reduced_gaussian"].is_image


def test_impossible_measurements_are_refused():
    with pytest.raises(UserError, match="reduced_gaussian_measurements"):
        GaussianMeasurements(factor=32).output_size(1024, 1024)
    with pytest.raises(UserError, match="not a multiple"):
        Composed(5, Area, GaussianMeasurements(factor=2))
    with pytest.raises(UserError, match="factor=1"):
        BlockMask(factor=4)
    with pytest.raises(UserError, match="rate"):
        RandomMask(rate=1.5)
    with pytest.raises(UserError, match="does not divide"):
        ALL["masked_bicubic"](images(1, 3, 18, 16))
