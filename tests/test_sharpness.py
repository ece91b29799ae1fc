from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import fourier_gaussian
from scipy.stats import multivariate_normal

from pulse_exp.operators.downscalers import Bicubic
from pulse_exp.operators.measurements import BlockMask, GaussianMeasurements
from pulse_exp.sharpness import BANDS, EVIDENCE, LOWEST, Spectra, blur_beside, log_power
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


def spectra(count: int, side: int) -> Spectra:
    return Spectra.of(log_power(torch.from_numpy(pictures(count, side))))


def noisy(images: torch.Tensor, std: float) -> torch.Tensor:
    return images + std * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def in_8_bits(images: torch.Tensor) -> torch.Tensor:
    return (255 * images.clamp(0, 1)).round() / 255


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("std", [0.0, 0.02])
def test_a_gaussian_blur_is_measured_also_under_noise(sigma, std):
    images = in_8_bits(noisy(blurred(pictures(40, 64, seed=1), sigma), std))
    measured = blur_beside(spectra(80, 64), images)
    assert measured.median().item() == pytest.approx(sigma, rel=0.1)
    assert measured.std() < 0.15


def test_sharp_pictures_have_none_with_noise_or_without():
    sharp, images = spectra(200, 32), torch.from_numpy(pictures(100, 32, seed=1))
    for std in (0.0, 0.02, 0.1):
        assert (blur_beside(sharp, noisy(images, std)) > 0).sum() <= 1
    blunt = Spectra.of(log_power(blurred(pictures(200, 32), 1.0)))
    assert blur_beside(blunt, images).max() == 0


def test_the_evidence_is_a_ratio_of_likelihoods():
    """Against the densities themselves, with the powers' common factor as one more unknown."""
    images = pictures(60, 32)
    logs = log_power(torch.from_numpy(images)).numpy()
    covariance = np.cov(logs.T) + 1e-3 * np.eye(BANDS)
    picture = log_power(blurred(pictures(1, 32, seed=5), 0.5)).numpy()[0]
    frequency = LOWEST + (0.5 - LOWEST) * (np.arange(BANDS) + 0.5) / BANDS

    def likelihood(sigma: float, noise: float) -> float:
        power = np.exp(logs.mean(0) - 4 * np.pi**2 * sigma**2 * frequency**2) + noise
        shifts = np.linspace(-3, 3, 6001)[:, None]
        density = multivariate_normal(cov=covariance)
        return density.logpdf(picture - np.log(power) + shifts).max()

    sigmas, noises = np.arange(0, 1, 0.05), [0, *np.logspace(-8, -2, 25)]
    table = np.array([[likelihood(s, n) for n in noises] for s in sigmas]).max(1)
    sharp = Spectra.of(torch.from_numpy(logs))
    off = torch.from_numpy(picture - logs.mean(0))
    assert off @ sharp.precision @ off == pytest.approx(
        2 * (multivariate_normal(cov=covariance).logpdf(np.zeros(BANDS)) - likelihood(0, 0)),
        rel=1e-4,
    )
    believed = 2 * (table.max() - table[0]) > EVIDENCE
    measured = blur_beside(sharp, blurred(pictures(1, 32, seed=5), 0.5)).item()
    assert measured == pytest.approx(sigmas[table.argmax()] if believed else 0)
    assert believed


def test_an_even_picture_is_finite():
    assert blur_beside(spectra(8, 32), torch.full((1, 3, 32, 32), 0.5)).isfinite().all()


def kind(count: int = 300) -> Draws:
    images = torch.from_numpy(pictures(count, 64)).clamp(0, 1)
    return Draws(torch.randn(count, 5), (255 * images).round().byte())


@pytest.mark.parametrize(("factor", "sigma"), [(4, 4), (2, 2), (1, 2)])
def test_an_inputs_blur_is_in_its_own_pixels(factor, sigma):
    estimate = LinearEstimate(kind(), Bicubic(factor), 64)
    images = pictures(6, 64, seed=1)
    blur = estimate.blur(Bicubic(factor)(blurred(images, sigma).clamp(0, 1)))
    assert blur.numpy() == pytest.approx(sigma / factor, rel=0.35)
    assert estimate.blur(Bicubic(factor)(torch.from_numpy(images).clamp(0, 1))).max() == 0


def test_small_inputs_masks_and_measurements_have_none():
    draws = kind(12)
    assert LinearEstimate(draws, BlockMask(), 64).blur(torch.rand(1, 3, 64, 64)) is None
    assert LinearEstimate(draws, Bicubic(8), 64).blur(torch.rand(1, 3, 8, 8)) is None
    measure = GaussianMeasurements(16)
    estimate = LinearEstimate(draws, measure, 64)
    assert estimate.blur(measure(torch.rand(1, 3, 64, 64))) is None
