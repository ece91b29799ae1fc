from math import exp

import pytest
import torch

from pulse_exp.bilateral import (
    JointBilateralEnlargement,
    contrast,
    noise_variance,
    share_of_signal,
)

RNG = torch.Generator().manual_seed(0)


def test_joint_bilateral_enlargement_equals_its_formula():
    """Sums over the nine neighbours, pixel by pixel, in plain Python."""
    values, colours = (torch.rand(2, 3, 3, 4, generator=RNG, dtype=torch.float64) for _ in range(2))
    guide = torch.rand(2, 3, 6, 20, generator=RNG, dtype=torch.float64)  # blocks of 2 by 5
    found = JointBilateralEnlargement(colours, guide, 0.3)(values)

    def spline(distance: float) -> float:
        far = abs(distance)
        return 0.75 - far**2 if far < 0.5 else max(0.0, 1.5 - far) ** 2 / 2

    for b, y, x in [(0, 0, 0), (0, 5, 19), (1, 2, 9), (1, 3, 10), (1, 4, 7)]:
        total, weights = torch.zeros(3, dtype=torch.float64), 0.0
        for i in range(-1, 4):
            for j in range(-1, 5):
                near = spline((y + 0.5) / 2 - 0.5 - i) * spline((x + 0.5) / 5 - 0.5 - j)
                at = (b, slice(None), min(max(i, 0), 2), min(max(j, 0), 3))
                distance = float((guide[b, :, y, x] - colours[at]).square().sum())
                weight = near * (exp(-distance / (2 * 0.3**2)) + 1e-4)
                total, weights = total + weight * values[at], weights + weight
        torch.testing.assert_close(found[b, :, y, x], total / weights)


def test_contrast_is_the_range_about_a_pixel():
    image = torch.rand(2, 3, 5, 6, generator=RNG)
    found = contrast(image)
    for b, y, x in [(0, 0, 0), (1, 4, 5), (0, 2, 3), (1, 0, 4)]:
        near = image[b, :, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].flatten(1)
        expected = (near.max(1).values - near.min(1).values).mean()
        torch.testing.assert_close(found[b, 0, y, x], expected)


def test_the_share_of_signal_tells_noise_from_pictures():
    noise = 0.03 * torch.randn(2, 3, 32, 32, generator=RNG)
    assert share_of_signal(noise).mean() < 0.1
    slope = torch.linspace(-0.1, 0.1, 32).expand(1, 3, 32, 32)
    edge = torch.where(torch.arange(32) < 11, 0.02, -0.05).expand(1, 3, 32, 32)
    for clean in (slope, edge, torch.full((1, 3, 32, 32), 0.01)):
        assert share_of_signal(clean).min() > 0.99
    both = torch.cat([noise[:1], slope])
    torch.testing.assert_close(share_of_signal(both)[1:], share_of_signal(slope))
    assert share_of_signal(noise[..., :4]).min() == 1


@pytest.mark.parametrize("side", [16, 32, 128, 300])
def test_the_noise_variance_is_that_of_the_noise(side: int):
    rng = torch.Generator().manual_seed(side)
    noise = 0.1 * torch.randn(40, 3, side, side, generator=rng)
    slope = torch.linspace(0, 1, side).expand(40, 3, side, side)
    assert float(noise_variance(slope).max()) < 1e-9
    for image in (noise, slope + noise):
        assert float(noise_variance(image).mean()) == pytest.approx(0.01, rel=0.05)
    assert not noise_variance(noise[..., :4]).any()
