from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image

from pulse_exp.data import Folder, Generated, LowResFolder, Portrait, shard_of
from pulse_exp.errors import UserError
from pulse_exp.generators import load


@pytest.fixture
def toy():
    return load("toy")


def save(folder: Path, name: str, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (200, 100, 50)).save(folder / name)


def test_the_portrait_is_an_upright_face_at_the_resolution(toy):
    portrait = Portrait((224.8, 106.525), (87.343, 4.828), toy)
    hr = portrait.load(0).hr
    assert hr is not None
    assert hr.shape == (3, 64, 64)
    # Skin around the middle of an FFHQ crop, redder than it is blue.
    face = hr[:, 30:45, 25:40].mean((1, 2))
    assert face[0] > face[2] + 0.05


def test_a_folder_brings_photos_to_the_resolution_and_carries_facts(tmp_path: Path, toy):
    save(tmp_path, "b.png", (100, 100))
    save(tmp_path, "a.png", (64, 64))
    save(tmp_path, "tall.png", (64, 80))
    (tmp_path / "facts.csv").write_text("id,group\na,x\n")
    folder = Folder(str(tmp_path), toy, facts="facts.csv")
    assert list(folder.ids) == ["a", "b", "tall"]
    assert folder.load(1).hr.shape == (3, 64, 64)
    assert folder.load(0).notes == {"note_group": "x"}
    with pytest.raises(UserError, match=r"tall\.png.*not square"):
        folder.load(2)
    with pytest.raises(UserError, match="nowhere"):
        Folder(str(tmp_path), toy, facts="nowhere.csv")


def test_low_res_images_say_their_factor(tmp_path: Path, toy):
    save(tmp_path, "a.png", (8, 8))
    save(tmp_path, "b.png", (16, 16))
    save(tmp_path, "odd.png", (7, 7))
    folder = LowResFolder(str(tmp_path), toy)
    assert folder.factor(0) == 8
    assert folder.factor(1) == 4
    assert folder.load(0).hr is None
    with pytest.raises(UserError, match=r"odd\.png: 7×7 does not divide"):
        folder.factor(2)


def test_generated_faces_are_seeded_and_have_latents(toy):
    first, again = Generated(3, toy, seed=5), Generated(2, toy, seed=5)
    assert torch.equal(first.load(1).hr, again.load(1).hr)
    assert not torch.equal(first.load(0).hr, first.load(1).hr)
    sample = first.load(2)
    assert torch.allclose(toy.synthesis(sample.latent[None])[0].clamp(0, 1), sample.hr, atol=1e-6)
    other = Generated(3, toy, seed=6)
    assert not torch.equal(first.load(0).hr, other.load(0).hr)


def test_shards_share_out_every_item_once():
    items = list(range(11))
    shards = [shard_of(items, f"{i}/3") for i in range(3)]
    assert sorted(chain(*shards)) == items
