import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.operators.downscalers import (
    KINDS,
    Area,
    Bicubic,
    BicubicPil,
    Bilinear,
    Gaussian,
    Lanczos,
    Nearest,
)

ALL = list(KINDS.values())
PILLOW = {
    Area: Image.Resampling.BOX,
    BicubicPil: Image.Resampling.BICUBIC,
    Bilinear: Image.Resampling.BILINEAR,
    Lanczos: Image.Resampling.LANCZOS,
    Nearest: Image.Resampling.NEAREST,
}
FACTORS = [1, 2, 3, 4, 12]


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("factor", [2, 3, 4, 12])
@pytest.mark.parametrize("size", [(48, 36), (60, 120), (12, 24)])
@pytest.mark.parametrize("kind", PILLOW)
def test_equals_pillow_in_float(kind, size, factor):
    image = images(*size)
    pillow = Image.fromarray(image.numpy(), mode="F")
    expected = pillow.resize((size[1] // factor, size[0] // factor), PILLOW[kind])
    found = kind(factor)(image[None, None])[0, 0]
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("kind", PILLOW)
def test_equals_pillow_in_8_bit_within_a_level(kind):
    levels = (images(96, 64, 3) * 255).round().byte()
    expected = Image.fromarray(levels.numpy()).resize((8, 12), PILLOW[kind])
    found = kind(8)(levels.permute(2, 0, 1)[None].double())[0].clamp(0, 255).round()
    assert np.abs(found.permute(1, 2, 0).numpy() - np.asarray(expected)).max() <= 1


def pulse_bicubic(image, factor):
    """The released kernel, written out: 4·factor taps, mirrored edges, strided convolutions."""

    def weight(x, a=-0.5):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    taps = 4 * factor
    kernel = torch.tensor([weight((i - taps // 2 + 0.5) / factor) for i in range(taps)])
    kernel = (kernel / kernel.sum()).to(image).expand(3, 1, 1, taps)
    before = 3 * factor // 2
    after = 3 * factor - before
    image = F.pad(image, (0, 0, before, after), mode="reflect")
    image = F.conv2d(image, kernel.mT, stride=(factor, 1), groups=3)
    image = F.pad(image, (before, after, 0, 0), mode="reflect")
    return F.conv2d(image, kernel, stride=(1, factor), groups=3)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_bicubic_is_the_paper_kernel(factor):
    image = images(2, 3, 64, 96)
    torch.testing.assert_close(
        Bicubic(factor)(image), pulse_bicubic(image, factor), atol=2e-6, rtol=0
    )


def test_gaussian_is_a_blur_and_a_stride():
    from scipy.ndimage import gaussian_filter

    image = images(30, 45, dtype=torch.float64)
    blurred = gaussian_filter(image.numpy(), sigma=3 * 0.6, mode="mirror", truncate=4.0)
    found = Gaussian(3, sigma=0.6)(image[None, None])[0, 0]
    np.testing.assert_allclose(found.numpy(), blurred[1::3, 1::3], atol=2e-4)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [(60, 120), (12, 24)])
@pytest.mark.parametrize("kind", ALL)
def test_is_linear_keeps_constants_and_meets_its_adjoint(kind, size, factor):
    down = kind(factor)
    h, w = down.output_size(*size)
    x = images(2, 3, *size, dtype=torch.float64).requires_grad_()
    other = images(2, 3, *size, seed=1, dtype=torch.float64)
    y = images(2, 3, h, w, seed=2, dtype=torch.float64)
    result = down(x)
    assert result.shape == y.shape
    (adjoint,) = torch.autograd.grad((result * y).sum(), x)
    torch.testing.assert_close((down(other) * y).sum(), (other * adjoint).sum())
    torch.testing.assert_close(down(2 * x - other), 2 * result - down(other))
    torch.testing.assert_close(down(torch.full_like(other, 0.3)), torch.full_like(y, 0.3))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("kind", ALL)
def test_the_range_null_space_correction_is_exact_and_minimal(kind, factor):
    down = kind(factor)
    x = images(1, 3, 24, 48, dtype=torch.float64)
    y = images(1, 3, *down.output_size(24, 48), seed=1, dtype=torch.float64)
    refined = x + down.pseudo_inverse(y - down(x))
    assert (down(refined) - y).abs().max() < 1e-6
    again = refined + down.pseudo_inverse(y - down(refined))
    torch.testing.assert_close(again, refined, atol=1e-9, rtol=0)
    x32, y32 = x.float(), y.float()
    refined = x32 + down.pseudo_inverse(y32 - down(x32))
    assert (down(refined) - y32).square().mean() < 1e-8


@pytest.mark.parametrize("kind", ALL)
def test_rows_are_independent_and_dtype_is_kept(kind):
    down = kind(4)
    batch = images(3, 3, 16, 32)
    singles = torch.cat([down(image[None]) for image in batch])
    torch.testing.assert_close(down(batch), singles, atol=1e-6, rtol=0)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert down(batch.to(dtype)).dtype == dtype


def test_a_first_use_in_inference_mode_leaves_it_differentiable():
    down = Bicubic(4)
    with torch.inference_mode():
        down(images(1, 3, 16, 16))
    image = images(1, 3, 16, 16).requires_grad_()
    down(image).sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("kind", ALL)
def test_a_factor_that_does_not_divide_is_refused(kind):
    with pytest.raises(UserError, match=r"factor=5 does not divide an image of 64×60"):
        kind(5)(images(1, 3, 64, 60))
    with pytest.raises(UserError, match="factor"):
        kind(0)


def test_a_gaussian_without_width_is_refused():
    for sigma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="sigma"):
            Gaussian(4, sigma=sigma)
