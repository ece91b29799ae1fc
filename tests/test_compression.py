from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from pulse_exp.building import build_generator, build_objective
from pulse_exp.compression import (
    as_saved,
    block_transform,
    cells,
    coefficients,
    fits_blocks,
    qualities,
    quantisation_steps,
    told_part,
    transforms,
)
from pulse_exp.operators.degradations import jpeg
from pulse_exp.operators.downscalers import Bicubic
from pulse_exp.operators.measurements import BlockMask
from tests.compose import job
from tests.test_damaged_inputs import TOY, restored
from tests.test_sharpness import pictures


def photographs(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(pictures(count, side, seed)).float().clamp(0, 1)


def saved(images: torch.Tensor, quality: int) -> torch.Tensor:
    return torch.stack([jpeg(image, quality) for image in images])


@pytest.mark.parametrize("side", [16, 32, 128])
@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95])
def test_a_quality_is_told_by_the_pixels(side, quality):
    assert qualities(saved(photographs(6, side), quality)).tolist() == [quality] * 6


@pytest.mark.parametrize("side", [16, 32, 128])
def test_what_was_not_saved_as_jpeg_has_no_quality(side):
    images = photographs(40, side)
    noisy = images + 0.04 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    for whole in (images, noisy.clamp(0, 1), torch.full((2, 3, side, side), 0.5)):
        assert qualities((255 * whole).round() / 255).max() == 0
    # of a file cut through its blocks, or changed in size, nothing is known
    file = saved(photographs(4, 2 * side), 75)
    assert qualities(file[..., 3 : side + 3, 3 : side + 3]).max() == 0
    small = torch.nn.functional.avg_pool2d(file, 2)
    assert qualities((255 * small).round() / 255).max() == 0


def test_blocks_in_which_the_decoder_clipped_do_not_hide_the_quality():
    images = photographs(8, 32) + 0.3
    file = saved(images.clamp(0, 1), 30)
    assert (file == 1).any()
    assert qualities(file).tolist() == [30] * 8


def test_only_squares_of_whole_blocks_are_looked_at():
    fitting = {16: True, 8: False, 24: False, 48: True}
    assert {side: fits_blocks(torch.zeros(1, 3, side, side)) for side in fitting} == fitting
    assert not fits_blocks(torch.zeros(1, 3, 16, 32))


@pytest.mark.parametrize("decoded", [False, True])
def test_lumas_coefficients_are_the_blocks_cosine_transforms(decoded):
    image = photographs(1, 16)[0].double()
    luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    expected = dctn(luma.numpy()[8:, :8], norm="ortho")
    np.testing.assert_allclose(
        coefficients(image[None], decoded)[0, 0, 8:, :8].numpy(), expected, atol=1e-6
    )


def test_chromas_coefficients_are_of_four_pixels_means():
    image = photographs(1, 32).double()
    red, green, blue = image[0].numpy()
    blueness = (blue - (0.299 * red + 0.587 * green + 0.114 * blue)) / 1.772
    means = blueness.reshape(16, 2, 16, 2).mean((1, 3))
    expected = 2 * dctn(means[:8, 8:], norm="ortho")
    found = coefficients(image, decoded=False)[0, 1, :8, 8:16]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_transforms_of_pictures_are_orthonormal():
    for matrix in transforms(32, decoded=False):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(32, dtype=torch.float64))
    assert torch.equal(block_transform(16)[:8, 8:], torch.zeros(8, 8, dtype=torch.float64))


def test_a_decoded_picture_has_the_files_coefficients_of_chroma():
    # far from black and white, so that nothing is clipped
    file = saved(photographs(4, 64), 50)
    step = 2 * quantisation_steps()[50 - 5, 1].tile(4, 4)
    chroma = 255 * coefficients(file.double(), decoded=True)[:, 1:, :32, :32]
    off = (chroma / step - (chroma / step).round()).abs()
    assert off.mean() < 0.05  # 0.25 by chance


def test_the_steps_are_those_that_the_encoder_writes():
    for quality in (5, 50, 95):
        buffer = BytesIO()
        Image.new("RGB", (16, 16), "red").save(buffer, "JPEG", quality=quality)
        written = Image.open(buffer).quantization
        luma, chroma = quantisation_steps()[quality - 5].flatten(1).tolist()
        assert (luma, chroma) == (list(written[0]), list(written[1]))


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_the_steps_are_scaled_as_libjpegs(quality):
    """The lowest frequencies of the tables of ITU-T T.81, annex K, in the scale of a quality."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    annex = np.array([[16, 11, 10, 16, 24, 40, 51, 61], [17, 18, 24, 47, 99, 99, 99, 99]])
    expected = ((annex * scale + 50) // 100).clip(1, 255)
    np.testing.assert_array_equal(quantisation_steps()[quality - 5, :, 0], expected)


@pytest.mark.parametrize("side", [16, 64])
@pytest.mark.parametrize("quality", [10, 30, 75, 95])
def test_of_what_was_saved_the_file_tells_no_difference(side, quality):
    images = photographs(4, side)
    file = saved(images, quality)
    known = cells(file, qualities(file))
    lost = (file - images).square().mean()
    assert told_part(images, known).square().mean() < 1e-5 + 0.01 * lost
    # another picture is not excused
    other = photographs(4, side, seed=1)
    assert told_part(other, known).square().mean() > 0.1 * (file - other).square().mean()


def test_what_a_file_tells_is_how_far_coefficients_are_outside_its_cells():
    images, other = photographs(2, 32).double(), photographs(2, 32, seed=1).double()
    file = saved(images.float(), 30).double()
    known = cells(file, qualities(file))
    off = known["centre"] - coefficients(other, decoded=False)
    expected = off.sign() * (off.abs() - known["reach"]).clamp(min=0)
    told = coefficients(told_part(other, known), decoded=False)
    torch.testing.assert_close(told, expected, atol=1e-6, rtol=0)
    assert told[:, 1:, 16:].abs().max() < 1e-6
    luma = known["reach"][0, 0, :8, :8] * 255
    torch.testing.assert_close(luma, quantisation_steps()[30 - 5, 0] / 2)
    difference = file - as_saved(other, {"lr": file, "file": known})
    torch.testing.assert_close(difference, told_part(other, known))


def test_inputs_that_were_not_saved_stay_as_they_are_in_a_batch_with_others():
    images = photographs(2, 32)
    file = torch.stack([saved(images[:1], 30)[0], images[1]])
    observation = {"lr": file, "file": cells(file, torch.tensor([30, 0]))}
    other = photographs(2, 32, seed=1).requires_grad_()
    near = as_saved(other, observation)
    assert torch.equal(near[1], other[1])
    assert not torch.equal(near[0], other[0])
    assert torch.equal(as_saved(other, {"lr": file}), other)
    near.sum().backward()
    assert torch.equal(other.grad, torch.ones_like(other))


def levels(image: torch.Tensor) -> np.ndarray:
    return (255 * image).round().byte().permute(1, 2, 0).numpy()


def test_a_jpeg_file_is_read_with_its_blocks(tmp_path: Path):
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    Image.fromarray(levels(photographs(1, 16)[0])).save(inputs / "a.jpg", quality=80)
    low_res = ("data=low_res", f"data.root={inputs}", "metrics=[]")
    (row,) = restored(tmp_path / "out", *low_res)
    assert row["lr_jpeg"] == 80


def test_of_a_known_jpeg_no_blur_is_told():
    config, _ = job(*TOY, "latent.statistics_draws=2000")
    generator = build_generator(config, torch.device("cpu"))
    objective = build_objective(config, generator, Bicubic(2))
    file = saved(photographs(4, 16), 10)
    told = objective.told(file)
    assert told["lr_jpeg"].tolist() == [10] * 4
    assert told["lr_blur"].tolist() == [0.0] * 4
    objective.estimates_compression = False
    assert objective.told(file)["lr_blur"].max() > 0


def test_a_masked_picture_is_not_taken_for_a_file():
    config, _ = job(*TOY, "latent.statistics_draws=2000")
    generator = build_generator(config, torch.device("cpu"))
    side = generator.resolution
    whole = saved(photographs(1, side), 50)
    assert "lr_jpeg" not in build_objective(config, generator, BlockMask()).told(whole)
