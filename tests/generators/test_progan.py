"""Progressive GAN against the code of pytorch_GAN_zoo and pro_gan_pytorch.

How the references were made, on the CPU in float32, state dicts filled by `seeded_state` with
RULES:

* gan_zoo: github facebookresearch/pytorch_GAN_zoo at b75dee4, `GNet(24, 20)` grown by scales of
  16, 12 and 8 channels.
* pro_gan: github akanimax/pro_gan_pytorch at 6206613, `Generator(depth=4, latent_size=24)` with
  `nf` giving 20, 16, 12, 8; with use_eql, and (pro_gan_plain) without.
"""

import pytest
import torch
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state

from pulse_exp.generators import load
from pulse_exp.generators.base import save

RULES = {"bias": (0.2, 0.0)}


def write(path, case):
    found = reference("progan", case)
    state = seeded_state(found["layout"], RULES)
    if case == "gan_zoo":
        contents = {"netG": {}, "avgG": state, "config": {"alpha": 0}}
    else:
        conf = {"depth": 4, "use_eql": case == "pro_gan"}
        contents = {"generator": {}, "shadow_generator": {"conf": conf, "state_dict": state}}
    torch.save(contents, path)
    return found


@pytest.mark.parametrize("case", ["gan_zoo", "pro_gan", "pro_gan_plain"])
def test_image_and_gradient_are_the_original_codes(tmp_path, case):
    found = write(tmp_path / "file.pt", case)
    generator = load(tmp_path / "file.pt")
    assert (generator.num_ws, generator.noise_shapes) == (1, ())
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws) - 1, seeded("ws", 2, 1, 24))
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4


def test_converted_it_is_the_same_generator(tmp_path):
    write(tmp_path / "file.pt", "gan_zoo")
    generator = load("progan", weights=tmp_path / "file.pt")
    save(generator, tmp_path / "file.safetensors")
    z = seeded("z", 2, generator.z_dim)
    assert torch.equal(load(tmp_path / "file.safetensors")(z), generator(z))


def test_gan_zoos_config_object_is_read_without_its_class(tmp_path, monkeypatch):
    state = seeded_state(reference("progan", "gan_zoo")["layout"], RULES)
    config_class = type("BaseConfig", (), {"__module__": "models.utils.config"})
    modules = dict.fromkeys(("models", "models.utils"), torch.nn)
    modules["models.utils.config"] = type("module", (), {"BaseConfig": config_class})
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    config = config_class()
    config.alpha = 0.5
    torch.save({"avgG": state, "config": config}, tmp_path / "file.pth")
    monkeypatch.undo()
    assert "alpha 0.5" in load(tmp_path / "file.pth").notes[0]
