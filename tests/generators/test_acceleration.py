import copy

import pytest
import torch
import torch.nn.functional as F

from pulse_exp.benchmark.networks import fill
from pulse_exp.generators.acceleration import Accelerated, accelerate
from pulse_exp.generators.base import Generator, freeze
from pulse_exp.generators.mobile_stylegan import MobileStyleGAN
from pulse_exp.generators.stylegan1 import StyleGAN1
from pulse_exp.generators.toy import ToyGenerator


def build(name: str) -> Generator:
    """Narrow networks at 32² with random weights."""
    generator = {
        "mobile_stylegan": lambda: MobileStyleGAN([32, 32, 16], z_dim=32, mapping_layers=2),
        "stylegan1": lambda: StyleGAN1([32, 32, 16, 16], 32, 32, mapping_widths=[32, 32]),
        "toy": lambda: ToyGenerator(32),
    }[name]()
    if name != "toy":
        fill(generator)
    return freeze(generator)


def image_loss_gradient(generator: Generator, batch: int = 2):
    rng = torch.Generator().manual_seed(1)
    ws = torch.randn(batch, generator.num_ws, generator.w_dim, generator=rng).requires_grad_()
    image = generator.synthesis(ws)
    assert image.dtype == torch.float32
    loss = (F.avg_pool2d(image, 8) - 0.5).square().mean()
    return image.detach(), loss.detach(), torch.autograd.grad(loss, ws)[0]


@pytest.mark.parametrize("name", ["mobile_stylegan", "stylegan1", "toy"])
def test_bf16_stays_near_float32(name: str):
    """The stated tolerance: image 3 %, loss 3 %, gradient's direction 0.99."""
    exact = build(name)
    image, loss, gradient = image_loss_gradient(exact)
    half_image, half_loss, half_gradient = image_loss_gradient(accelerate(exact, "bf16"))
    assert 1e-5 < (half_image - image).norm() / image.norm() < 0.03
    assert half_loss == pytest.approx(loss.item(), rel=0.03)
    assert half_gradient.dtype == torch.float32
    assert F.cosine_similarity(half_gradient.flatten(), gradient.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", ["mobile_stylegan", "stylegan1", "toy"])
def test_activations_stay_in_bf16(name: str):
    """Otherwise half of the memory that bf16 is to save is moved after all."""
    generator = accelerate(build(name), "bf16")
    kinds = []
    inner = generator.generator
    layers = {
        "mobile_stylegan": lambda: list(inner.blocks),
        "stylegan1": lambda: list(inner.layers),
        "toy": lambda: list(inner.convs),
    }[name]()
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, out: kinds.append(out.dtype))
    generator.synthesis(torch.zeros(1, generator.num_ws, generator.w_dim))
    assert set(kinds) == {torch.bfloat16}


@pytest.mark.parametrize("name", ["mobile_stylegan", "stylegan1", "toy"])
def test_compiled_equals_eager(name: str):
    exact = build(name)
    compiled = Accelerated(exact, "float32", True, backend="eager")
    for ours, theirs in zip(image_loss_gradient(compiled), image_loss_gradient(exact), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_it_says_what_the_generator_says_and_a_copy_stands_alone():
    exact = build("stylegan1")
    fast = Accelerated(exact, "bf16", True, backend="eager")
    for name in ("architecture", "config", "resolution", "num_ws", "noise_shapes", "z_dim"):
        assert getattr(fast, name) == getattr(exact, name)
    z = torch.randn(2, 32)
    assert torch.equal(fast.mapping(z), exact.mapping(z))
    twin = copy.deepcopy(fast)
    twin.generator.to_rgb.bias.data += 1
    ws = torch.zeros(1, fast.num_ws, fast.w_dim)
    assert not torch.allclose(twin.synthesis(ws), accelerate(exact, "bf16").synthesis(ws))


def test_hooks_act_although_compiled():
    fast = Accelerated(build("stylegan1"), "float32", True, backend="eager")
    ws = torch.zeros(1, fast.num_ws, fast.w_dim)
    before = fast.synthesis(ws)
    layer = fast.generator.layers[0]
    hook = layer.register_forward_hook(lambda module, inputs, out: out + torch.randn_like(out))
    assert not torch.allclose(fast.synthesis(ws), before)
    hook.remove()
    assert torch.equal(fast.synthesis(ws), before)


def test_by_default_the_generator_is_itself():
    generator = build("toy")
    assert accelerate(generator) is generator
