"""MobileStyleGAN's training checkpoints against the upstream code.

How the reference was made: github bes-dev/MobileStyleGAN.pytorch at a9776ff,
`MobileSynthesisNetwork(24, [16, 12, 8, 8])` and `MappingNetwork(24, 2)` with pytorch_wavelets
1.3.0, on the CPU in float32, filled by `seeded_state` with RULES, called with the seeded noise
and with each of our eight vectors at its places among upstream's eleven.
"""

import pytest
import torch
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state

from pulse_exp.generators import load
from pulse_exp.generators.base import save

RULES = {
    "1.weight": (100.0, 0.0),
    "2.weight": (100.0, 0.0),
    "mapping_net.layers.1.bias": (10.0, 0.0),
    "mapping_net.layers.2.bias": (10.0, 0.0),
    "modulation.weight": (0.2, 0.0),
    "modulation.bias": (0.3, 1.0),
    "noise.weight": (0.2, 0.0),
    "style_inv": (0.3, 1.0),
    "bias": (0.1, 0.0),
}


@pytest.fixture
def checkpoint(tmp_path):
    found = reference("mobile_upstream", "small")
    state = seeded_state(found["layout"], RULES)
    state["style_mean"] = torch.zeros(1, 11, 24)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "file.ckpt")
    return tmp_path / "file.ckpt", found


def test_image_gradient_and_mapping_are_the_original_codes(checkpoint):
    path, found = checkpoint
    generator = load(path)
    assert (generator.resolution, generator.num_ws) == (64, 8)
    noise = [
        seeded(f"noise{i}", 1, 1, *shape).expand(2, -1, -1, -1)
        for i, shape in enumerate(generator.noise_shapes)
    ]
    ws = seeded("ws", 2, generator.num_ws, 24)
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws, noise) - 1, ws)
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4
    assert relative_error(generator.mapping(seeded("z", 3, 24))[:, 1], found["w"]) < 1e-4


def test_converted_it_is_the_same_generator(checkpoint, tmp_path):
    generator = load("mobile_stylegan", weights=checkpoint[0])
    save(generator, tmp_path / "file.safetensors")
    z = seeded("z", 1, generator.z_dim)
    again = load("mobile_stylegan", weights=tmp_path / "file.safetensors")
    assert torch.equal(again(z), generator(z))
