import torch

from pulse_exp.generators import load
from pulse_exp.generators.base import draw_noise, read, save
from pulse_exp.seeding import random_generator


def test_toy_is_seeded_and_differentiable_to_the_latent():
    first, second = load("toy"), load("toy")
    ws = first.mapping(torch.randn(2, first.z_dim, generator=random_generator(0))).clone()
    ws.requires_grad_()
    image = first.synthesis(ws)
    assert image.shape == (2, 3, first.resolution, first.resolution)
    assert torch.equal(image, second.synthesis(ws))
    image.square().mean().backward()
    assert ws.grad.abs().amin(dim=(0, 2)).gt(0).all(), "every style vector reaches the image"


def test_noise_changes_the_image():
    toy = load("toy")
    ws = toy.mapping(torch.ones(1, toy.z_dim))
    noise = draw_noise(toy, 1, random_generator(1))
    assert [tuple(n.shape[2:]) for n in noise] == list(toy.noise_shapes)
    assert not torch.equal(toy.synthesis(ws), toy.synthesis(ws, noise))


def test_a_saved_generator_loads_without_naming_its_kind(tmp_path):
    toy = load("toy", resolution=32)
    save(toy, tmp_path / "toy.safetensors")
    again = read(tmp_path / "toy.safetensors")
    z = torch.ones(1, toy.z_dim)
    assert torch.equal(toy(z), again(z))
