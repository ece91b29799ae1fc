import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from pulse_exp.operators.blurred import PINV_CUTOFF, Blurred, blur_matrices
from pulse_exp.operators.downscalers import Area, Bicubic

SIGMAS = [0.0, 0.7, 2.0]


def images(count: int = len(SIGMAS), side: int = 96, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=rng)


def downscaler(*sigmas: float, factor: int = 4, side: int = 96) -> Blurred:
    return Blurred(Bicubic(factor), blur_matrices(torch.tensor(sigmas), side // factor))


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_it_is_the_downscaler_and_then_a_gaussian(sigma):
    found = downscaler(sigma)(images(1))[0].numpy()
    expected = Bicubic(4)(images(1))[0].numpy()
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, sigma, axis, mode="reflect", truncate=6)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_without_a_blur_it_is_the_downscaler_to_the_bit():
    assert torch.equal(downscaler(0.0)(images(1)), Bicubic(4)(images(1)))
    inverse = downscaler(0.0).pseudo_inverse(images(1, 24))
    torch.testing.assert_close(inverse, Bicubic(4).pseudo_inverse(images(1, 24)))


def test_each_image_has_its_own_blur():
    together = downscaler(*SIGMAS)
    singles = [downscaler(sigma) for sigma in SIGMAS]
    one_by_one = [single(image[None]) for single, image in zip(singles, images(), strict=True)]
    torch.testing.assert_close(together(images()), torch.cat(one_by_one))
    lr = images(side=24)
    inverses = [s.pseudo_inverse(image[None]) for s, image in zip(singles, lr, strict=True)]
    torch.testing.assert_close(together.pseudo_inverse(lr), torch.cat(inverses))


def test_one_blur_serves_many_images():
    found = downscaler(0.7)(images())
    torch.testing.assert_close(found, downscaler(0.7, 0.7, 0.7)(images()))


def test_the_inverse_restores_what_a_slight_blur_left():
    blurred = downscaler(0.4)
    lr = blurred(images(2))
    torch.testing.assert_close(blurred(blurred.pseudo_inverse(lr)), lr, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sigma", SIGMAS[1:])
def test_the_inverse_never_enlarges_what_the_blur_destroyed(sigma):
    blurred = Blurred(Area(4), blur_matrices(torch.tensor([sigma]), 24))
    inverse = blurred.pseudo_inverse(images(1, 24))
    assert inverse.norm() <= 4 * images(1, 24).norm() / PINV_CUTOFF**2
    blurry = blurred(images(1))
    torch.testing.assert_close(blurred(blurred.pseudo_inverse(blurry)), blurry, atol=0.02, rtol=0)
