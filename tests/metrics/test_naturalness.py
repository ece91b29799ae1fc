from importlib.resources import files

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.special import gamma
from skimage import data

import pulse_exp.metrics
from pulse_exp.errors import UserError
from pulse_exp.metrics import MetricUnavailable, Restoration, load, niqe
from pulse_exp.metrics.catalog import CATALOG

PARAMETERS = files("pulse_exp.metrics") / "niqe_pris_params.npz"


def reference_niqe(image: np.ndarray) -> float:
    """The published algorithm, straight down, for one uint8 RGB image."""
    gray = np.round(image @ np.array([0.298936021293775, 0.587043074451121, 0.114020904255103]))
    rows, cols = gray.shape[0] // 96, gray.shape[1] // 96
    gray = gray[: rows * 96, : cols * 96]
    with np.load(PARAMETERS) as pristine:
        mu, cov, window = (
            pristine[k] for k in ("mu_pris_param", "cov_pris_param", "gaussian_window")
        )
    alphas = np.arange(200, 10001) / 1000
    ratios = gamma(2 / alphas) ** 2 / (gamma(1 / alphas) * gamma(3 / alphas))

    def fit(x):
        left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
        g = left / right
        rhat = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
        target = rhat * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        alpha = alphas[np.argmin((ratios - target) ** 2)]
        scale = np.sqrt(gamma(1 / alpha) / gamma(3 / alpha))
        return alpha, left * scale, right * scale

    def cubic(x):
        x = np.abs(x)
        return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, 0) + np.where(
            (x > 1) & (x <= 2), -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0
        )

    def half_matrix(n):
        matrix = np.zeros((n // 2, n))
        for i in range(n // 2):
            for j in range(-8, n + 8):
                source = -1 - j if j < 0 else 2 * n - 1 - j if j >= n else j
                matrix[i, source] += cubic((i + 0.5) - (j + 0.5) / 2)
        return matrix / matrix.sum(axis=1, keepdims=True)

    per_scale = []
    for side in (96, 48):
        mean = ndimage.convolve(gray, window, mode="nearest")
        deviation = np.sqrt(np.abs(ndimage.convolve(gray**2, window, mode="nearest") - mean**2))
        mscn = (gray - mean) / (deviation + 1)
        features = []
        for r in range(rows):
            for c in range(cols):
                block = mscn[r * side : (r + 1) * side, c * side : (c + 1) * side]
                alpha, left, right = fit(block)
                row = [alpha, (left + right) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    alpha, left, right = fit(block * np.roll(block, shift, axis=(0, 1)))
                    row += [alpha, (right - left) * gamma(2 / alpha) / gamma(1 / alpha)]
                    row += [left, right]
                features.append(row)
        per_scale.append(features)
        gray = half_matrix(gray.shape[0]) @ gray @ half_matrix(gray.shape[1]).T
    features = np.concatenate(per_scale, axis=1)
    difference = mu.ravel() - features.mean(axis=0)
    pooled = (cov + np.cov(features, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(pooled) @ difference))


def noise(rng):
    return rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)


def smooth(rng):
    field = ndimage.gaussian_filter(rng.normal(size=(192, 210, 3)), (3, 3, 0)) * 600 + 128
    return np.clip(field + rng.normal(size=field.shape) * 2, 1, 254).astype(np.uint8)


def edges(rng):
    y, x = np.mgrid[:288, :96]
    stripes = 100 + 60 * np.sign(np.sin(x / 7) + np.sin(y / 11 + x / 23))
    return (stripes[..., None] + rng.integers(0, 9, (288, 96, 3))).astype(np.uint8)


def as_batch(*images: np.ndarray) -> torch.Tensor:
    return torch.stack([torch.from_numpy(i.copy()).permute(2, 0, 1) / 255 for i in images])


@pytest.mark.parametrize("picture", [noise, smooth, edges])
def test_niqe_equals_the_published_algorithm(picture):
    image = picture(np.random.default_rng(0))
    assert niqe(as_batch(image)).item() == pytest.approx(reference_niqe(image), rel=1e-8)


def test_niqe_of_a_batch_is_the_niqe_of_its_rows():
    images = as_batch(*(noise(np.random.default_rng(i)) for i in range(3)))
    scores = niqe(images)
    assert scores.dtype == torch.float64
    assert scores.shape == (3,)
    assert torch.equal(scores, torch.cat([niqe(row[None]) for row in images]))


@pytest.mark.parametrize(
    ("name", "score"), [("astronaut", 3.065157), ("chelsea", 2.572084), ("coffee", 4.058462)]
)
def test_niqe_of_sample_pictures_stays(name, score):
    assert niqe(as_batch(getattr(data, name)())).item() == pytest.approx(score, rel=1e-6)


def test_blur_and_noise_are_less_natural_than_the_photo():
    photo = data.astronaut().astype(float)
    blurred = ndimage.gaussian_filter(photo, (3, 3, 0))
    noisy = np.clip(photo + np.random.default_rng(0).normal(size=photo.shape) * 50, 0, 255)
    score, blurred_score, noisy_score = niqe(as_batch(photo, blurred, noisy)).tolist()
    assert score < blurred_score
    assert score < noisy_score


def test_the_score_is_that_of_the_eight_bit_image():
    images = as_batch(data.astronaut())
    jitter = (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.9
    assert torch.equal(niqe((images + jitter / 255).clamp(0, 1)), niqe(images))
    assert niqe(images.double()) == niqe(images)


def test_flat_blocks_do_not_break_the_score():
    photo = data.astronaut()
    photo[:192, :192] = 255
    assert torch.isfinite(niqe(as_batch(photo))).all()
    assert niqe(torch.full((1, 3, 192, 192), 0.5)).isnan().all()


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (torch.zeros(1, 3, 64, 64), "too small"),
        (torch.zeros(1, 3, 191, 191), "too small"),
        (torch.zeros(1, 1, 192, 192), "B, 3, H, W"),
        (torch.zeros(3, 192, 192), "B, 3, H, W"),
        (torch.zeros(1, 3, 192, 192, dtype=torch.uint8), "float"),
        (torch.full((1, 3, 192, 192), 255.0), r"\[0, 1\]"),
    ],
)
def test_niqe_refuses_what_it_cannot_score(images, reason):
    with pytest.raises(UserError, match=reason):
        niqe(images)


def test_the_metric_reads_the_result_and_the_truth():
    photo = as_batch(data.astronaut())
    restoration = Restoration(sr=photo.flip(-1), lr=photo, sr_lr=photo, hr=photo)
    metric, truth_metric = load("niqe"), load("niqe_hr")
    assert metric(restoration)["niqe"] == niqe(photo.flip(-1))
    assert truth_metric(restoration)["niqe_hr"] == niqe(photo)
    assert metric.keys[0] in CATALOG
    small = Restoration(sr=photo[..., :64, :64], lr=photo, sr_lr=photo)
    with pytest.raises(MetricUnavailable, match="too small"):
        metric(small)
    with pytest.raises(MetricUnavailable, match="not known"):
        truth_metric(small)


def test_the_function_stays_a_function_after_the_metric_was_loaded():
    load("niqe")
    assert callable(pulse_exp.metrics.niqe)
