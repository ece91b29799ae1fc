import math

import numpy as np
import pytest
import torch

from pulse_exp.schedules import (
    Cosine,
    CosineRamped,
    Fixed,
    Linear1Cycle,
    Linear1CycleDrop,
    Phases,
    Ramped,
    Schedule,
)

N = 40


def linear1cycledrop(x: int) -> float:
    if x < 0.9 * N:
        return (9 * (1 - np.abs(x / (0.9 * N) - 1 / 2) * 2) + 1) / 10
    return 1 / 10 + (x - 0.9 * N) / (0.1 * N) * (1 / 1000 - 1 / 10)


FORMULAS = {
    "fixed": (Fixed(), lambda x: 1.0),
    "linear1cycle": (Linear1Cycle(), lambda x: (9 * (1 - np.abs(x / N - 1 / 2) * 2) + 1) / 10),
    "linear1cycledrop": (Linear1CycleDrop(), linear1cycledrop),
    "cosine": (Cosine(), lambda x: (1 + math.cos(math.pi * x / N)) / 2),
    "ramped": (
        Ramped(0.1, 0.25),
        lambda x: np.interp(x, [-1, 3, 30, N], [0, 1, 1, 0]),
    ),
    "cosine_ramped": (
        CosineRamped(0.1, 0.25),
        lambda x: (
            (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - x / N) / 0.25))) * min(1, (x + 1) / 4)
        ),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_schedules_follow_their_formulas(name: str):
    schedule, formula = FORMULAS[name]
    ours = [schedule(x, N) for x in range(N)]
    np.testing.assert_allclose(ours, [formula(x) for x in range(N)], atol=1e-12)


def test_cosine_equals_torch():
    adam = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(adam, N)
    schedule: Schedule = Cosine()
    for step in range(N):
        assert schedule(step, N) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        adam.step()
        theirs.step()


def test_phases_share_the_steps_and_free_by_name_or_stem():
    phases = Phases(
        [
            {"share": 1, "free": ["latent"], "learning_rate": 1.0},
            {"share": 3, "free": ["noise", "offset"], "learning_rate": 0.5},
        ]
    )
    table = phases.learning_rates(["latent", "offset", "noise_0", "noise_12"], Fixed(), 8)
    assert table["latent"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    for name in ("offset", "noise_0", "noise_12"):
        assert table[name].tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_the_schedule_runs_anew_in_each_phase():
    phases = Phases([{"share": 1, "free": ["all"], "learning_rate": 1.0}] * 2)
    rates = phases.learning_rates(["latent"], Linear1Cycle(), 20)["latent"]
    torch.testing.assert_close(rates[:10], rates[10:])
    assert rates[5] == 1
