import io
import warnings

import numpy as np
import pytest
from PIL import Image
from skimage import data

from pulse_exp.errors import UserError
from pulse_exp.photo_files import read_photo


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(data.astronaut()).resize((96, 64))


def saved(image, path, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "L", "LA", "1"])
def test_every_mode_becomes_rgb(picture, tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    photo = read_photo(saved(picture.convert(mode), tmp_path / f"a.{suffix}"))
    assert photo.pixels.shape == (64, 96, 3)
    assert photo.pixels.dtype == np.uint8
    assert photo.scale == 1
    expected = np.asarray(picture.convert(mode).convert("RGB"))
    assert np.abs(photo.pixels.astype(int) - expected.astype(int)).max() <= 1


def test_a_cmyk_jpeg_keeps_its_colors(picture, tmp_path):
    path = saved(picture.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    difference = read_photo(path).pixels.astype(int) - np.asarray(picture)
    assert np.abs(difference).mean() < 6


def test_transparency_is_laid_over_white(picture, tmp_path):
    image = picture.convert("RGBA")
    image.putalpha(0)
    assert (read_photo(saved(image, tmp_path / "a.png")).pixels == 255).all()


def test_16_bit_grey_is_scaled(tmp_path):
    values = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    path = saved(Image.fromarray(values), tmp_path / "a.png")
    np.testing.assert_array_equal(read_photo(path).pixels[..., 1], values >> 8)


def test_float_grey_in_either_range(tmp_path):
    for top in (1, 255):
        values = np.linspace(0, top, 64 * 32, dtype=np.float32).reshape(32, 64)
        pixels = read_photo(saved(Image.fromarray(values), tmp_path / "a.tif")).pixels
        assert (pixels.min(), pixels.max()) == (0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_photo_upright(picture, tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(picture, tmp_path / "a.png", exif=exif)
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    np.testing.assert_array_equal(read_photo(path).pixels, expected)


def test_nonsense_in_exif_is_ignored(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read_photo(saved(picture, tmp_path / "a.png", exif=exif)).pixels.shape == (64, 96, 3)
    damaged = saved(picture, tmp_path / "b.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_photo(damaged).pixels.shape == (64, 96, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_photo_is_halved_while_it_is_read(tmp_path, suffix, mode):
    image = Image.fromarray(data.astronaut()).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(image.resize((500, 300)), tmp_path / f"a.{suffix}", exif=exif)
    photo = read_photo(path, max_pixels=10_000)
    assert photo.pixels.shape == (125, 75, 3)
    assert photo.scale == 4
    whole = read_photo(path).pixels
    blocks = whole.reshape(125, 4, 75, 4, 3).mean(axis=(1, 3))
    assert np.abs(photo.pixels - blocks).mean() < 3


@pytest.mark.parametrize("mode", ["P", "I;16", "RGBA"])
def test_other_modes_are_halved_too(tmp_path, mode):
    source = Image.fromarray(data.astronaut())
    if mode == "I;16":
        image = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 257)
    else:
        image = source.convert(mode)
    photo = read_photo(saved(image, tmp_path / "a.png"), max_pixels=2**16)
    assert photo.pixels.shape == (256, 256, 3)
    reference = source.convert("L" if mode == "I;16" else "RGB").reduce(2).convert("RGB")
    assert np.abs(photo.pixels.astype(int) - np.asarray(reference)).mean() < (
        8 if mode == "P" else 1
    )


def test_a_truncated_file_says_so(picture, tmp_path):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    path = tmp_path / "cut.jpg"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=r"cut\.jpg: damaged.*truncated"):
        read_photo(path)


def test_what_is_no_image_says_so(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_text("not a picture")
    with pytest.raises(UserError, match="not an image"):
        read_photo(path)
    with pytest.raises(UserError, match="damaged or not an image"):
        read_photo(tmp_path / "absent.jpg")


def test_sizes_that_pillow_warns_about_are_read_and_those_it_refuses_are_explained(
    picture, tmp_path, monkeypatch
):
    path = saved(picture, tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_photo(path).pixels.shape == (64, 96, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match="make it smaller"):
        read_photo(path)
