"""StyleGAN1 against the released PULSE code (github adamian98/pulse at 40cacb9).

How the references were made: `G_synthesis` (resolution 256 with fmap_base 512 and dlatent_size 32;
then its defaults, 1024 with 512 styles) and `G_mapping`, on the CPU, the small one in float64 and
the others in float32, their state dicts filled by `seeded_state` with RULES and KINK (the blur
kernels stay the original's), called with the seeded styles and noise that are here.
"""

import pytest
import torch
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state

from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.generators.base import save

RULES = {
    "noise.weight": (0.2, 0.0),
    "kernel": (0.0, 0.0),
    "lin.bias": (0.2, 0.0),
    "dense0.weight": (100.0, 0.0),
    **{f"dense{i}.weight": (100.0, 0.0) for i in range(1, 8)},
    **{f"dense{i}.bias": (10.0, 0.0) for i in range(8)},
    "torgb.bias": (0.1, 0.0),
    "bias": (0.1, 0.0),
}
KINK = 12.0


def write(folder, case, w_dim=None, kink=0.0):
    """Writes `synthesis.pt`, whose weights are the reference's at `kink=KINK`; `w_dim` makes styles
    of another size."""
    found = reference("stylegan1", case)
    for name, shape in found["layout"].items():
        if w_dim and name.endswith("lin.weight"):
            shape[1] = w_dim
    torch.save(seeded_state(found["layout"], RULES, kink), folder / "synthesis.pt")
    return found


def write_mapping(folder):
    found = reference("stylegan1", "mapping")
    torch.save(seeded_state(found["layout"], RULES), folder / "mapping.pt")
    return found


def inputs(generator, batch):
    ws = seeded("ws", batch, generator.num_ws, generator.w_dim)
    shapes = enumerate(generator.noise_shapes)
    return ws, [seeded(f"noise{i}", batch, 1, *shape) for i, shape in shapes]


@pytest.mark.parametrize(("case", "batch"), [("small", 2), ("full", 1)])
def test_image_and_gradient_are_the_original_codes(tmp_path, case, batch):
    found = write(tmp_path, case, kink=KINK)
    generator = load(tmp_path / "synthesis.pt")
    ws, noise = inputs(generator, batch)
    side = generator.resolution
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws, noise) - 1, ws, probe_side=side)
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4


def test_mapping_is_the_original_codes(tmp_path):
    write(tmp_path, "small", w_dim=512)
    found = write_mapping(tmp_path)
    generator = load("stylegan1", weights=tmp_path)
    w = generator.mapping(seeded("z", 3, 512))
    assert w.shape == (3, 14, 512)
    assert relative_error(w[:, 5, ::8], found["w"]) < 1e-4


def test_either_file_or_the_folder_will_do(tmp_path):
    write(tmp_path, "small", w_dim=512)
    write_mapping(tmp_path)
    first, second = (load(tmp_path / name) for name in ("synthesis.pt", "mapping.pt"))
    z = seeded("z", 1, 512)
    assert torch.equal(first.mapping(z), second.mapping(z))
    assert relative_error(first.w_mean, first.mapping(seeded("z", 5_000, 512))[:, 0].mean(0)) < 0.2


def test_what_the_files_lack_is_said(tmp_path, caplog):
    write(tmp_path, "small")
    generator = load(tmp_path)
    assert "no mapping network" in caplog.text
    assert "no noise maps" in caplog.text
    assert generator.w_mean is None
    with pytest.raises(UserError, match="no mapping network"):
        generator.mapping(seeded("z", 1, 32))


def test_a_mapping_alone_is_no_generator(tmp_path):
    write_mapping(tmp_path)
    with pytest.raises(UserError, match=r"put synthesis\.pt beside it"):
        load(tmp_path / "mapping.pt")


def test_converted_it_is_the_same_generator(tmp_path):
    write(tmp_path, "small")
    generator = load(tmp_path)
    save(generator, tmp_path / "one.safetensors")
    again = load(tmp_path / "one.safetensors")
    assert again.notes == generator.notes
    ws, _ = inputs(generator, 1)
    assert torch.equal(again.synthesis(ws), generator.synthesis(ws))


def test_its_own_noise_is_what_it_uses(tmp_path):
    write(tmp_path, "small")
    generator = load(tmp_path)
    ws, noise = inputs(generator, 1)
    own = [generator.own_noise(i) for i in range(len(generator.noise_shapes))]
    assert torch.equal(generator.synthesis(ws, own), generator.synthesis(ws))
    assert not torch.equal(generator.synthesis(ws, noise), generator.synthesis(ws))
