import importlib.util

import numpy as np
import pytest
import torch
from scipy import linalg

from pulse_exp.metrics import Measurement, Restoration
from pulse_exp.metrics.perceptual import Fid, Kid, Lpips

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


@pytest.mark.parametrize("name", PACKAGES)
def test_without_package_the_metric_is_missing_with_reason_and_remedy(name, restoration):
    if importlib.util.find_spec(PACKAGES[name]):
        pytest.skip(f"{PACKAGES[name]} is installed")
    measurement = Measurement([name])
    values, missing = measurement.batch(restoration)
    late_values, late_missing = measurement.finish()
    assert values == late_values == {}
    reason = (missing | late_missing)[name]
    assert "nstall" in reason
    assert "pulse-exp[perceptual]" in reason


@pytest.mark.parametrize("name", PACKAGES)
def test_weights_that_cannot_be_fetched_make_it_missing(name, restoration, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("<urlopen error no route to host>")

    for target in ("lpip.LearnedPerceptualImagePatchSimilarity", "fid.FrechetInceptionDistance"):
        monkeypatch.setattr(f"torchmetrics.image.{target}", fails)
    monkeypatch.setattr("torchmetrics.image.kid.KernelInceptionDistance", fails)
    measurement = Measurement([name])
    _, missing = measurement.batch(restoration)
    _, late = measurement.finish()
    assert "no route to host" in (missing | late)[name]


def test_fid_is_the_frechet_distance_of_results_and_truths(restoration):
    from torchmetrics.image.fid import FrechetInceptionDistance

    fid = Fid()
    fid.network = FrechetInceptionDistance(feature=Moments())
    for rows in (slice(0, 5), slice(5, 12)):
        part = [x[rows] for x in (restoration.sr, restoration.lr, restoration.hr)]
        fid.update(Restoration(sr=part[0], lr=part[1], sr_lr=part[1], hr=part[2]))
    values = fid.compute()["fid"]
    real, fake = (
        Moments()((x * 255).round()).double().numpy() for x in (restoration.hr, restoration.sr)
    )
    cov_real, cov_fake = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    expected = np.sum((real.mean(0) - fake.mean(0)) ** 2) + np.trace(
        cov_real + cov_fake - 2 * linalg.sqrtm(cov_real @ cov_fake).real
    )
    assert values.shape == (12,)
    assert values[0].item() == pytest.approx(expected, rel=1e-3)
    assert values.unique().numel() == 1


def test_kid_uses_every_row_and_leaves_the_random_state_alone(restoration):
    from torchmetrics.image.kid import KernelInceptionDistance

    kid = Kid()
    kid.network = KernelInceptionDistance(feature=Moments(), subsets=1)
    kid.update(restoration)
    state = torch.get_rng_state()
    values = kid.compute()["kid"]
    assert torch.equal(state, torch.get_rng_state())
    real, fake = (
        Moments()((x * 255).round()).double().numpy() for x in (restoration.hr, restoration.sr)
    )

    def kernel(a, b):
        return (a @ b.T / 4 + 1) ** 3

    within = sum((kernel(x, x).sum() - np.trace(kernel(x, x))) / (12 * 11) for x in (real, fake))
    expected = within - 2 * kernel(real, fake).mean()
    assert values.shape == (12,)
    assert values[0].item() == pytest.approx(expected, abs=1e-6)


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
    lpips.network = Distance()
    values = lpips(restoration)["lpips"]
    expected = (restoration.sr - restoration.hr).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(values, expected.double())


def test_a_single_result_has_no_set_distance(restoration):
    from torchmetrics.image.fid import FrechetInceptionDistance

    measurement = Measurement(["fid"])
    measurement.run_metrics[0].network = FrechetInceptionDistance(feature=Moments())
    one = Restoration(
        sr=restoration.sr[:1],
        lr=restoration.lr[:1],
        sr_lr=restoration.lr[:1],
        hr=restoration.hr[:1],
    )
    measurement.batch(one)
    values, missing = measurement.finish()
    assert values == {}
    assert "two results" in missing["fid"]
