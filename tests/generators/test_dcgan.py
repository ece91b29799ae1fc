"""DCGAN against PyTorch's example.

How the reference was made: class `Generator` of dcgan/main.py in github pytorch/examples at
77f55b9 with nz 20, ngf 4, nc 3, in eval mode on the CPU in float32, its state dict filled as
`write` does it here.
"""

import pytest
import torch
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state

from pulse_exp.errors import UserError
from pulse_exp.generators import load

RULES = {
    "1.weight": (0.2, 1.0),
    "4.weight": (0.2, 1.0),
    "7.weight": (0.2, 1.0),
    "10.weight": (0.2, 1.0),
    "main.0.weight": (0.3, 0.0),
    "main.3.weight": (0.2, 0.0),
    "main.6.weight": (0.2, 0.0),
    "main.9.weight": (0.2, 0.0),
    "main.12.weight": (0.2, 0.0),
    "bias": (0.2, 0.0),
}


def state_dict():
    found = reference("dcgan", "tutorial")
    state = seeded_state(found["layout"], RULES)
    for name, tensor in state.items():
        if name.endswith("running_var"):
            state[name] = tensor.square() + 0.5
    return found, state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_image_and_gradient_are_the_original_codes(tmp_path, prefix):
    found, state = state_dict()
    torch.save({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "netG.pth")
    generator = load(tmp_path / "netG.pth")
    assert (generator.resolution, generator.z_dim, generator.num_ws) == (64, 20, 1)
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws) - 1, seeded("ws", 2, 1, 20))
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4


def test_a_discriminator_is_not_taken_for_a_generator(tmp_path):
    state = {"main.0.weight": torch.zeros(64, 3, 4, 4), "main.3.running_mean": torch.zeros(128)}
    torch.save(state, tmp_path / "netD.pth")
    with pytest.raises(UserError, match="no generator known here; it begins with main"):
        load(tmp_path / "netD.pth")
