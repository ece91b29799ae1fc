import numpy as np
import pytest
import torch
from scipy import ndimage

from pulse_exp.operators.blurs import blur, disc_kernel, gaussian_kernel, line_kernel


def moments(kernel):
    """Mean and covariance of a kernel as a density, x to the right and y upwards."""
    radius = kernel.shape[0] // 2
    axis = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()])
    mean = points @ kernel.flatten()
    return mean, (points * kernel.flatten()) @ points.mT - mean[:, None] * mean


@pytest.mark.parametrize("size", [(40, 60), (5, 9)])
def test_blur_is_a_convolution_with_mirrored_edges(size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    kernel = torch.rand(7, 7, generator=torch.Generator().manual_seed(1)).double()
    expected = [ndimage.convolve(c, kernel.numpy(), mode="mirror") for c in image.double().numpy()]
    np.testing.assert_allclose(blur(image, kernel).numpy(), expected, atol=2e-5)


def test_a_kernel_larger_than_the_image_is_possible():
    image = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(0))
    blurred = blur(image, gaussian_kernel(20, 20))
    assert blurred.shape == image.shape
    assert blurred.std(dim=(1, 2)).max() < 0.05
    torch.testing.assert_close(blur(torch.ones(3, 8, 6), line_kernel(100, 20)), torch.ones(3, 8, 6))


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
@pytest.mark.parametrize("length", [10, 100])
def test_a_line_has_its_length_and_angle(length, angle):
    kernel = line_kernel(length, angle)
    assert kernel.sum() == pytest.approx(1)
    mean, covariance = moments(kernel)
    assert mean.abs().max() < 1e-9
    values, vectors = torch.linalg.eigh(covariance)
    assert values[1] == pytest.approx(length**2 / 12, rel=0.03), "a uniform line"
    assert values[0] < 0.4, "thin"
    direction = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180
    assert min(abs(direction - angle), 180 - abs(direction - angle)) < 0.5


def test_a_disc_has_its_radius_and_a_gaussian_its_widths():
    mean, covariance = moments(disc_kernel(12.5))
    assert mean.abs().max() < 1e-9
    torch.testing.assert_close(covariance, torch.eye(2).double() * 12.5**2 / 4, rtol=0.01, atol=0.1)
    _, covariance = moments(gaussian_kernel(6, 2, angle=30))
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close(values, torch.tensor([4.0, 36.0]).double(), rtol=0.01, atol=0)
    assert np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180 == pytest.approx(30, abs=0.1)


def test_the_line_is_drawn_anticlockwise():
    image = torch.zeros(1, 41, 41)
    image[0, 20, 20] = 1
    streak = blur(image, line_kernel(20, 45))[0]
    assert streak[14, 26] > 0.01, "up and to the right"
    assert streak[26, 26] < 1e-4
