import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pulse_exp.metrics import MetricUnavailable, Restoration, load, measure
from pulse_exp.metrics.catalog import CATALOG
from pulse_exp.metrics.fidelity import ms_ssim, psnr, ssim

FIDELITY = ("psnr", "ssim", "ms_ssim", "lr_psnr", "lr_ssim")


@pytest.fixture(scope="module")
def pair():
    """Two photos of 180×200 and what noise or blur makes of them, in [0, 1]."""
    photo = data.astronaut() / 255
    truth = np.stack([photo[:180, 150:350], photo[300:480, :200]])
    noise = np.random.default_rng(0).normal(size=truth[0].shape) * 0.1
    damaged = np.stack(
        [np.clip(truth[0] + noise, 0, 1), ndimage.gaussian_filter(truth[1], (2, 2, 0))]
    )
    return [torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (damaged, truth)]


def hwc(image):
    return image.permute(1, 2, 0).double().numpy()


def reference_ms_ssim(image, truth):
    """Wang, Simoncelli & Bovik 2003, each colour by itself, windows inside the image only."""
    weights = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
    score = 1.0
    for scale, weight in enumerate(weights):

        def blur(x):
            return ndimage.gaussian_filter(x, (1.5, 1.5, 0), truncate=3.5)[5:-5, 5:-5]

        a, b = blur(image), blur(truth)
        var_a, var_b = blur(image**2) - a**2, blur(truth**2) - b**2
        terms = (2 * (blur(image * truth) - a * b) + 0.03**2) / (var_a + var_b + 0.03**2)
        if scale == 4:
            terms = terms * (2 * a * b + 0.01**2) / (a**2 + b**2 + 0.01**2)
        score *= terms.mean() ** weight
        h, w = (n // 2 * 2 for n in image.shape[:2])
        image, truth = (
            x[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3)) for x in (image, truth)
        )
    return score


def test_psnr_equals_scikit_image(pair):
    values = psnr(*pair).tolist()
    for value, image, truth in zip(values, *pair, strict=True):
        expected = peak_signal_noise_ratio(hwc(truth), hwc(image), data_range=1)
        assert value == pytest.approx(expected, rel=1e-6)


def test_ssim_equals_scikit_image(pair):
    values = ssim(*pair).tolist()
    for value, image, truth in zip(values, *pair, strict=True):
        expected = structural_similarity(
            hwc(image),
            hwc(truth),
            data_range=1,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert value == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_follows_the_paper_but_for_the_borders_of_the_last_scale(pair):
    values = ms_ssim(*pair).tolist()
    for value, image, truth in zip(values, *pair, strict=True):
        assert value == pytest.approx(reference_ms_ssim(hwc(image), hwc(truth)), abs=1e-3)


@pytest.mark.parametrize("name", FIDELITY)
def test_a_batch_gives_what_its_rows_give_one_by_one(name, pair):
    images, truth = pair
    metric = load(name)
    assert metric.keys == (name,)
    assert metric.needs_truth == CATALOG[name].needs_truth
    batch = metric(Restoration(sr=images, lr=truth, sr_lr=images, hr=truth))[name]
    rows = [
        metric(Restoration(sr=i[None], lr=t[None], sr_lr=i[None], hr=t[None]))[name]
        for i, t in zip(images, truth, strict=True)
    ]
    assert batch.shape == (2,)
    torch.testing.assert_close(batch, torch.cat(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FIDELITY)
def test_equal_images_score_best(name, pair):
    truth = pair[1]
    best = load(name)(Restoration(sr=truth, lr=truth, sr_lr=truth, hr=truth))[name]
    torch.testing.assert_close(best, torch.full_like(best, CATALOG[name].high))


def test_consistency_is_measured_on_the_low_res_pair(pair):
    images, truth = pair
    restoration = Restoration(sr=truth, lr=truth, sr_lr=images, hr=truth)
    assert load("lr_psnr")(restoration)["lr_psnr"].max() < 40
    assert load("psnr")(restoration)["psnr"].min() == 100


def test_what_cannot_be_measured_is_listed_with_its_reason_never_a_number():
    tiny, small = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 64, 64)
    metrics = [load(name) for name in (*FIDELITY, "niqe")]
    values, missing = measure(metrics, Restoration(sr=small, lr=tiny, sr_lr=tiny, hr=small))
    assert set(values) == {"psnr", "ssim", "lr_psnr"}
    assert all(math.isfinite(v.item()) for v in values.values())
    assert "11 pixels" in missing["lr_ssim"]
    assert "176 pixels" in missing["ms_ssim"]
    assert "too small" in missing["niqe"]
    values, missing = measure(metrics, Restoration(sr=small, lr=tiny, sr_lr=tiny))
    assert set(values) == {"lr_psnr"}
    assert "not known" in missing["psnr"]


def test_a_sixteen_pixel_input_has_an_ssim():
    lr = torch.rand(1, 3, 16, 16)
    value = load("lr_ssim")(Restoration(sr=lr, lr=lr, sr_lr=lr))["lr_ssim"]
    assert value.item() == pytest.approx(1)
    with pytest.raises(MetricUnavailable):
        ssim(lr[..., :10], lr[..., :10])
