import numpy as np
import pytest
import torch
from torch import Tensor

from pulse_exp.generators import load
from pulse_exp.generators.acceleration import accelerate
from pulse_exp.latents import WhitenedWPlus
from pulse_exp.seeding import random_generator
from pulse_exp.sensitivity import Sensitivity, low_res_sensitivity, measure

TOY = load("toy")
SPACE = WhitenedWPlus(TOY, 2000, released=0.0)


def low_res(coordinates: Tensor) -> Tensor:
    """Means over blocks of 2: 32 pixels a side."""
    return TOY.synthesis(SPACE.ws_at(coordinates)).view(3, 32, 2, 32, 2).mean((2, 4))


def test_the_measure_is_the_mean_of_squared_gradients():
    rng, total = random_generator("sensitivity"), 0
    for _ in range(3):
        u = torch.randn(1, 1, 32, generator=rng).repeat(1, TOY.num_ws, 1)
        jacobian = torch.autograd.functional.jacobian(low_res, u)
        noise = torch.randn(1, 3, 32, 32, generator=rng)
        g = np.tensordot(noise[0].double().numpy(), jacobian.double().numpy(), 3)[0]
        g = np.concatenate([g, g.sum(0, keepdims=True)])
        total = total + np.einsum("li,lj->lij", g, g) / (3 * 3072)
    found = measure(TOY, SPACE.ws_at, 3)
    q, s = found.directions.double().numpy(), found.strengths.double().numpy()
    np.testing.assert_allclose(
        np.einsum("lik,lk,ljk->lij", q, s, q), total, rtol=1e-3, atol=1e-5 * total.max()
    )
    np.testing.assert_allclose(np.einsum("lki,lkj->lij", q, q), [np.eye(32)] * len(q), atol=1e-5)


def test_strengths_are_what_a_small_step_changes():
    found = measure(TOY, SPACE.ws_at, 300)
    step = 1e-2 * found.directions[-1, :, -1]
    changes = []
    for seed in range(40):
        u = torch.randn(1, 1, 32, generator=random_generator(seed)).repeat(1, TOY.num_ws, 1)
        with torch.no_grad():
            changes.append(float((low_res(u + step) - low_res(u)).square().mean()) / 1e-4)
    assert np.mean(changes) == pytest.approx(float(found.strengths[-1, -1]), rel=0.3)


def test_it_is_measured_once_and_in_float32(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path))

    def found() -> Sensitivity:
        return low_res_sensitivity(accelerate(TOY, "bf16"), SPACE.ws_at, 2, "whitened")

    made = found()
    torch.testing.assert_close(made.strengths, measure(TOY, SPACE.ws_at, 2).strengths)
    monkeypatch.setattr("pulse_exp.sensitivity.measure", None)
    assert torch.equal(found().directions, made.directions)
