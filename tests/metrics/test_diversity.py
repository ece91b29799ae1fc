import itertools

import numpy as np
import pytest
import torch

from pulse_exp import faces
from pulse_exp.metrics import Restoration, load, measure
from pulse_exp.metrics.diversity import mean_distance_to_others, pixel_deviation

needs_faces = pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))


def test_the_mean_over_restarts_is_the_mean_over_all_pairs():
    points = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = [np.linalg.norm(a - b) for a, b in itertools.combinations(points.numpy(), 2)]
    assert mean_distance_to_others(points).mean().item() == pytest.approx(np.mean(pairs))


def test_points_that_do_not_exist_are_left_out():
    points = torch.tensor([[0.0, 0.0], [float("nan"), 0.0], [3.0, 4.0]])
    distances = mean_distance_to_others(points)
    assert distances[[0, 2]].tolist() == [5, 5]
    assert distances[1].isnan()
    assert mean_distance_to_others(points[:2]).isnan().all()


def test_each_result_is_compared_with_the_restarts_of_its_image():
    levels = torch.tensor([0.2, 0.4, 0.8, 0.5])
    images = levels.view(4, 1, 1, 1).expand(4, 3, 8, 8)
    rows = Restoration(sr=images, lr=images, sr_lr=images, images=("a", "b", "a", "c"))
    a, b, again_a, c = load("diversity_rmse")(rows)["diversity_rmse"].tolist()
    assert a == again_a == pytest.approx(0.6)
    assert np.isnan([b, c]).all()


def test_pixel_deviation_equals_numpy():
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = np.sqrt(np.mean(np.std(images.numpy(), axis=0, ddof=1) ** 2, axis=0))
    np.testing.assert_allclose(pixel_deviation(images).numpy(), expected, rtol=1e-5)
    assert pixel_deviation(images[:1]).abs().max() == 0


@needs_faces
def test_faces_of_one_person_in_other_light_differ_a_little(woman):
    rows = torch.cat([woman, woman * 0.7, woman.flip(2)])
    restarts = Restoration(sr=rows, lr=rows, sr_lr=rows, images=("a", "a", "a"))
    first, second, no_face = load("diversity_identity")(restarts)["diversity_identity"]
    assert first == second
    assert 0 < first < 0.4
    assert no_face.isnan()


def test_without_the_extra_only_the_faces_are_missing(monkeypatch):
    monkeypatch.setattr(faces, "available", lambda: "not installed: remedy")
    images = torch.rand(2, 3, 8, 8)
    metrics = [load("diversity_rmse"), load("diversity_identity")]
    values, missing = measure(metrics, Restoration(images, images, images, None, ("a", "a")))
    assert set(values) == {"diversity_rmse"}
    assert missing == {"diversity_identity": "not installed: remedy"}
