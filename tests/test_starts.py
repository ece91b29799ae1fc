import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_exp.building import build_downscaler, build_objective
from pulse_exp.generators import load
from pulse_exp.generators.acceleration import accelerate
from pulse_exp.generators.base import freeze
from pulse_exp.objective import Point
from pulse_exp.operators.downscalers import Bicubic, Gaussian
from pulse_exp.operators.measurements import GaussianMeasurements
from pulse_exp.seeding import random_generator
from pulse_exp.starts import (
    ERROR_SHARE,
    LEAST_VARIANCE,
    NEIGHBOURS,
    REACH,
    Draws,
    LinearEstimate,
    generator_draws,
    measured_enlarged,
    render_draws,
)
from pulse_exp.style_statistics import synthesis_fingerprint
from tests.compose import SMALL, job

TOY = load("toy")


@pytest.fixture(scope="module")
def draws() -> Draws:
    return render_draws(TOY, 80)


def inputs(*seeds: int) -> torch.Tensor:
    z = torch.cat([torch.randn(1, 32, generator=random_generator(seed)) for seed in seeds])
    return Bicubic(8)(TOY.synthesis(TOY.mapping(z)).detach())


def rngs(*seeds: int) -> list[torch.Generator]:
    return [random_generator(seed) for seed in seeds]


def test_draws_are_the_generators_own_images(draws):
    z = torch.randn(80, 32, generator=random_generator("draws"))
    ws = TOY.mapping(z[:2])
    torch.testing.assert_close(draws.styles[:2], ws[:, 0].detach(), rtol=1e-4, atol=1e-5)
    image = TOY.synthesis(ws).clamp(0, 1).detach()
    assert (draws.images[:2].float() / 255 - image).abs().max() <= 0.5 / 255 + 1e-5


def reference(draws: Draws, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random latents of the draws, the draws' images, and latents' weighted regression on these."""
    v = np.random.default_rng(0).normal(size=(len(draws.images), 5)) + 3
    a = Bicubic(8)(draws.images.double() / 255).flatten(1).numpy()
    variance = a.reshape(len(a), 3, -1).var(0).mean(0)
    roots = np.tile(1 / np.maximum(variance / variance.mean(), LEAST_VARIANCE), 3)
    squares = ((a - target) ** 2).sum(1)
    shares = np.exp(-3 * squares / np.sort(squares)[REACH - 1])
    shares /= shares.sum()
    v0, a0 = v - shares @ v, (a - shares @ a) * roots
    covariance = a0.T @ (shares[:, None] * a0)
    noise = ERROR_SHARE * np.trace(covariance)
    gain = v0.T @ (shares[:, None] * a0) @ np.linalg.inv(covariance + noise * np.eye(a.shape[1]))
    return v, a, gain * roots


def test_weights_are_a_local_ensemble_kalman_update_of_the_nearest_draws(draws):
    estimate = LinearEstimate(draws, Bicubic(8), 64)
    y = inputs(3)
    weights = estimate(estimate.about(y), rngs(0), [True])[0].numpy()
    target = y.double().flatten().numpy()
    v, a, gain = reference(draws, target)
    nearest = ((a - target) ** 2).sum(1).argsort()[:4]
    expected = v[nearest].mean(0) + gain @ (target - a[nearest].mean(0))
    np.testing.assert_allclose(weights @ v, expected, rtol=1e-4)
    assert weights.sum() == pytest.approx(1)


def test_a_correction_is_the_update_from_where_the_image_is(draws):
    """Where the generator is linear, a correction from the image leads to the update's image."""
    estimate = LinearEstimate(draws, Bicubic(8), 64)
    y, other = inputs(3), inputs(4)
    correction = estimate.correction(estimate.about(y), other)[0].numpy()
    v, _, gain = reference(draws, y.double().flatten().numpy())
    difference = (y - other).double().flatten().numpy()
    np.testing.assert_allclose(correction @ v, gain @ difference, rtol=1e-4)
    assert correction.sum() == pytest.approx(0, abs=1e-12)
    assert not estimate.correction(estimate.about(y), y).any()


def test_near_draws_say_more_than_far_ones():
    """A line of draws along which latents turn: at each end the regression has that end's slope."""
    position = torch.linspace(0, 1, 200)
    images = (255 * position)[:, None, None, None].expand(-1, 3, 8, 8).round().byte()
    latents = (position - 0.5).abs().numpy()  # slopes: -1 to the middle, then 1
    estimate = LinearEstimate(Draws(torch.zeros(200, 1), images), Bicubic(1), 8)
    for place, slope in ((0.1, -1), (0.9, 1)):
        about = estimate.about(torch.full((1, 3, 8, 8), place))
        moved = estimate.correction(about, torch.full((1, 3, 8, 8), place - 0.1))[0].numpy()
        assert moved @ latents == pytest.approx(0.1 * slope, rel=0.25)


def test_a_pixel_counts_the_inverse_square_of_its_variance():
    images = torch.randint(0, 256, (50, 3, 2, 2), generator=rngs(0)[0]).byte()
    images[..., 0, 0] //= 2
    images[..., 1, 1] //= 200
    estimate = LinearEstimate(Draws(torch.zeros(50, 1), images), Bicubic(1), 2)
    variance = (images.double() / 255).numpy().var((0,), ddof=1).mean(0)
    share = variance / variance.mean()
    assert share[1, 1] < LEAST_VARIANCE < share.ravel()[:3].min()
    expected = np.maximum(share, LEAST_VARIANCE) ** -2.0
    counts = estimate.counts.reshape(3, 2, 2)
    assert counts.mean() == pytest.approx(1)
    np.testing.assert_allclose(counts, np.stack([expected / expected.mean()] * 3), rtol=1e-6)
    y, other = torch.rand(2, 1, 3, 2, 2, generator=rngs(1)[0])
    distance = float(estimate.distances(estimate.about(y), other)[0])
    assert distance == pytest.approx(float((counts * (y - other).square()).mean()), rel=1e-6)


def test_what_is_hidden_counts_nothing():
    images = torch.randint(0, 256, (50, 3, 4, 4), generator=rngs(0)[0]).byte()
    whole = LinearEstimate(Draws(torch.zeros(50, 1), images), Bicubic(1), 4)
    images[..., 2:] = 0
    half = LinearEstimate(Draws(torch.zeros(50, 1), images), Bicubic(1), 4)
    for counts, before in (
        (half.counts.reshape(3, 4, 4), whole.counts.reshape(3, 4, 4)),
        (half.attention((4, 4)), whole.attention((4, 4))),
    ):
        assert (counts[..., 2:] == 0).all()
        expected = before[..., :2] / before[..., :2].mean()
        np.testing.assert_allclose(counts[..., :2], expected, rtol=1e-5)


def test_attention_is_the_inverse_of_the_variance_and_fades():
    config, _ = job(
        *SMALL, "latent=estimated_w_plus", "loss=constrained_l2", "loss.constrained_l2.attended=0.5"
    )
    config.search.steps = 20
    objective = build_objective(config, TOY, build_downscaler(config, 8, 64))
    images = objective.estimate.known.unflatten(1, (3, 8, 8)).numpy()
    share = images.var(0, ddof=1).mean(0)
    inverse = 1 / np.maximum(share / share.mean(), LEAST_VARIANCE)
    steps = torch.tensor([0, 5, 10, 15])
    counts = objective.counts({"step": steps})
    first, half, *last = counts[:, 0].numpy()
    np.testing.assert_allclose(first, inverse / inverse.mean(), rtol=1e-5)
    np.testing.assert_allclose(half, (first + 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(last, np.ones((2, 8, 8)), rtol=1e-5)
    large = objective.estimate.attention((16, 16)).numpy()
    np.testing.assert_allclose(large[0, 0, ::2, 1::2], first, rtol=1e-5)


@pytest.mark.parametrize(
    "words", [["latent.start=mean"], ["loss.constrained_l2.attended=0"], ["loss=l2"]]
)
def test_without_estimates_or_attention_pixels_count_alike(words):
    config, _ = job(*SMALL, "latent=estimated_w_plus", "loss=constrained_l2", *words)
    objective = build_objective(config, TOY, build_downscaler(config, 8, 64))
    assert objective.counts({"step": torch.tensor([0, 5])}) is None


def test_far_draws_say_nothing(monkeypatch):
    """The regression of the nearest draws is that of an estimate which knows no others."""
    counts = torch.rand(48, generator=rngs(2)[0]).double()
    monkeypatch.setattr(LinearEstimate, "pixel_counts", lambda self: counts)
    images = torch.randint(0, 256, (NEIGHBOURS + 40, 3, 4, 4), generator=rngs(0)[0]).byte()
    y, other = torch.rand(2, 1, 3, 4, 4, generator=rngs(1)[0])
    near = (images / 255 - y).square().flatten(1).sum(1).argsort()[:NEIGHBOURS].sort().values

    def correction(images: torch.Tensor) -> torch.Tensor:
        estimate = LinearEstimate(Draws(torch.zeros(len(images), 1), images), Bicubic(1), 4)
        return estimate.correction(estimate.about(y), other)[0]

    weights = correction(images)
    assert (weights != 0).sum() == NEIGHBOURS
    torch.testing.assert_close(weights[near], correction(images[near]))


def test_a_row_starts_the_same_in_every_batch(draws):
    estimate = LinearEstimate(draws, Bicubic(8), 64)
    y, first = inputs(1, 2, 3), [True, False, False]
    together = estimate(estimate.about(y), rngs(1, 2, 3), first)
    for i in range(3):
        alone = estimate(estimate.about(y[i : i + 1]), rngs(i + 1), first[i : i + 1])
        assert torch.equal(together[i], alone[0])


def test_further_restarts_begin_elsewhere(draws):
    estimate = LinearEstimate(draws, Bicubic(8), 64)
    weights = estimate(estimate.about(inputs(1, 1, 1)), rngs(1, 2, 3), [True, False, False])
    assert len({int(row.argmax()) for row in weights}) > 1


def test_measurements_that_are_no_picture_serve_too(draws):
    measure = GaussianMeasurements(16)
    images = TOY.synthesis(TOY.mapping(torch.randn(6, 32, generator=rngs(5)[0]))).detach()
    estimate = LinearEstimate(draws, measure, 64)
    weights = estimate(estimate.about(measure(images)), rngs(*range(6)), [True] * 6)
    assert weights.shape == (6, 80)
    assert weights.isfinite().all()
    assert (estimate.counts == 1).all()
    blended = torch.tensordot(weights.float(), draws.images.float() / 255, 1)
    mean = (draws.images.float() / 255).mean(0)
    assert (blended - images).square().mean() < 0.7 * (mean - images).square().mean()


@pytest.mark.parametrize("down", [Bicubic(8), Gaussian(16, 1.0)])
def test_pictures_are_measured_as_if_they_were_enlarged(down):
    images = torch.rand(2, 3, 16, 16, generator=rngs(0)[0])
    enlarged = F.interpolate(images, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(measured_enlarged(images, down, 64), down(enlarged))


def test_generators_that_share_a_mapping_are_told_apart():
    other = load("toy")
    with torch.no_grad():
        last = list(other.parameters())[-1]
        last.add_(1)
    freeze(other)
    assert synthesis_fingerprint(other) != synthesis_fingerprint(TOY)
    assert synthesis_fingerprint(load("toy")) == synthesis_fingerprint(TOY)


@pytest.mark.parametrize(
    "name",
    ["estimated_w_plus", "preconditioned_w_plus", "whitened_w", "w", "w_plus", "w_plus_plus"],
)
def test_estimates_are_nearer_than_the_mean_and_corrected_ones_nearer_still(name):
    config, _ = job(*SMALL, "prior=none", "loss=l2", f"latent={name}", "latent.start=estimate")
    config.latent.statistics_draws = 2000
    objective = build_objective(config, TOY, build_downscaler(config, 8, 64))
    lr = inputs(*range(6))

    def point(latent: dict[str, torch.Tensor]) -> Point:
        row = {"lr": lr, "constants": {}, "terms": objective.start(latent)}
        return objective(row, latent)

    mean = point(objective.latent.mean(6))
    estimated = objective.start_latent(objective.about(lr), rngs(*range(6)), [0] * 6, number=0)
    first = point(estimated)
    assert first.lr_mse.mean() < 0.5 * mean.lr_mse.mean()
    second = point(objective.corrected(estimated, objective.about(lr), first.sr_lr))
    assert second.lr_mse.mean() < first.lr_mse.mean()


def test_draws_are_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path))
    made = generator_draws(TOY, 10)
    monkeypatch.setattr("pulse_exp.starts.render_draws", None)
    again = generator_draws(TOY, 10)
    assert torch.equal(made.images, again.images)
    assert torch.equal(made.styles, again.styles)


def test_draws_are_the_same_in_every_precision(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """They are kept in one file, so whoever comes first must not decide what is in it."""
    kept = []
    for number, generator in enumerate((TOY, accelerate(TOY, "bf16"))):
        monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path / str(number)))
        kept.append(generator_draws(generator, 10))
    assert torch.equal(kept[0].images, kept[1].images)
    assert torch.equal(kept[0].styles, kept[1].styles)
