import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pulse_exp.generators import load
from pulse_exp.priors import (
    Gaussian,
    Geocross,
    L1Ball,
    LayeredGaussian,
    NoiseAutocorrelation,
    NoiseDistance,
    PairwiseCosine,
    PNorm,
    Sphere,
    StyleGaussian,
    Truncation,
    onto_l1_ball,
)
from pulse_exp.style_statistics import style_moments, style_statistics
from tests.compose import job
from tests.points import point

RNG = torch.Generator().manual_seed(0)
X = torch.randn(3, 4, 6, generator=RNG)


def geocross(x: np.ndarray) -> float:
    """By angles, all ordered pairs, a vector with itself included."""
    total = 0.0
    for a in x:
        for b in x:
            apart, across = np.linalg.norm(a - b), np.linalg.norm(a + b)
            total += (2 * np.arctan2(apart, across)) ** 2 * len(a)
    return total / len(x) ** 2 / 8


def mean_of_one_minus_cosine(x: np.ndarray) -> float:
    pairs = [(a, b) for i, a in enumerate(x) for b in x[i + 1 :]]
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]
    return float(np.mean([1 - c for c in cosines]))


def test_gaussian_and_cross_terms_equal_numpy():
    x = X.double().numpy()
    at = point(coordinates=X, ws=2 * X)
    np.testing.assert_allclose(Gaussian(1.0)(at, {}), [(r**2).sum() for r in x], rtol=1e-5)
    np.testing.assert_allclose(
        Geocross(1.0, "coordinates")(at, {}), [geocross(r) for r in x], rtol=1e-4
    )
    np.testing.assert_allclose(
        Geocross(1.0, "styles")(at, {}), [geocross(2 * r) for r in x], rtol=1e-4
    )
    np.testing.assert_allclose(
        PairwiseCosine(1.0, "styles")(at, {}), [mean_of_one_minus_cosine(r) for r in x], rtol=1e-4
    )


def test_geocross_has_a_finite_gradient_where_vectors_agree():
    x = torch.ones(1, 3, 5, requires_grad=True)
    value = Geocross(1.0, "coordinates")(point(coordinates=x), {})
    assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()


def test_layered_gaussian_equals_numpy():
    v, o = torch.randn(2, 1, 5, generator=RNG), torch.randn(2, 8, 5, generator=RNG)
    at = point(coordinates=v, offset_coarse=o[:, :3], offset_fine=o[:, 3:])
    c = np.array([1, 1, 1, 3, 3, 3, 3, 3])[:, None]
    expected = [
        0.2 * (a.numpy() ** 2).mean() + (c * b.numpy() ** 2).mean()
        for a, b in zip(v, o, strict=True)
    ]
    np.testing.assert_allclose(LayeredGaussian(1.0, 0.2, 1.0, 3.0)(at, {}), expected, rtol=1e-5)
    f = torch.randn(2, 7, 1, generator=RNG)
    with_filters = point(coordinates=v, offset_coarse=o[:, :3], offset_fine=o[:, 3:], filters=f)
    expected = [e + 0.2 / 5 * (c.numpy() ** 2).sum() for e, c in zip(expected, f, strict=True)]
    np.testing.assert_allclose(
        LayeredGaussian(1.0, 0.2, 1.0, 3.0)(with_filters, {}), expected, rtol=1e-5
    )


@pytest.mark.parametrize(("radius", "length"), [(None, 6**0.5), (2.5, 2.5)])
def test_the_sphere_keeps_directions(radius: float | None, length: float):
    noise = torch.randn(3, 1, 2, 2)
    after = Sphere(radius).project({"latent": X, "noise_0": noise}, {})
    torch.testing.assert_close(after["latent"].norm(dim=-1), torch.full((3, 4), length))
    torch.testing.assert_close(
        torch.nn.functional.normalize(after["latent"], dim=-1),
        torch.nn.functional.normalize(X, dim=-1),
    )
    assert after["noise_0"] is noise


def test_the_l1_ball_is_the_nearest_point():
    """Against a general solver: minimise ‖p - x‖² subject to ‖p‖₁ ≤ r, p = a - b, a, b ≥ 0."""
    x = torch.randn(4, 5, generator=RNG).double()
    x[3] *= 0.01  # inside
    ours = onto_l1_ball(x, 1.2)
    for row, found in zip(x.numpy(), ours.numpy(), strict=True):
        solved = minimize(
            lambda p, row=row: ((p[:5] - p[5:] - row) ** 2).sum(),
            np.zeros(10),
            bounds=[(0, None)] * 10,
            constraints={"type": "ineq", "fun": lambda p: 1.2 - p.sum()},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(found, solved.x[:5] - solved.x[5:], atol=1e-5)
    torch.testing.assert_close(ours[3], x[3])


def test_the_l1_ball_is_around_each_rows_start_and_takes_names_or_stems():
    start = {
        "latent": torch.randn(2, 1, 4, generator=RNG),
        "features_1": torch.randn(2, 3, 2, 2, generator=RNG),
        "noise_0": torch.randn(2, 1, 2, 2, generator=RNG),
    }
    ball = L1Ball(["latent", "features"], 0.5)
    state = ball.start(start)
    after = ball.project({name: value + 1 for name, value in start.items()}, state)
    for name in ("latent", "features_1"):
        change = (after[name] - start[name]).abs().flatten(1).sum(1)
        torch.testing.assert_close(change, torch.full((2,), 0.5))
    torch.testing.assert_close(after["noise_0"], start["noise_0"] + 1)


def test_priors_on_style_vectors_equal_numpy():
    generator = load("toy")
    statistics, (mean, std) = style_statistics(generator, 2000), style_moments(generator)
    with torch.no_grad():
        ws = generator.mapping(torch.randn(3, 32, generator=RNG)) * torch.tensor(1.3)
    at, w = point(ws=ws), ws.double().numpy()
    v = np.where(w > 0, w, w * 5) - statistics.mean.double().numpy()
    covariance = (
        (statistics.directions * statistics.variances) @ statistics.directions.T
    ).double().numpy()  # fmt: skip
    p_norm = PNorm(1.0, 2000)
    p_norm.prepare(generator)
    mahalanobis = [np.mean([u @ np.linalg.solve(covariance, u) for u in r]) / 32 for r in v]
    np.testing.assert_allclose(p_norm(at, {}), mahalanobis, rtol=1e-2)

    gaussian = StyleGaussian(1.0)
    gaussian.prepare(generator)
    z = (w - mean.double().numpy()) / std.double().numpy()
    np.testing.assert_allclose(gaussian(at, {}), [(r**2).mean() for r in z], rtol=1e-4)

    truncation = Truncation(1.0, 0.7)
    truncation.prepare(generator)
    distance = np.linalg.norm(w - mean.numpy(), axis=-1) / np.linalg.norm(std.numpy())
    expected = [(np.maximum(0, r - 0.7) ** 2).mean() for r in distance]
    np.testing.assert_allclose(truncation(at, {}), expected, rtol=1e-4)


def test_draws_of_the_generator_are_typical():
    generator = load("toy")
    with torch.no_grad():
        ws = generator.mapping(torch.randn(500, 32, generator=RNG))
    for prior, typical in [(PNorm(1.0, 2000), 1.0), (StyleGaussian(1.0), 1.0)]:
        prior.prepare(generator)
        assert float(prior(point(ws=ws), {}).mean()) == pytest.approx(typical, rel=0.15)


def test_noise_distance_is_from_where_the_inputs_began():
    start = {f"noise_{i}": torch.randn(2, 1, s, s, generator=RNG) for i, s in enumerate((4, 8))}
    prior = NoiseDistance(1.0)
    state = prior.start({"latent": X[:2], **start})
    moved = {name: noise + 0.1 * (i + 1) for i, (name, noise) in enumerate(start.items())}
    found = prior(point(coordinates=torch.zeros(2, 1, 4), **moved), state)
    np.testing.assert_allclose(found, [16 * 0.1**2 + 64 * 0.2**2] * 2, rtol=1e-4)
    without = prior.start({"latent": X[:2]})
    assert not prior(point(coordinates=torch.zeros(2, 1, 4)), without).any()


def test_noise_inputs_rest_while_the_input_is_noisy():
    """Row 0 is left with noise of 1e-2, row 1 with a smooth slope of a larger error."""
    start = {"latent": X[:2], "noise_0": torch.randn(2, 1, 4, 4, generator=RNG)}
    prior = NoiseDistance(1.0)
    noise = 0.1 * torch.randn(3, 32, 32, generator=RNG)
    lr = torch.stack([noise, torch.linspace(0, 0.5, 32).expand(3, 32, 32)])
    at = {"sr_lr": torch.zeros_like(lr), "lr": lr, "eps": 1e-3}
    state = prior.update(point(coordinates=X[:2], **start, **at), prior.start(start))
    moved = {**start, "noise_0": start["noise_0"].flip(3)}
    expected = torch.stack([start["noise_0"][0], moved["noise_0"][1]])
    after = prior.project(moved, state)
    torch.testing.assert_close(after["noise_0"], expected)
    # Once released a row's maps stay so, whatever is left then.
    noisy = {**at, "lr": noise.expand(2, -1, -1, -1)}
    state = prior.update(point(coordinates=X[:2], **after, **noisy), state)
    torch.testing.assert_close(prior.project(moved, state)["noise_0"], expected)


def test_filters_rest_while_noise_is_left():
    """Row 0 is left with noise of 1e-2, row 1 with a smooth slope of a larger error."""
    start = {"latent": X[:2], "filters": torch.zeros(2, 5, 1)}
    offsets = {"offset_coarse": X[:2], "offset_fine": X[:2]}
    prior = LayeredGaussian(1.0, 0.2, 1.0, 3.0)
    noise = 0.1 * torch.randn(3, 32, 32, generator=RNG)
    lr = torch.stack([noise, torch.linspace(0, 0.5, 32).expand(3, 32, 32)])
    at = {"sr_lr": torch.zeros_like(lr), "lr": lr, "eps": 1e-3, **offsets}
    first = point(coordinates=X[:2], filters=start["filters"], **at)
    state = prior.update(first, prior.start(start))
    moved = {**start, "filters": torch.randn(2, 5, 1, generator=RNG)}
    after = prior.project(moved, state)
    torch.testing.assert_close(after["filters"][0], start["filters"][0])
    torch.testing.assert_close(after["filters"][1], moved["filters"][1])
    # Once released a row's filters stay so, whatever is left then.
    noisy = {**at, "lr": noise.expand(2, -1, -1, -1)}
    state = prior.update(point(coordinates=X[:2], filters=after["filters"], **noisy), state)
    assert state["rests"].tolist() == [True, False]
    assert prior.start({"latent": X[:2]}) == {}


def test_noise_inputs_keep_the_norms_that_they_began_with():
    start = {f"noise_{i}": torch.randn(2, 1, s, s, generator=RNG) for i, s in enumerate((4, 8))}
    prior = NoiseDistance(1.0)
    state = {**prior.start({"latent": X[:2], **start}), "rests": torch.zeros(2, dtype=torch.bool)}
    moved = {name: 2 * noise + torch.randn_like(noise) for name, noise in start.items()}
    for name, noise in prior.project(moved, state).items():
        for row in range(2):
            assert noise[row].norm().item() == pytest.approx(
                start[name][row].norm().item(), rel=1e-5
            )
            cosine = torch.cosine_similarity(noise[row].flatten(), moved[name][row].flatten(), 0)
            assert cosine.item() == pytest.approx(1, abs=1e-5)
    assert all(torch.equal(prior.project(start, state)[name], start[name]) for name in start)


def test_noise_autocorrelation_equals_numpy():
    maps = {f"noise_{i}": torch.randn(2, 1, s, s, generator=RNG) for i, s in enumerate((4, 8, 16))}
    expected = np.zeros(2)
    for noise in maps.values():
        for row in range(2):
            n = noise[row, 0].double().numpy()
            while True:
                expected[row] += (n * np.roll(n, 1, 1)).mean() ** 2
                expected[row] += (n * np.roll(n, 1, 0)).mean() ** 2
                if n.shape[0] <= 8:
                    break
                n = n.reshape(n.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) * 2
    prior = NoiseAutocorrelation(1.0)
    found = prior(point(coordinates=torch.zeros(2, 1, 4), **maps), {})
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_noise_stays_of_mean_0_and_variance_1():
    noise = 3 + 5 * torch.randn(2, 1, 8, 8, generator=RNG)
    after = NoiseAutocorrelation(1.0).project({"noise_0": noise, "latent": X}, {})
    np.testing.assert_allclose(after["noise_0"].mean((1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(after["noise_0"].var((1, 2, 3), unbiased=False), 1, rtol=1e-5)
    assert after["latent"] is X


def test_brgm_weighs_its_terms_as_released():
    """Up to one common factor: squared error in 8-bit units at 0.001, w in units of the norm of its
    standard deviations at 100, all pairs of 18 vectors at 3 (LPIPS left out)."""
    config, _ = job("method=brgm", "logger=none")
    mean, std = torch.randn(512, generator=RNG), torch.full((512,), 0.3)
    ws = mean + 0.2 * torch.randn(2, 18, 512, generator=RNG)
    gaussian = StyleGaussian(config.prior.style_gaussian.weight)
    gaussian.mean, gaussian.std = mean, std
    cosine = PairwiseCosine(config.prior.pairwise_cosine.weight, "styles")
    at, w, error = point(ws=ws), ws.double().numpy(), 2e-3
    ours = [term.weight * term(at, {}).numpy() for term in (gaussian, cosine)]

    typical = (512 * 0.3**2) ** 0.5
    unit = w / np.linalg.norm(w, axis=-1, keepdims=True)
    released = [
        100 * ((w - mean.numpy()) ** 2).mean((1, 2)) / typical**2,
        3 * np.abs(1 - unit @ unit.transpose(0, 2, 1)).mean((1, 2)),
    ]
    factor = config.loss.l2.weight * error / (0.001 * 255**2 * error)
    np.testing.assert_allclose(ours, factor * np.array(released), rtol=0.02)
