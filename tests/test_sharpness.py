from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import fourier_gaussian

from pulse_exp.operators.downscalers import Bicubic
from pulse_exp.operators.measurements import GaussianMeasurements
from pulse_exp.sharpness import BANDS, LOWEST, NOTICEABLE, blur_beside, log_power
from pulse_exp.starts import Draws, LinearEstimate


def pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random pictures whose power falls with the square of the frequency, as a photograph's."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(rng.normal(size=(count, 3, side, side)))
    images = np.fft.ifft2(noise / frequency).real
    return 0.5 + 0.1 * images / images.std()


def blurred(images: np.ndarray, sigma: float) -> torch.Tensor:
    transformed = fourier_gaussian(np.fft.fft2(images), (0, 0, sigma, sigma))
    return torch.from_numpy(np.fft.ifft2(transformed).real)


@pytest.mark.parametrize("side", [16, 33])
def test_log_power_is_the_cosine_transforms(side):
    images = pictures(2, side)
    power = dctn(images.mean(1), axes=(1, 2), norm="ortho") ** 2
    x, y = np.meshgrid(range(side), range(side))
    frequency = np.hypot(x, y) / (2 * side)
    edges = np.linspace(LOWEST, 0.5, BANDS + 1) - 1e-9  # an edge belongs to the band above it
    expected = np.stack(
        [
            np.log(power[:, (frequency >= low) & (frequency < high)].mean(1))
            for low, high in pairwise(edges)
        ],
        1,
    )
    np.testing.assert_allclose(log_power(torch.from_numpy(images)).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.6, 0.8, 1.0])
def test_a_gaussian_blur_is_measured(sigma):
    images = pictures(40, 64)
    sharp = log_power(torch.from_numpy(images)).mean(0)
    measured = blur_beside(sharp, blurred(images, sigma))
    assert measured.mean().item() == pytest.approx(sigma, rel=0.1)
    assert measured.std() < 0.15


def test_what_is_sharper_than_its_kind_or_noisy_has_no_blur():
    images = pictures(8, 32)
    sharp = log_power(blurred(images, 1.0)).mean(0)
    assert blur_beside(sharp, torch.from_numpy(images)).max() == 0
    sharp = log_power(torch.from_numpy(images)).mean(0)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    assert blur_beside(sharp, torch.from_numpy(images) + 0.1 * noise).max() < NOTICEABLE


def test_an_even_picture_is_finite():
    sharp = log_power(torch.from_numpy(pictures(8, 32))).mean(0)
    assert blur_beside(sharp, torch.full((1, 3, 32, 32), 0.5)).isfinite().all()


def kind(count: int = 40) -> Draws:
    images = torch.from_numpy(pictures(count, 64)).clamp(0, 1)
    return Draws(torch.randn(count, 5), (255 * images).round().byte())


@pytest.mark.parametrize(("factor", "sigma"), [(4, 4), (2, 2), (1, 2)])
def test_an_inputs_blur_is_in_its_own_pixels(factor, sigma):
    estimate = LinearEstimate(kind(), Bicubic(factor), 64)
    images = pictures(6, 64, seed=1)
    blur = estimate.blur(Bicubic(factor)(blurred(images, sigma).clamp(0, 1)))
    assert blur.numpy() == pytest.approx(sigma / factor, rel=0.35)
    assert estimate.blur(Bicubic(factor)(torch.from_numpy(images).clamp(0, 1))).max() == 0


def test_small_inputs_and_measurements_have_none():
    draws = kind(12)
    assert LinearEstimate(draws, Bicubic(8), 64).blur(torch.rand(1, 3, 8, 8)) is None
    measure = GaussianMeasurements(16)
    estimate = LinearEstimate(draws, measure, 64)
    assert estimate.blur(measure(torch.rand(1, 3, 64, 64))) is None
