"""StyleGAN3 against NVIDIA's code.

How the references were made: github NVlabs/stylegan3 at c233a91, `networks_stylegan3.Generator`
with its ref implementations of the custom operations, on the CPU in float32, its state dict filled
by `seeded_state` with RULES where the rule is not None and else left as its constructor makes it
(the filters; the frequencies are stored). Both small ones have z 20, w 24, resolution 32,
channel_base 512, channel_max 20, num_layers 7 and conv_clamp 3.

* t: as published, 4 classes; r: conv_kernel 1, use_radial_filters, no classes.
* full: the published configuration t at 1024², with its image alone (checked on request: set
  PULSE_EXP_SLOW_TESTS).
"""

import os

import numpy as np
import pytest
import torch
from nvidia_pickles import modules_from, write_pickle
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state, thinned

from pulse_exp.generators import load
from pulse_exp.generators.base import save

RULES = {
    "_filter": (0.0, 0.0),
    "transform": (0.0, 0.0),
    "freqs": (0.0, 0.0),
    "magnitude_ema": (0.1, 1.0),
    "fc0.weight": (100.0, 0.0),
    "fc1.weight": (100.0, 0.0),
    "fc0.bias": (10.0, 0.0),
    "fc1.bias": (10.0, 0.0),
    "input.affine.weight": (0.3, 0.0),
    "input.affine.bias": (1.0, 0.0),
    "affine.bias": (0.3, 1.0),
    "bias": (0.3, 0.0),
}


def write(path, case):
    found = reference("stylegan3", case)
    layout = found["layout"]
    state = seeded_state(layout["tensors"], RULES)
    for name in state:
        if f"kept.{name}" in found:
            state[name] = torch.from_numpy(found[f"kept.{name}"])
        elif name.endswith("_filter"):
            key = found["layout"]["filters"][name]
            state[name] = torch.from_numpy(found[f"filter.{key}"])
    for attributes in layout["modules"].values():
        for name in ("size", "in_size", "out_size"):
            if name in attributes:
                attributes[name] = np.array(attributes[name])
    write_pickle(path, {"G_ema": modules_from(layout["modules"], state)})
    return found


@pytest.mark.parametrize(("case", "class_index"), [("t", 2), ("r", None)])
def test_image_gradient_and_mapping_are_nvidias(tmp_path, case, class_index):
    found = write(tmp_path / "file.pkl", case)
    generator = load(tmp_path / "file.pkl", class_index=class_index)
    assert (generator.resolution, generator.num_ws, generator.noise_shapes) == (32, 9, ())
    ws = seeded("ws", 2, generator.num_ws, generator.w_dim)
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws) - 1, ws)
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4
    w = generator.mapping(seeded("z", 3, generator.z_dim))[:, 1]
    assert relative_error(w, found["w"]) < 1e-4


@pytest.mark.skipif("PULSE_EXP_SLOW_TESTS" not in os.environ, reason="a minute of computing")
def test_the_full_size_image_is_nvidias(tmp_path):
    found = write(tmp_path / "file.pkl", "full")
    generator = load("stylegan3", weights=tmp_path / "file.pkl")
    ws = seeded("ws", 1, generator.num_ws, generator.w_dim)
    with torch.no_grad():
        image = 2 * generator.synthesis(ws) - 1
    assert relative_error(thinned(image, ws)["image"], found["image"]) < 1e-4


def test_converted_it_is_the_same_generator(tmp_path):
    write(tmp_path / "file.pkl", "r")
    generator = load(tmp_path / "file.pkl")
    save(generator, tmp_path / "file.safetensors")
    z = seeded("z", 1, generator.z_dim)
    assert torch.equal(load(tmp_path / "file.safetensors")(z), generator(z))
