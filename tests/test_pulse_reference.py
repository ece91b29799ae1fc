"""The released PULSE algorithm, transcribed in a straight line, against method=pulse."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_exp.building import build, build_downscaler, build_objective
from pulse_exp.generators import load
from pulse_exp.problem import Candidate
from pulse_exp.search import LatentSearch, Settings, Start
from pulse_exp.seeding import random_generator
from pulse_exp.style_statistics import style_statistics
from tests.compose import job

FACTOR, STEPS, ROWS, EPS = 8, 12, 3, 2e-3


def bicubic_matrix(size: int, factor: int) -> np.ndarray:
    """Rows of 4·factor cubic taps (a = -0.5) over a signal mirrored at its ends."""
    matrix = np.zeros((size // factor, size))
    for row in range(size // factor):
        centre = factor * (row + 0.5)
        for tap in range(-2 * factor, 2 * factor):
            place = row * factor + factor // 2 + tap
            x = abs(place + 0.5 - centre) / factor
            weight = (
                1.5 * x**3 - 2.5 * x**2 + 1
                if x <= 1
                else (-0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0)
            )
            mirrored = -place if place < 0 else place
            mirrored = 2 * (size - 1) - mirrored if mirrored >= size else mirrored
            matrix[row, mirrored] += weight
        matrix[row] /= matrix[row].sum()
    return matrix


def released(generator, lr, latent, noise, steps: int, eps: float) -> list[list[float]]:
    """Total loss of every row at each step, as the released code computes and minimises it."""
    statistics = style_statistics(generator, 20_000)
    side = generator.resolution
    matrix = torch.tensor(bicubic_matrix(side, FACTOR), dtype=torch.float32)
    latent = latent.clone().requires_grad_(True)
    noise = [n.clone() for n in noise]
    noise[-1] = torch.zeros_like(noise[-1])
    trained = [n.requires_grad_(True) for n in noise[:5] if n is not noise[-1]]
    variables = [latent, *trained]

    def norm(x):
        return (x.pow(2).sum(tuple(range(2, x.ndim)), keepdim=True) + 1e-9).sqrt()

    first = [norm(x).detach() for x in variables]
    adam = torch.optim.Adam(variables, lr=0.4)
    curves = []
    for step in range(steps):
        ws = F.leaky_relu(latent * statistics.std + statistics.mean, 0.2)
        image = generator.synthesis(ws, noise)
        low = matrix @ image @ matrix.T
        l2 = (low - lr).pow(2).mean((1, 2, 3)).clamp(min=eps)
        x, y = ws.unsqueeze(1), ws.unsqueeze(2)
        a = ((x - y).pow(2).sum(-1) + 1e-9).sqrt()
        b = ((x + y).pow(2).sum(-1) + 1e-9).sqrt()
        geocross = ((2 * torch.atan2(a, b)).pow(2) * ws.shape[-1]).mean((1, 2)) / 8
        loss = 100 * l2 + 0.05 * geocross
        curves.append(loss.tolist())
        x = step / steps
        rate = (
            (9 * (1 - abs(x / 0.9 - 0.5) * 2) + 1) / 10
            if x < 0.9
            else 0.1 + (x - 0.9) / 0.1 * (0.001 - 0.1)
        )
        adam.param_groups[0]["lr"] = 0.4 * rate
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        with torch.no_grad():
            for variable, radius in zip(variables, first, strict=True):
                variable.mul_(radius / norm(variable))
    return np.array(curves).T.tolist()


@pytest.mark.parametrize("prior", ["none", "sphere"])
def test_method_pulse_repeats_the_released_losses(prior: str):
    """With prior=none the vectors keep the norms they were drawn with, as in the released code;
    with prior=sphere they begin at sqrt(d), as in the paper."""
    generator = load("toy", resolution=64)
    config, _ = job(
        *("generator=toy", f"downscaler.factor={FACTOR}", "method=pulse", f"prior={prior}"),
        *("latent.statistics_draws=20000", f"search.eps={EPS}"),
    )
    lr = torch.rand(ROWS, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found: dict[str, Candidate] = {}
    search = LatentSearch(
        objective=build_objective(config, generator, build_downscaler(config, FACTOR, 64)),
        optimizer=build(config.optimizer),
        schedule=build(config.schedule),
        phases=build(config.phases),
        settings=Settings(STEPS, EPS, "never", seed=0),
        waiting=iter([Start(str(i), 0, lr[i]) for i in range(ROWS)]),
        batch_size=ROWS,
        finished=lambda c: found.update({c.image: c}),
    )
    search.refill()
    while search.slots:
        search.training_step(0, 0)

    latent, noise = [], []
    for i in range(ROWS):
        rng = random_generator(0, str(i), 0, "start", 0)
        latent.append(torch.randn(generator.num_ws, generator.w_dim, generator=rng))
        noise.append([torch.randn(1, *s, generator=rng) for s in generator.noise_shapes])
    start = torch.stack(latent)
    if prior == "sphere":
        start = start / start.norm(dim=-1, keepdim=True) * generator.w_dim**0.5
    maps = [torch.stack(layer) for layer in zip(*noise, strict=True)]
    expected = released(generator, lr, start, maps, STEPS, EPS)
    for row in range(ROWS):
        curves = found[str(row)].curves
        total = np.array(curves["l2"]) + np.array(curves["geocross"])
        np.testing.assert_allclose(total[:STEPS], expected[row], rtol=2e-4)
