"""StyleGAN2 against rosinality's and NVIDIA's code.

How the references were made, on the CPU in float32, with state dicts filled by `seeded_state` with
the RULES and KINK here, and the seeded styles, noise and latents that are here:

* rosinality: github rosinality/stylegan2-pytorch at bef283a, `Generator(size, style_dim, n_mlp)`:
  (32, 24, 2) with its channels set to 48, 40, 32, 24, and (1024, 512, 8) as published; its own
  native paths of the custom operations.
* nvidia: github NVlabs/stylegan3 at c233a91, `networks_stylegan2.Generator` with z 20, w 24,
  5 classes, resolution 32, channel_base 512, channel_max 24, a two-layer mapping and
  conv_clamp 2; ref implementations of the custom operations, noise_mode="const".
"""

import pytest
import torch
from nvidia_pickles import modules_from, write_pickle
from seeded import image_and_grad, reference, relative_error, seeded, seeded_state

from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.generators.base import save

ROSINALITY = {
    "kernel": (0.0, 0.0),
    "noise.weight": (0.2, 0.0),
    **{f"style.{i}.weight": (100.0, 0.0) for i in range(1, 9)},
    **{f"style.{i}.bias": (10.0, 0.0) for i in range(1, 9)},
    "modulation.bias": (0.3, 1.0),
    "to_rgb1.bias": (0.1, 0.0),
    **{f"to_rgbs.{i}.bias": (0.1, 0.0) for i in range(8)},
    "bias": (0.1, 0.0),
}
EVEN = {"modulation.weight": (0.1, 0.0), "modulation.bias": (0.05, 1.0)}
"""Styles that vary little, for the 1024² case: they would bring the mean of the kernels back."""
NVIDIA = {
    "resample_filter": (0.0, 0.0),
    "noise_strength": (0.2, 0.0),
    "fc0.weight": (100.0, 0.0),
    "fc1.weight": (100.0, 0.0),
    "fc0.bias": (10.0, 0.0),
    "fc1.bias": (10.0, 0.0),
    "affine.bias": (0.3, 1.0),
    "bias": (0.1, 0.0),
}
KINK = {"small": 0.0, "full": 4.0, "nvidia": 0.0}


def fir(shape):
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps).expand(shape) / 64


def rosinality_tensors(layout, case):
    rules = {**EVEN, **ROSINALITY, **EVEN} if case == "full" else ROSINALITY
    return seeded_state(layout, rules, KINK[case])


def rosinality_state(case):
    found = reference("stylegan2", case)
    state = rosinality_tensors(found["layout"], case)
    for name, tensor in state.items():
        if name.endswith("kernel"):
            state[name] = 4 * fir(tensor.shape)
    return found, state


def nvidia_module():
    found = reference("stylegan2", "nvidia")
    layout = found["layout"]
    state = seeded_state(layout["tensors"], NVIDIA)
    for name, tensor in state.items():
        if name.endswith("resample_filter"):
            state[name] = fir(tensor.shape)
    return found, modules_from(layout["modules"], state)


def inputs(generator, batch):
    ws = seeded("ws", batch, generator.num_ws, generator.w_dim)
    shapes = enumerate(generator.noise_shapes)
    return ws, [seeded(f"noise{i}", batch, 1, *shape) for i, shape in shapes]


@pytest.mark.parametrize(("case", "batch"), [("small", 2), ("full", 1)])
def test_image_gradient_and_mapping_are_rosinalitys(tmp_path, case, batch):
    found, state = rosinality_state(case)
    mean = torch.zeros(state["input.input"].shape[1] if case == "full" else 24)
    torch.save({"g_ema": state, "latent_avg": mean}, tmp_path / "file.pt")
    generator = load(tmp_path / "file.pt")
    ws, noise = inputs(generator, batch)
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws, noise) - 1, ws)
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4
    w = generator.mapping(seeded("z", 3, generator.z_dim))[:, 1]
    assert relative_error(w[:, :: max(1, w.shape[1] // 32)], found["w"]) < 1e-4


@pytest.mark.parametrize("protocol", [3, 4])
def test_image_gradient_and_mapping_are_nvidias(tmp_path, protocol):
    found, module = nvidia_module()
    write_pickle(tmp_path / "file.pkl", {"G": None, "D": None, "G_ema": module}, protocol)
    generator = load(tmp_path / "file.pkl", class_index=3)
    assert generator.notes == ()
    ws, _ = inputs(generator, 2)
    ours = image_and_grad(lambda ws: 2 * generator.synthesis(ws) - 1, ws)
    assert relative_error(ours["image"], found["image"]) < 1e-4
    assert relative_error(ours["grad"], found["grad"]) < 1e-4
    w = generator.mapping(seeded("z", 3, generator.z_dim))[:, 1]
    assert relative_error(w, found["w"]) < 1e-4


def test_a_class_must_be_chosen_and_can_be_changed_after_converting(tmp_path):
    _, module = nvidia_module()
    write_pickle(tmp_path / "file.pkl", {"G_ema": module})
    with pytest.raises(UserError, match="5 classes; choose one of 0 to 4"):
        load("stylegan2", weights=tmp_path / "file.pkl")
    with pytest.raises(UserError, match="5 classes; choose one of 0 to 4"):
        load(tmp_path / "file.pkl", class_index=5)
    fourth = load(tmp_path / "file.pkl", class_index=4)
    save(fourth, tmp_path / "file.safetensors")
    z = seeded("z", 1, fourth.z_dim)
    assert torch.equal(load(tmp_path / "file.safetensors").mapping(z), fourth.mapping(z))
    first = load(tmp_path / "file.safetensors", class_index=0)
    assert torch.equal(first.mapping(z), load(tmp_path / "file.pkl", class_index=0).mapping(z))
    assert not torch.equal(first.mapping(z), fourth.mapping(z))


def test_the_mean_is_the_files_or_estimated(tmp_path):
    _, state = rosinality_state("small")
    mean = seeded("mean", 24)
    torch.save({"g_ema": state, "latent_avg": mean}, tmp_path / "with.pt")
    torch.save({"g_ema": state}, tmp_path / "without.pt")
    assert torch.equal(load(tmp_path / "with.pt").w_mean, mean)
    estimated = load(tmp_path / "without.pt")
    assert "estimated" in " ".join(estimated.notes)
    draws = estimated.mapping(seeded("z", 20_000, estimated.z_dim))[:, 0]
    assert (estimated.w_mean - draws.mean(0)).abs().max() < 0.05 * draws.std()


def test_its_own_noise_is_the_files(tmp_path):
    _, state = rosinality_state("small")
    torch.save(state, tmp_path / "file.pt")
    generator = load(tmp_path / "file.pt")
    assert torch.equal(generator.own_noise(3), state["noises.noise_3"])
    torch.save({n: t for n, t in state.items() if "noises" not in n}, tmp_path / "none.pt")
    assert "no noise maps" in " ".join(load(tmp_path / "none.pt").notes)
