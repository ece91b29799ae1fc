from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.images import image_files, image_ids, read_image, resized, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, lossless=True)
    assert np.array_equal((read_image(path) * 255).round().byte().permute(1, 2, 0), PIXELS)


def test_grey_palette_alpha_and_16_bit(tmp_path: Path):
    grey = PIXELS[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert torch.allclose(
        read_image(tmp_path / "grey.png")[1], torch.from_numpy(grey / 255).float()
    )
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")
    assert torch.allclose(
        read_image(tmp_path / "palette.png"), read_image(tmp_path / "grey.png"), atol=1e-6
    )
    deep = grey.astype(np.uint16) * 257 + 1
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, 0, 0] == 1
    assert read_image(tmp_path / "deep.png")[0, 1, 1] == pytest.approx(float(deep[1, 1]) / 65535)
    clear = np.dstack([PIXELS, np.zeros_like(grey)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").eq(1).all(), "transparent pixels show white"


def test_exif_turns_the_image_upright(tmp_path: Path):
    image, exif = Image.fromarray(PIXELS), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(PIXELS, -1)
    seen = (read_image(tmp_path / "turned.png") * 255).round().byte().permute(1, 2, 0)
    assert np.array_equal(seen, expected)


def test_bad_files_are_named(tmp_path: Path):
    Image.fromarray(np.tile(PIXELS, (20, 20, 1))).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:600])
    (tmp_path / "text.png").write_text("hello")
    for name in ("cut.png", "text.png"):
        with pytest.raises(UserError, match=name):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match="no such folder"):
        image_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in it"):
        image_files(tmp_path / "empty")


def test_ids_are_unique():
    files = [Path("a.png"), Path("a.jpg"), Path("b.png")]
    assert image_ids(files) == ["a.png", "a.jpg", "b"]


def test_a_written_image_is_rounded_and_clamped(tmp_path: Path):
    image = torch.tensor([-0.5, 0.499 / 255, 0.501 / 255, 2.0]).view(1, 1, 4).expand(3, 1, 4)
    write_image(image, tmp_path / "deep" / "a.png")
    seen = (read_image(tmp_path / "deep" / "a.png")[0, 0] * 255).round().int().tolist()
    assert seen == [0, 0, 1, 255]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_resized_keeps_an_image_of_that_size_and_constants():
    image = torch.rand(3, 8, 8)
    assert resized(image, (8, 8)) is image
    assert torch.allclose(resized(torch.full((3, 12, 12), 0.3), (5, 5)), torch.tensor(0.3))
