import importlib.util

import numpy as np
import pytest
import torch
from scipy import linalg

from pulse_exp.metrics import Restoration, load, measure, measure_run
from pulse_exp.metrics.perceptual import Fid, Kid, Lpips, Pretrained

PACKAGES = {"lpips": "torchvision", "fid": "torch_fidelity", "kid": "torch_fidelity"}


class Moments(torch.nn.Module):
    """Stands in for Inception: four numbers an image."""

    num_features = 4

    def forward(self, images):
        x = images.float().flatten(1) / 255
        return torch.stack([x.mean(1), x.std(1), x[:, 0], x[:, -1]], dim=1)


@pytest.fixture
def restoration():
    rng = torch.Generator().manual_seed(0)
    sr, hr = torch.rand(2, 12, 3, 16, 16, generator=rng)
    return Restoration(sr=sr * 0.8, lr=sr, sr_lr=sr, hr=hr, images=tuple("abcdefghijkl"))


def reason_missing(metric, restoration):
    if isinstance(metric, Lpips):
        values, missing = measure([metric], restoration)
    else:
        values, missing = measure_run([metric], lambda: [restoration])
    assert values == {}
    return missing[metric.keys[0]]


@pytest.mark.parametrize("name", PACKAGES)
def test_without_package_the_metric_is_missing_with_reason_and_remedy(name, restoration):
    if importlib.util.find_spec(PACKAGES[name]):
        pytest.skip(f"{PACKAGES[name]} is installed")
    reason = reason_missing(load(name), restoration)
    assert "nstall" in reason
    assert "pulse-exp[perceptual]" in reason


@pytest.mark.parametrize("name", PACKAGES)
def test_weights_that_cannot_be_fetched_make_it_missing(name, restoration, monkeypatch):
    attempts = []

    def fails(*args, **kwargs):
        attempts.append(args)
        raise OSError("<urlopen error no route to host>")

    for target in ("lpip.LearnedPerceptualImagePatchSimilarity", "fid.FrechetInceptionDistance"):
        monkeypatch.setattr(f"torchmetrics.image.{target}", fails)
    monkeypatch.setattr("torchmetrics.image.kid.KernelInceptionDistance", fails)
    metric = load(name)
    assert "no route to host" in reason_missing(metric, restoration)
    assert "no route to host" in reason_missing(metric, restoration)
    assert len(attempts) == 1, "a download that failed is not tried again for each batch"


def test_fid_is_the_frechet_distance_of_results_and_truths(restoration):
    from torchmetrics.image.fid import FrechetInceptionDistance

    fid = Fid()
    fid.network = Pretrained("FID", lambda: FrechetInceptionDistance(feature=Moments()))
    for rows in (slice(0, 5), slice(5, 12)):
        part = [x[rows] for x in (restoration.sr, restoration.lr, restoration.hr)]
        fid.update(Restoration(sr=part[0], lr=part[1], sr_lr=part[1], hr=part[2]))
    value = fid.compute()["fid"]
    real, fake = (
        Moments()((x * 255).round()).double().numpy() for x in (restoration.hr, restoration.sr)
    )
    cov_real, cov_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    expected = np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(
        cov_real + cov_fake - 2 * linalg.sqrtm(cov_real @ cov_fake).real
    )
    assert value == pytest.approx(expected, rel=1e-3)


def test_kid_uses_every_row_and_leaves_the_random_state_alone(restoration):
    from torchmetrics.image.kid import KernelInceptionDistance

    kid = Kid()
    kid.network = Pretrained("KID", lambda: KernelInceptionDistance(Moments(), subsets=1))
    kid.update(restoration)
    state = torch.get_rng_state()
    value = kid.compute()["kid"]
    assert torch.equal(state, torch.get_rng_state())
    real, fake = (
        Moments()((x * 255).round()).double().numpy() for x in (restoration.hr, restoration.sr)
    )

    def kernel(a, b):
        return (a @ b.T / 4 + 1) ** 3

    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (12 * 11) for x in (real, fake))
    expected = within - 2 * kernel(real, fake).mean()
    assert value == pytest.approx(expected, abs=1e-6)


def test_lpips_is_asked_row_by_row(restoration):
    class Distance:
        def to(self, device):
            return self

        def reset(self):
            self.value = None

        def update(self, image, truth):
            assert len(image) == 1
            self.value = (image - truth).abs().mean()

        def compute(self):
            return self.value

    lpips = Lpips()
    lpips.network = Pretrained("LPIPS", Distance)
    values = lpips(restoration)["lpips"]
    expected = (restoration.sr - restoration.hr).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(values, expected.double())


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_a_set_distance_needs_a_finished_run_of_several_results(name, restoration):
    metric = load(name)
    _, missing = measure([metric], restoration)
    assert "task=measure" in missing[name]
    values, missing = measure_run([metric, load("psnr")], list)
    assert values == {}
    assert set(missing) == {name}
    assert "two results" in missing[name]
