import copy
from itertools import product
from math import exp

import pytest
import torch

from pulse_exp.bilateral import JointBilateralEnlargement, contrast, share_of_signal
from pulse_exp.building import build_downscaler, build_objective
from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.objective import Objective
from pulse_exp.operators.blurred import Blurred, blur_matrices
from pulse_exp.operators.downscalers import Bicubic, Gaussian
from pulse_exp.operators.measurements import BlockMask, Composed, GaussianMeasurements
from pulse_exp.problem import Candidate
from pulse_exp.refine import BackProjection, BilateralBackProjection, PivotalTuning
from pulse_exp.seeding import random_generator
from tests.compose import SMALL, job

RNG = torch.Generator().manual_seed(0)
SR, TRUTH = (torch.rand(1, 3, 24, 32, generator=RNG, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("down", [Bicubic(4), BlockMask(), Composed(4, Bicubic, BlockMask())])
def test_back_projection_meets_the_input(down):
    lr = down(TRUTH)
    refined = BackProjection()(SR, lr, Candidate("a", 0, "unsolved"), down, None)
    assert (down(refined) - lr).abs().max() < 1e-9


@pytest.mark.parametrize("down", [Bicubic(4), BlockMask()])
def test_back_projection_changes_only_what_the_downscaler_sees(down):
    refined = BackProjection()(SR, down(TRUTH), Candidate("a", 0, "unsolved"), down, None)
    unseen = TRUTH - down.pseudo_inverse(down(TRUTH))
    assert down(unseen).abs().max() < 1e-9
    assert float(((refined - SR) * unseen).sum().abs()) < 1e-9


def bilateral(
    sr: torch.Tensor, lr: torch.Tensor, down: object, edges: float = 0.5, far: float = 0.5
) -> torch.Tensor:
    refinement = BilateralBackProjection(0.1, edges, far)
    return refinement(sr, lr, Candidate("a", 0, "unsolved"), down, None)  # type: ignore[arg-type]


def test_bilateral_back_projection_equals_its_formula():
    """Belief pixel by pixel, then the downscaler and its pseudo-inverse as matrices."""
    down, lr = Bicubic(4), Bicubic(4)(SR) + 0.1 * Bicubic(4)(TRUTH)
    difference = lr - down(SR)
    belief = share_of_signal(difference)
    for y, x in product(range(lr.shape[2]), range(lr.shape[3])):
        g = max(float(contrast(image)[0, 0, y, x]) for image in (lr, down(SR)))
        r = difference[0, :, y, x]
        far = exp(-float(r @ r) / (2 * 0.5**2))
        belief[0, 0, y, x] *= far / (1 + (g / 0.5) ** 6)
    believed = belief * difference
    units = torch.eye(SR[0, 0].numel(), dtype=torch.float64).view(-1, 1, 1, *SR.shape[2:])
    matrix = torch.stack([down(unit).flatten() for unit in units], dim=1)
    enlarged = JointBilateralEnlargement(down(SR), SR, 0.1)(believed)
    seen = enlarged.flatten(2) @ matrix.T
    rest = belief.flatten(2) * (believed.flatten(2) - seen)
    expected = SR + enlarged + (rest @ torch.linalg.pinv(matrix).T).view_as(SR)
    torch.testing.assert_close(bilateral(SR, lr, down), expected)


def test_bilateral_back_projection_keeps_what_fits_and_lowers_what_does_not():
    down = Bicubic(4)
    assert torch.equal(bilateral(SR, down(SR), down), SR)
    lr = down(SR) + torch.linspace(-0.04, 0.04, 8, dtype=torch.float64)
    before = (down(SR) - lr).square().mean()
    assert (down(bilateral(SR, lr, down)) - lr).square().mean() < 0.5 * before
    assert (down(bilateral(SR, lr, down, edges=9)) - lr).square().mean() < 0.05 * before


def test_bilateral_back_projection_does_not_cross_an_edge():
    """Left half dark, right half bright; only the dark half's colour is wrong."""
    down = Bicubic(4)
    sr = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    sr[..., 32:] = 0.9
    truth = sr.clone()
    truth[..., :32] = torch.tensor([0.05, 0.02, 0.0])[:, None, None]
    refined = bilateral(sr, down(truth), down)
    assert (refined - truth)[..., 32:].abs().max() < 0.001
    assert (refined - truth)[..., :24].abs().max() < 0.005
    ringing = BackProjection()(sr, down(truth), Candidate("a", 0, "unsolved"), down, None)
    assert (ringing - truth)[..., 32:].abs().max() > 0.01


def test_bilateral_back_projection_leaves_a_silhouette_in_the_wrong_place():
    """The result's edge is half a low-res pixel off; what lies about it stays unchanged."""
    down = Bicubic(4)
    truth = torch.full((1, 3, 48, 48), 0.2, dtype=torch.float64)
    truth[..., 24:] = 0.9
    sr = truth.clone()
    sr[..., 22:24] = 0.9
    painted, left = (
        (bilateral(sr, down(truth), down, edges=edges) - sr).square().sum() for edges in (9, 0.5)
    )
    assert left < 0.5 * painted


def test_bilateral_back_projection_does_not_paint_what_is_missing():
    """A dark spot of the input, for which the result has nothing, leaves no blot."""
    down = Bicubic(4)
    sr = torch.full((1, 3, 32, 32), 0.8, dtype=torch.float64)
    lr = down(sr)
    lr[..., 4, 4] = 0.1
    assert (bilateral(sr, lr, down) - sr).abs().max() < 0.1 * 0.7


def test_bilateral_back_projection_does_not_paint_noise():
    down = Bicubic(4)
    sr = torch.full((1, 3, 128, 128), 0.5, dtype=torch.float64)
    noise = 0.04 * torch.randn(1, 3, 32, 32, generator=RNG, dtype=torch.float64)
    changed = bilateral(sr, down(sr) + noise, down) - sr
    assert changed.square().mean() < 0.01 * 0.04**2


@pytest.mark.parametrize(
    "down",
    [Blurred(Bicubic(4), blur_matrices(torch.tensor([1.0]), 32)), Gaussian(4, 1.0)],
    ids=["blurred", "gaussian"],
)
def test_bilateral_back_projection_through_a_blur_paints_no_ripples_of_rounding(down):
    sr = torch.linspace(0.3, 0.7, 128, dtype=torch.float64).expand(1, 3, 128, 128).clone()
    lr = down(sr)
    uniform = torch.rand(lr.shape, generator=random_generator(0), dtype=torch.float64)
    rounded = lr + (uniform - 0.5) / 255
    exact = BackProjection()(sr, rounded, Candidate("a", 0, "unsolved"), down, None)
    ripples = (exact - sr).square().mean()
    assert (bilateral(sr, rounded, down) - sr).square().mean() < 0.1 * ripples
    browner = lr + torch.tensor([0.05, 0.0, -0.05], dtype=torch.float64)[:, None, None]
    remaining = down(bilateral(sr, browner, down)) - browner
    assert remaining.square().mean() < 0.01 * (lr - browner).square().mean()


def test_bilateral_back_projection_leaves_measurements_that_are_no_picture_alone():
    down = GaussianMeasurements(4)
    assert torch.equal(bilateral(SR, down(TRUTH), down), SR)


def searched(noise: str = "fixed") -> tuple[Objective, Candidate, torch.Tensor]:
    """An objective on the toy generator and a candidate at its start."""
    config, _ = job(*SMALL, "method=pulse", f"noise={noise}", "latent.statistics_draws=2000")
    toy = load("toy")
    objective = build_objective(config, toy, build_downscaler(config, 8, 64))
    rngs = [random_generator(1)]
    variables = objective.latent.start(rngs, [0])
    trained, constants = objective.noise.start(toy, rngs)
    variables |= trained
    candidate = Candidate("a", 0, "unsolved", variables={k: v[0] for k, v in variables.items()})
    candidate.constants = constants
    with torch.no_grad():
        candidate.sr = objective.image({"constants": constants}, variables)[0]
    return objective, candidate, torch.rand(1, 3, 8, 8, generator=RNG)


@pytest.mark.parametrize("noise", ["fixed", "trainable"])
def test_pivotal_tuning_lowers_the_error_and_leaves_the_generator_alone(noise: str):
    objective, candidate, lr = searched(noise)
    before = {name: t.clone() for name, t in objective.generator.state_dict().items()}
    sr = candidate.sr[None]
    down = objective.downscaler

    def error(image: torch.Tensor) -> float:
        return float((down(image) - lr).square().mean())

    nothing = PivotalTuning(0, 1e-3, 0.1, 0.5)(sr, lr, candidate, down, objective)
    torch.testing.assert_close(nothing, sr)
    tuned = PivotalTuning(20, 3e-3, 0.0, 0.5)(sr, lr, candidate, down, objective)
    assert error(tuned) < 0.9 * error(sr)
    again = PivotalTuning(20, 3e-3, 0.0, 0.5)(sr, lr, candidate, down, objective)
    assert torch.equal(tuned, again)
    for name, tensor in objective.generator.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(p.requires_grad for p in objective.generator.parameters())


def test_one_step_of_pivotal_tuning_equals_adam_by_hand():
    """The first Adam step moves every weight by the rate against the sign of its gradient."""
    objective, candidate, lr = searched()
    down, toy = objective.downscaler, objective.generator
    by_hand = copy.deepcopy(toy).requires_grad_(True)
    ws = objective.latent.ws({k: v[None] for k, v in candidate.variables.items()})
    rng = random_generator("pivotal tuning", "a", 0)
    with torch.no_grad():
        near = ws + 0.5 * (toy.mapping(torch.randn(1, 32, generator=rng)) - ws)
        kept = toy.synthesis(near)
    loss = (down(by_hand.synthesis(ws)) - lr).square().mean()
    loss = loss + 10 * (by_hand.synthesis(near) - kept).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in by_hand.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad / (parameter.grad.abs() + 1e-8)
        expected = by_hand.synthesis(ws)
    found = PivotalTuning(1, 1e-3, 10.0, 0.5)(candidate.sr[None], lr, candidate, down, objective)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_locality_keeps_the_image_of_a_nearby_latent():
    objective, candidate, lr = searched()
    down, sr = objective.downscaler, candidate.sr[None]
    free = PivotalTuning(20, 3e-3, 0.0, 0.5)(sr, lr, candidate, down, objective)
    kept = PivotalTuning(20, 3e-3, 100.0, 0.0)(sr, lr, candidate, down, objective)
    assert (kept - sr).square().mean() < 0.5 * (free - sr).square().mean()


def test_a_baseline_has_no_generator_to_tune():
    _, candidate, lr = searched()
    with pytest.raises(UserError, match="needs a search"):
        PivotalTuning(1, 1e-3, 0.0, 0.5)(candidate.sr[None], lr, candidate, Bicubic(8), None)
