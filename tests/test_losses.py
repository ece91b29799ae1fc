from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_exp.building import build, build_downscaler, build_objective
from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.losses import (
    L1,
    L2,
    ConstrainedL2,
    GaussianLikelihood,
    Huber,
    Lp,
    Lpips,
    MultiScale,
    PixelLoss,
)
from tests.compose import SMALL, job
from tests.points import point

RNG = torch.Generator().manual_seed(0)
SR_LR = torch.rand(3, 3, 8, 8, generator=RNG)
LR = torch.rand(3, 3, 8, 8, generator=RNG)
D = (SR_LR - LR).double().numpy()
POINT = point(SR_LR, LR)


def rows(values: np.ndarray) -> list[float]:
    return [float(v.mean()) for v in values]


def pyramid(d: np.ndarray) -> list[float]:
    """Mean square of a row's differences over blocks of 1, 2 and 4 pixels, averaged."""
    found = []
    for k in (1, 2, 4):
        blocks = d.reshape(3, 8 // k, k, 8 // k, k).mean(axis=(2, 4))
        found.append((blocks**2).mean())
    return float(np.mean(found))


REFERENCES = {
    "l2": (L2(1.0, "none"), rows(D**2)),
    "l1": (L1(1.0, "none"), rows(np.abs(D))),
    "huber": (
        Huber(1.0, "none", 0.2),
        rows(np.where(np.abs(D) < 0.2, D**2 / 2, 0.2 * (np.abs(D) - 0.1))),
    ),
    "lp": (Lp(1.0, "none", 1.3), rows(np.abs(D) ** 1.3)),
    "multi_scale": (MultiScale(1.0, 3), [pyramid(d) for d in D]),
    "likelihood": (
        GaussianLikelihood(10.0),
        [float((d**2).sum() / (2 * (10 / 255) ** 2)) for d in D],
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_losses_equal_numpy_one_value_a_row(name: str):
    loss, expected = REFERENCES[name]
    np.testing.assert_allclose(loss(POINT, {}), expected, rtol=1e-5)


def test_huber_equals_torch():
    theirs = F.huber_loss(SR_LR, LR, delta=0.1, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(Huber(1.0, "none", 0.1)(POINT, {}), theirs)


def test_scales_that_do_not_fit_are_left_out():
    torch.testing.assert_close(MultiScale(1.0, 99)(POINT, {}), MultiScale(1.0, 4)(POINT, {}))


@pytest.mark.parametrize(
    "loss", [L2(1.0, "eps"), L1(1.0, "eps"), Huber(1.0, "eps", 0.01), Lp(1.0, "eps", 1.5)]
)
def test_within_eps_the_gradient_vanishes(loss: PixelLoss):
    """A uniform difference just below sqrt(eps) has no gradient, one just above it has."""
    eps = 4e-4
    low = torch.zeros(2, 3, 4, 4)
    sr_lr = low + torch.tensor([0.0199, 0.0201]).view(2, 1, 1, 1)
    sr_lr.requires_grad_(True)
    value = loss(point(sr_lr, low, eps=eps), {})
    gradient = torch.autograd.grad(value.sum(), sr_lr)[0].flatten(1).abs().sum(1)
    assert gradient[0] == 0
    assert gradient[1] > 0
    assert float(value[0].detach()) == pytest.approx(
        float(loss.penalty(torch.tensor(eps**0.5))), rel=1e-5
    )


def test_lp_has_a_finite_gradient_at_zero():
    sr_lr = torch.zeros(1, 3, 4, 4, requires_grad=True)
    value = Lp(1.0, "none", 0.5)(point(sr_lr, torch.zeros(1, 3, 4, 4)), {})
    assert torch.autograd.grad(value.sum(), sr_lr)[0].isfinite().all()


def test_the_face_counts_for_more_in_the_value_and_not_in_the_constraint():
    loss = ConstrainedL2(start=0.1, rate=0.5, aim=1.0, attended=0.3)
    sr_lr, low = torch.rand(2, 2, 3, 4, 4, generator=RNG)
    counts = torch.rand(2, 1, 4, 4, generator=RNG)
    alike = point(sr_lr, low)
    near = replace(alike, counts=counts)
    state = loss.start({"latent": torch.zeros(2, 1, 4)})
    squares = (sr_lr - low).square().numpy()
    expected = 0.1 * (counts.numpy() * squares).mean((1, 2, 3)) / 1e-3
    np.testing.assert_allclose(loss(near, state), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(alike, state), 0.1 * squares.mean((1, 2, 3)) / 1e-3, rtol=1e-5)
    assert torch.equal(
        loss.update(near, state)["multiplier"], loss.update(alike, state)["multiplier"]
    )


@pytest.mark.parametrize("aim", [1, 0.25])
def test_the_multiplier_of_each_row_follows_its_own_constraint(aim: float):
    loss = ConstrainedL2(start=0.1, rate=0.5, aim=aim, attended=0)
    low, level = torch.zeros(3, 3, 4, 4), 1e-3
    errors = [1e-4, 1e-1, 1.5e-3]
    near = point(low + torch.tensor(errors).sqrt().view(3, 1, 1, 1), low, eps=level / aim)
    state = loss.start({"latent": torch.zeros(3, 1, 4)})
    np.testing.assert_allclose(loss(near, state), [0.1 * e / level for e in errors], rtol=1e-5)
    after = loss.update(near, loss.update(near, state))
    steps = np.array([-1, 1, np.log(1.5)])  # far below, far above, near
    np.testing.assert_allclose(after["multiplier"], 0.1 * np.exp(2 * 0.5 * steps), rtol=1e-5)


def test_the_multiplier_does_not_follow_noise():
    """Noise of a variance above eps is a constraint that holds; an edge of that power is not."""
    loss = ConstrainedL2(start=0.1, rate=0.5, aim=1.0, attended=0)
    noise = 0.1 * torch.randn(1, 3, 32, 32, generator=RNG)
    edge = 0.1 * torch.ones(1, 3, 32, 32)
    edge[..., 16:] = -0.1
    near = point(torch.cat([noise, edge]), torch.zeros(2, 3, 32, 32), eps=1e-3)
    state = loss.start({"latent": torch.zeros(2, 1, 4)})
    after = loss.update(near, state)["multiplier"] / 0.1
    assert float(after[0]) == pytest.approx(1, abs=0.1)
    assert float(after[1]) == pytest.approx(np.exp(0.5))
    measurements = loss.update(replace(near, is_image=False), state)["multiplier"] / 0.1
    np.testing.assert_allclose(measurements, np.exp([0.5, 0.5]), rtol=1e-5)


def test_a_weighted_sum_of_named_terms():
    config, words = job(
        *SMALL, "latent=w", "latent.statistics_draws=1000", "prior=none", "loss=[l2,l1]",
        "loss.l2.weight=3", "loss.l1.weight=0.5",
    )  # fmt: skip
    assert words["loss"] == "l2+l1"
    generator = load("toy")
    objective = build_objective(config, generator, build_downscaler(config, 8, 64))
    variables = objective.latent.mean(2)
    low = torch.rand(2, 3, 8, 8, generator=RNG)
    found = objective({"lr": low, "constants": {}, "terms": objective.start(variables)}, variables)
    difference = (found.sr_lr - low).flatten(1)
    expected = 3 * difference.square().mean(1) + 0.5 * difference.abs().mean(1)
    torch.testing.assert_close(found.total, expected)


def test_a_perceptual_loss_without_its_network_is_refused(monkeypatch: pytest.MonkeyPatch):
    import torchmetrics.image.lpip as lpip

    def missing(**_: object) -> None:
        raise ModuleNotFoundError("no torchvision here")

    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", missing)
    with pytest.raises(UserError, match="loss=lpips cannot be loaded: no torchvision here"):
        build(job(*SMALL, "loss=lpips")[0].loss.lpips).prepare(load("toy"))


def test_a_perceptual_loss_gives_the_networks_value_of_the_enlarged_pair():
    class Network:
        def __call__(self, a: torch.Tensor, b: torch.Tensor, normalize: bool) -> torch.Tensor:
            assert a.shape == b.shape == (3, 3, 64, 64)
            return (a - b).abs().mean((1, 2, 3), keepdim=True)

    loss = Lpips(1.0)
    loss.network = Network()
    assert loss(POINT, {}).shape == (3,)
    torch.testing.assert_close(loss(point(LR, LR), {}), torch.zeros(3))
