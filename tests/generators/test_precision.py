"""bfloat16 and channels_last against float32 and contiguous tensors, at small sizes."""

import pytest
import test_dcgan
import test_mobile_upstream
import test_progan
import test_stylegan1
import test_stylegan2
import test_stylegan3
import torch
from nvidia_pickles import write_pickle
from seeded import reference, seeded, seeded_state

from pulse_exp.generators import load


def small(kind, folder):
    """A small generator of that kind with seeded weights."""
    options = {}
    path = folder / "synthesis.pt"
    if kind == "stylegan1":
        test_stylegan1.write(folder, "small")
    elif kind == "stylegan2":
        torch.save(test_stylegan2.rosinality_state("small")[1], path)
    elif kind == "stylegan2-clamped":
        options = {"class_index": 1}
        path = folder / "file.pkl"
        write_pickle(path, {"G_ema": test_stylegan2.nvidia_module()[1]})
    elif kind.startswith("stylegan3"):
        options = {"class_index": 1} if kind.endswith("t") else {}
        path = folder / "file.pkl"
        test_stylegan3.write(path, kind[-1])
    elif kind == "progan":
        test_progan.write(path, "gan_zoo")
    elif kind == "dcgan":
        torch.save(test_dcgan.state_dict()[1], path)
    else:
        layout = reference("mobile_upstream", "small")["layout"]
        torch.save({"state_dict": seeded_state(layout, test_mobile_upstream.RULES)}, path)
    return load(path, **options)


KINDS = [
    "stylegan1",
    "stylegan2",
    "stylegan2-clamped",
    "stylegan3-t",
    "stylegan3-r",
    "progan",
    "dcgan",
    "mobile_stylegan",
]


def cosine(ours, theirs):
    return float(torch.nn.functional.cosine_similarity(ours.float().flatten(), theirs.flatten(), 0))


def error(ours, theirs):
    """Root mean square difference over the spread."""
    return float((ours.float() - theirs).square().mean().sqrt() / theirs.std())


def image_and_grad(generator, ws, noise):
    ws = ws.clone().requires_grad_()
    image = generator.synthesis(ws, noise)
    image.float().square().mean().backward()
    return image.detach(), ws.grad


@pytest.fixture(params=KINDS)
def case(request, tmp_path):
    generator = small(request.param, tmp_path)
    ws = 0.5 * seeded("ws", 2, generator.num_ws, generator.w_dim)
    noise = [seeded(f"n{i}", 2, 1, *shape) for i, shape in enumerate(generator.noise_shapes)]
    return generator, ws, noise, image_and_grad(generator, ws, noise)


def test_bfloat16_stays_near(case):
    """Image: 6 % of its spread (root mean square); gradient: a cosine of 0.97 (0.98 with AVX)."""
    generator, ws, noise, (image, grad) = case
    generator.to(torch.bfloat16)
    found = image_and_grad(generator, ws.bfloat16(), [n.bfloat16() for n in noise])
    assert found[0].dtype == torch.bfloat16
    assert error(found[0], image) < 0.06
    assert cosine(found[1], grad) > 0.97


def test_autocast_stays_near(case):
    generator, ws, noise, (image, grad) = case
    with torch.autocast("cpu", torch.bfloat16):
        found = image_and_grad(generator, ws, noise)
    assert error(found[0], image) < 0.06
    assert cosine(found[1], grad) > 0.98


def test_channels_last_gives_the_same(case):
    generator, ws, noise, (image, grad) = case
    generator.to(memory_format=torch.channels_last)
    found = image_and_grad(generator, ws, noise)
    assert error(found[0], image) < 1e-5
    assert error(found[1], grad) < 2e-4


def test_a_batch_gives_what_singles_give(case):
    generator, ws, noise, (image, _) = case
    for i in range(2):
        one = generator.synthesis(ws[i : i + 1], [n[i : i + 1] for n in noise])
        assert error(one[0], image[i]) < 1e-5
