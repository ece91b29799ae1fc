from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pulse_exp.optimizers import (
    LBFGS,
    SGD,
    Adam,
    Adamax,
    Langevin,
    NormalisedGradientDescent,
    Optimizer,
)
from pulse_exp.rows import select

OPTIMIZERS: dict[str, Callable[[bool], Optimizer]] = {
    "adam": lambda sphere: Adam(0.1, (0.9, 0.99), 1e-8, sphere),
    "adamax": lambda sphere: Adamax(0.1, (0.9, 0.99), 1e-8, sphere),
    "sgd": lambda sphere: SGD(0.05, 0.0, sphere),
    "momentum": lambda sphere: SGD(0.02, 0.9, sphere),
    "normalised": lambda sphere: NormalisedGradientDescent(0.05, sphere),
    "lbfgs": lambda sphere: LBFGS(0.3, 4, sphere),
    "langevin": lambda sphere: Langevin(0.01, 1.0, 1.0, 0.0, sphere),
}
THEIRS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99)),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.1, betas=(0.9, 0.99)),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "lbfgs": lambda p: torch.optim.LBFGS(
        p, lr=0.3, max_iter=1, history_size=4, tolerance_grad=0, tolerance_change=0
    ),
}
START = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TARGET = torch.linspace(-1, 1, 10, dtype=torch.float64).view(2, 5)


def loss(x: Tensor) -> Tensor:
    """A curved valley, one value a row."""
    curvature = torch.linspace(0.2, 3, 10, dtype=x.dtype).view(2, 5)
    return (curvature * (x - TARGET).square() + 0.1 * (x - TARGET) ** 4).flatten(1).sum(1)


def run(optimizer: Optimizer, start: Tensor, steps: int, rows: list[int]) -> Tensor:
    x = {"latent": start}
    state = optimizer.start(x)
    for step in range(steps):
        value = x["latent"].detach().requires_grad_(True)
        gradient = torch.autograd.grad(loss(value).sum(), value)[0]
        rngs = [torch.Generator().manual_seed(1000 * row + step) for row in rows]
        state = optimizer.redraw(state, rngs, [step / steps] * len(rows))
        rates = {"latent": torch.ones(len(start), dtype=start.dtype)}
        x, state = optimizer.step({"latent": value.detach()}, {"latent": gradient}, state, rates)
    return x["latent"]


@pytest.mark.parametrize("name", THEIRS)
def test_each_row_equals_torch_optim(name: str):
    ours = run(OPTIMIZERS[name](False), START, 12, [0, 1, 2])
    for row, start in enumerate(START):
        x = start.clone().requires_grad_(True)
        theirs = THEIRS[name]([x])

        def closure(x: Tensor = x, theirs: torch.optim.Optimizer = theirs) -> Tensor:
            theirs.zero_grad()
            value = loss(x[None]).sum()
            value.backward()
            return value

        for _ in range(12):
            theirs.step(closure)
        torch.testing.assert_close(ours[row], x.detach(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("sphere", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_batch_equals_its_rows_alone_and_the_sphere_keeps_norms(name: str, sphere: bool):
    together = run(OPTIMIZERS[name](sphere), START, 8, [0, 1, 2])
    for row in range(3):
        alone = run(OPTIMIZERS[name](sphere), START[row : row + 1], 8, [row])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(together, START)
    if sphere:
        torch.testing.assert_close(together.norm(dim=-1), START.norm(dim=-1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_zero_changes_nothing(name: str):
    optimizer = OPTIMIZERS[name](False)
    state = optimizer.start({"latent": START})
    rates = {"latent": torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)}
    gradient = {"latent": torch.ones_like(START)}
    moved, after = optimizer.step({"latent": START}, gradient, state, rates)
    resting = torch.tensor([0, 2])
    torch.testing.assert_close(moved["latent"][resting], START[resting])
    assert not torch.equal(moved["latent"][1], START[1])
    for key, value in select(after, resting)["latent"].items():
        torch.testing.assert_close(value, select(state, resting)["latent"][key])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_units_are_a_change_of_variables(name: str):
    """x moves as unit * y does when y is what the same rule minimises the loss over."""
    unit = torch.linspace(0.1, 1, 10, dtype=START.dtype).view(2, 5)
    x, y = {"latent": START}, {"latent": START / unit}
    optimizer = OPTIMIZERS[name](False)
    states = [optimizer.start(x), optimizer.start(y)]
    rates = {"latent": torch.ones(3, dtype=START.dtype)}
    for step in range(5):
        gradient = slope(x["latent"])
        scaled = slope(y["latent"] * unit) * unit
        rngs = [[torch.Generator().manual_seed(10 * step + row) for row in range(3)] for _ in "xy"]
        states = [optimizer.redraw(s, r, [step / 5] * 3) for s, r in zip(states, rngs, strict=True)]
        x, states[0] = optimizer.step(x, {"latent": gradient}, states[0], rates, {"latent": unit})
        y, states[1] = optimizer.step(y, {"latent": scaled}, states[1], rates)
    torch.testing.assert_close(x["latent"], y["latent"] * unit)


def slope(x: Tensor) -> Tensor:
    value = x.detach().requires_grad_(True)
    return torch.autograd.grad(loss(value).sum(), value)[0]


def test_normalised_descent_moves_every_vector_by_the_rate():
    optimizer = NormalisedGradientDescent(0.08, sphere=False)
    gradient = 1e-9 * torch.randn(3, 2, 5, dtype=torch.float64)
    gradient[0, 0] = 0
    new, _ = optimizer.step_one(START, gradient, {}, torch.full((3,), 0.08))
    lengths = (new - START).norm(dim=-1)
    assert lengths[0, 0] == 0
    torch.testing.assert_close(lengths[1:], torch.full((2, 2), 0.08, dtype=torch.float64))


def chain(optimizer: Langevin, start: Tensor, force: Callable[[Tensor], Tensor], steps: int):
    """Every second half's points `[steps / 2, B, n, d]` of many chains at once."""
    x, state, points = {"latent": start}, optimizer.start({"latent": start}), []
    rng = torch.Generator().manual_seed(0)
    for step in range(steps):
        noise = torch.randn(start.shape, generator=rng, dtype=start.dtype)
        scale = optimizer.temperature_at(step / steps) ** 0.5
        state["latent"]["noise"] = scale * noise
        rates = {"latent": torch.ones(len(start), dtype=start.dtype)}
        x, state = optimizer.step(x, {"latent": force(x["latent"])}, state, rates)
        if step >= steps // 2:
            points.append(x["latent"])
    return torch.stack(points)


def test_langevin_samples_a_known_gaussian_posterior():
    """Prior N(0, I), data y = A x + noise of variance s²: the posterior is Gaussian and known."""
    a = torch.tensor([[1.0, 0.5, -0.3], [0.2, -1.0, 0.4]], dtype=torch.float64)
    y, s = torch.tensor([0.7, -0.4], dtype=torch.float64), 0.5
    precision = torch.eye(3, dtype=torch.float64) + a.T @ a / s**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ a.T @ y / s**2
    start = torch.zeros(2000, 1, 3, dtype=torch.float64)

    def force(x: Tensor) -> Tensor:
        return x + (x @ a.T - y) @ a / s**2

    points = chain(Langevin(0.02, 1.0, 1.0, 0.0, False), start, force, 400).flatten(0, 2)
    torch.testing.assert_close(points.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(points.T), covariance, atol=0.03, rtol=0.06)


def test_langevin_on_the_sphere_samples_von_mises_fisher():
    """exp(κ·μᵀx) on the unit sphere in three dimensions has the mean length coth κ - 1/κ."""
    kappa, pole = 2.0, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(4000, 1, 3, generator=rng, dtype=torch.float64)
    start = start / start.norm(dim=-1, keepdim=True)
    optimizer = Langevin(0.01, 1.0, 1.0, 0.0, True)
    points = chain(optimizer, start, lambda x: -kappa * pole.expand_as(x), 400)
    assert torch.allclose(points.norm(dim=-1), torch.ones(()).double())
    expected = 1 / torch.tanh(torch.tensor(kappa)) - 1 / kappa
    assert abs(points.mean((0, 1, 2))[2] - expected) < 0.015
    assert points.mean((0, 1, 2))[:2].abs().max() < 0.03


def test_annealing_begins_hot_and_ends_at_the_temperature():
    annealed = Langevin(0.1, 2.0, hot=100.0, cooling=0.5, sphere=False)
    assert annealed.temperature_at(0) == pytest.approx(200)
    assert annealed.temperature_at(0.25) == pytest.approx(20)
    assert annealed.temperature_at(0.5) == annealed.temperature_at(0.9) == pytest.approx(2)
    assert Langevin(0.1, 2.0, 1.0, 0.0, False).temperature_at(0) == 2
