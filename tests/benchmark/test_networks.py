import pytest
import torch

from pulse_exp.benchmark.networks import (
    NAMES,
    WIDTHS,
    PlainStyleGAN1,
    build,
    fused,
    released_tensors,
)
from pulse_exp.errors import UserError
from pulse_exp.generators import load


def test_the_plain_baseline_computes_what_stylegan1_computes():
    """At 128², where the released code enlarges in both of its ways."""
    tensors, noise = released_tensors([16, 16, 16, 16, 8, 8])
    plain = PlainStyleGAN1(tensors, noise)
    ws = torch.randn(2, plain.num_ws, 512, generator=torch.Generator().manual_seed(0))
    ws.requires_grad_()
    images = [generator.synthesis(ws) for generator in (plain, fused(tensors, noise))]
    torch.testing.assert_close(images[0], images[1], atol=1e-4, rtol=1e-4)
    first, second = (torch.autograd.grad(image.square().mean(), ws)[0] for image in images)
    assert (first - second).norm() < 1e-4 * first.norm()


def test_the_random_tensors_have_the_names_and_shapes_of_the_released_file(tmp_path):
    tensors, noise = released_tensors(WIDTHS["stylegan1"][:4])
    torch.save(tensors, tmp_path / "synthesis.pt")
    loaded = load("stylegan1", weights=tmp_path / "synthesis.pt")
    assert loaded.noise_shapes == tuple((n.shape[2], n.shape[3]) for n in noise)
    ws = torch.randn(1, 8, 512, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        build("plain", 32).synthesis(ws, noise), loaded.synthesis(ws, noise), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_network_is_frozen_and_has_the_resolution_asked_for(name: str):
    generator = build(name, 64)
    assert not any(parameter.requires_grad for parameter in generator.parameters())
    image = generator.synthesis(torch.randn(1, generator.num_ws, generator.w_dim))
    assert image.shape == (1, 3, 64, 64)
    assert image.isfinite().all()
    assert 0.01 < image.std() < 100


def test_a_wrong_name_or_resolution_is_one_line():
    with pytest.raises(UserError, match="choose from"):
        build("biggan", 64)
    with pytest.raises(UserError, match="--resolution 100"):
        build("toy", 100)
