import numpy as np
import pytest
import torch

from pulse_exp.errors import UserError
from pulse_exp.operators.blurs import Defocus, GaussianBlur, MotionBlur
from pulse_exp.operators.degradations import (
    Chain,
    ColourCast,
    GaussianNoise,
    Grey,
    HiddenBlock,
    HiddenPixels,
    Jpeg,
    Poisson,
    SaltAndPepper,
    WrongDownscaler,
    quantise,
)
from pulse_exp.operators.downscalers import Area, Bicubic
from pulse_exp.operators.measurements import BlockMask, Composed, GaussianMeasurements
from pulse_exp.operators.second_order import SecondOrder
from pulse_exp.seeding import random_generator

STEPS = {
    "gaussian_noise": GaussianNoise(),
    "poisson": Poisson(),
    "salt_and_pepper": SaltAndPepper(),
    "motion_blur": MotionBlur(length=20),
    "gaussian_blur": GaussianBlur(sigma=3),
    "defocus": Defocus(radius=4),
    "jpeg": Jpeg(),
    "colour_cast": ColourCast(),
    "grey": Grey(),
    "block_mask": HiddenBlock(),
    "random_mask": HiddenPixels(),
    "wrong_downscaler": WrongDownscaler(4, "nearest"),
    "second_order": SecondOrder(4),
}
RANDOM = set(STEPS) - {"gaussian_blur", "defocus", "jpeg", "grey", "wrong_downscaler"}


def rng(image="a"):
    return random_generator(0, image, "degradation")


def picture(height=64, width=96, dtype=torch.float32):
    """Smooth shapes with an edge, in [0, 1]."""
    y = torch.linspace(0, 3, height)[:, None]
    x = torch.linspace(0, 5, width)
    image = torch.stack([torch.sin(x + y), torch.cos(x * y), (x > 2).float() + 0 * y])
    return (0.5 + 0.4 * image).clamp(0, 1).to(dtype)


def grey(level, height=400, width=300):
    return torch.full((3, height, width), level)


@pytest.mark.parametrize("name", STEPS)
def test_each_image_has_its_own_seeded_degradation(name):
    chain = Chain({name: STEPS[name]}, Bicubic(4))
    first, again, other = (chain(picture(), rng(image)) for image in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in RANDOM)
    assert not torch.equal(first, Chain({}, Bicubic(4))(picture(), rng()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("name", STEPS)
def test_size_range_and_dtype(name, dtype):
    truth = picture(dtype=dtype)
    before = truth.clone()
    lr = Chain({name: STEPS[name]}, Bicubic(4))(truth, rng())
    assert lr.shape == (3, 16, 24)
    assert lr.dtype == dtype
    assert lr.min() >= 0
    assert lr.max() <= 1
    assert torch.equal(truth, before), "the truth is left as it was"


def test_no_degradation_is_the_downscaler_in_an_8_bit_file():
    truth = picture(dtype=torch.float64)
    lr = Chain({}, Bicubic(4))(truth, rng())
    assert torch.equal(lr, quantise(Bicubic(4)(truth[None])[0]))
    torch.testing.assert_close((lr * 255).round(), lr * 255)


@pytest.mark.parametrize("std", [25, 50])
def test_gaussian_noise_has_its_standard_deviation(std):
    noise = GaussianNoise(std)(grey(0.5), rng()) - 0.5
    assert noise.std() * 255 == pytest.approx(std, rel=0.01)
    assert noise.mean() * 255 == pytest.approx(0, abs=0.3)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.01 * float(noise.var()) + 1e-4


def test_poisson_noise_grows_with_brightness():
    for level in (0.1, 0.8):
        noisy = Poisson(photons=50)(grey(level), rng())
        assert noisy.mean() == pytest.approx(level, rel=0.01)
        assert noisy.var() == pytest.approx(level / 50, rel=0.02)


def test_rates_of_the_pixel_defects():
    noisy = SaltAndPepper(rate=0.05)(grey(0.5), rng())
    assert (noisy == 1).float().mean() == pytest.approx(0.025, abs=0.002)
    assert (noisy == 0).float().mean() == pytest.approx(0.025, abs=0.002)
    assert torch.equal(noisy[0], noisy[1])
    assert (HiddenPixels(0.25)(grey(0.5), rng()) == 0).float().mean() == pytest.approx(
        0.25, abs=0.005
    )
    hidden = (HiddenBlock(0.25)(grey(0.5), rng()) == 0)[0].nonzero()
    assert len(hidden) == 100 * 75
    assert (hidden.max(0).values - hidden.min(0).values).tolist() == [99, 74]


def test_colours():
    cast = ColourCast(0.3)(grey(0.5), rng())[:, 0, 0] / 0.5
    assert cast.min() >= 0.7
    assert cast.max() <= 1.3
    assert cast.unique().numel() == 3
    primaries = torch.eye(3)[:, :, None]
    torch.testing.assert_close(
        Grey()(primaries, rng())[0, :, 0], torch.tensor([0.299, 0.587, 0.114])
    )


def test_jpeg_is_pillows_and_loses_more_at_low_quality():
    from io import BytesIO

    from PIL import Image

    image = quantise(picture())
    buffer = BytesIO()
    Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=20)
    expected = np.asarray(Image.open(buffer)).transpose(2, 0, 1) / 255
    found = Jpeg(20)(image, rng())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert (Jpeg(90)(image, rng()) - image).square().mean() < (found - image).square().mean()


def test_the_chain_keeps_its_order():
    truth, down = picture(), Bicubic(4)
    noise, save, shake = GaussianNoise(40), Jpeg(20), MotionBlur(20, angle=30)
    lr = Chain({"noise": noise, "jpeg": save, "motion": shake}, down)(truth, rng())
    draws = rng()
    blurred = shake(truth, draws).clamp(0, 1)
    small = down(blurred[None])[0].clamp(0, 1)
    expected = quantise(save(noise(small, draws).clamp(0, 1), draws))
    assert torch.equal(lr, expected)
    swapped = Chain({"jpeg": save, "noise": noise, "motion": shake}, down)(truth, rng())
    assert not torch.equal(lr, swapped)


def test_a_wrong_downscaler_takes_the_place_of_the_assumed_one():
    lr = Chain({"wrong": WrongDownscaler(4, "area")}, Bicubic(4))(picture(), rng())
    assert torch.equal(lr, quantise(Area(4)(picture()[None])[0]))


@pytest.mark.parametrize("mask", [BlockMask(), Composed(4, Bicubic, BlockMask())])
def test_noise_does_not_reveal_hidden_pixels(mask):
    lr = Chain({"noise": GaussianNoise(50)}, mask)(picture(), rng())
    assert torch.equal(lr, mask.observed(lr))
    assert (lr == 0).float().mean() == pytest.approx(0.25, abs=0.15)


def test_measurements_that_are_no_image_stay_as_they_are():
    measure = GaussianMeasurements(factor=4)
    truth = picture(16, 16)
    assert torch.equal(Chain({}, measure)(truth, rng()), measure(truth[None])[0])


def test_impossible_chains_are_refused():
    two = {"wrong": WrongDownscaler(4, "area"), "second": SecondOrder(4)}
    with pytest.raises(UserError, match=r"wrong\+second"):
        Chain(two, Bicubic(4))
    with pytest.raises(UserError, match="degradation=none"):
        Chain({"noise": GaussianNoise()}, GaussianMeasurements())
    with pytest.raises(UserError, match="same factor"):
        Chain({"wrong": WrongDownscaler(8)}, Bicubic(4))(picture(), rng())


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: GaussianNoise(-1), "gaussian_noise.std"),
        (lambda: Poisson(0), "poisson.photons"),
        (lambda: SaltAndPepper(2), "salt_and_pepper.rate"),
        (lambda: MotionBlur(0), "motion_blur.length"),
        (lambda: Defocus(float("nan")), "defocus.radius"),
        (lambda: Jpeg(100), "jpeg.quality"),
        (lambda: WrongDownscaler(4, "cubic"), "wrong_downscaler.kind"),
        (lambda: SecondOrder(0), "second_order.factor"),
    ],
)
def test_values_out_of_range_are_refused(build, name):
    with pytest.raises(UserError, match=f"degradation.{name}"):
        build()


def test_the_second_order_mix_varies_but_keeps_the_picture():
    truth = picture(256, 256)
    clean = Area(16)(truth[None])[0]
    results = [SecondOrder(16)(truth, rng(str(i))) for i in range(12)]
    errors = torch.stack([(result - clean).square().mean() for result in results])
    assert errors.min() > 1e-5
    assert errors.max() < 0.05
    assert SecondOrder(2)(picture(32, 48), rng()).shape == (3, 16, 24)
