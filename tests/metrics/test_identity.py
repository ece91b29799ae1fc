import math

import numpy as np
import pytest
import torch

from pulse_exp import faces
from pulse_exp.metrics import MetricUnavailable, Restoration, load
from pulse_exp.metrics.portraits import portraits

needs_faces = pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))


METRICS_OF_FACES = (
    "identity",
    "identity_in_place",
    "landmark_error",
    "skin_tone",
    "skin_tone_drift",
    "skin_tone_drift_in_place",
)


def restoration(sr, hr=None):
    lr = torch.nn.functional.interpolate(sr, (64, 64), mode="bicubic", antialias=True)
    return Restoration(sr=sr, lr=lr.clamp(0, 1), sr_lr=lr.clamp(0, 1), hr=hr)


@needs_faces
def test_a_portrait_finds_the_face_of_images_of_any_size(woman):
    (portrait,) = portraits(woman)
    assert portrait.pixels.shape == (512, 512, 3)
    assert portrait.pixels.dtype == np.uint8
    small = torch.nn.functional.interpolate(woman, (128, 128), mode="bicubic", antialias=True)
    (again,) = portraits(small.clamp(0, 1))
    np.testing.assert_allclose(again.face.landmarks, portrait.face.landmarks, atol=10)


@needs_faces
def test_identity_is_near_for_the_same_face_and_far_for_its_wreck(woman):
    pattern = torch.linspace(0, 1, 256).sin() * 0.05
    rows = torch.cat([woman, (woman + pattern).clamp(0, 1), woman.flip(2)])
    truth = woman.expand(3, -1, -1, -1)
    same, alike, no_face = load("identity")(restoration(rows, truth))["identity"].tolist()
    assert same == 0
    assert 0 < alike < 0.3
    assert math.isnan(no_face)


@needs_faces
def test_identity_is_the_distance_of_dlibs_vectors(woman):
    tinted = (woman * torch.tensor([1.0, 0.8, 0.7]).view(3, 1, 1)).clamp(0, 1)
    vectors = []
    for (portrait,) in (portraits(woman), portraits(tinted)):
        (face,) = faces.detect(portrait.pixels)
        vectors.append(faces.embed(portrait.pixels, face))
    value = load("identity")(restoration(tinted, woman))["identity"].item()
    assert value == pytest.approx(np.sqrt(np.sum((vectors[0] - vectors[1]) ** 2)))


@needs_faces
def test_without_truth_identity_is_compared_with_the_enlarged_input(woman):
    value = load("identity_lr")(restoration(woman))["identity_lr"].item()
    assert 0 < value < 0.6
    with pytest.raises(MetricUnavailable, match="not known"):
        load("identity")(restoration(woman))


@needs_faces
def test_identity_in_place_is_that_of_the_truths_cut_out(woman):
    def blurred(image):
        small = torch.nn.functional.interpolate(image, (12, 12), mode="bicubic", antialias=True)
        return torch.nn.functional.interpolate(small, (256, 256), mode="bicubic").clamp(0, 1)

    rows, truth = torch.cat([woman, blurred(woman)]), woman.expand(2, -1, -1, -1)
    batch = restoration(rows, truth)
    assert math.isnan(load("identity")(batch)["identity"][1])
    same, blur = load("identity_in_place")(batch)["identity_in_place"].tolist()
    assert same == 0
    (here,), (there,) = portraits(woman), portraits(blurred(woman))
    vectors = [faces.embed(p.pixels, here.face) for p in (here, there)]
    assert blur == pytest.approx(np.sqrt(np.sum((vectors[0] - vectors[1]) ** 2)))
    faceless = load("identity_in_place")(restoration(woman, woman.flip(2)))["identity_in_place"]
    assert math.isnan(faceless.item())


@needs_faces
def test_landmark_error_is_relative_to_the_eyes(woman):
    def moved(by):
        return woman.roll(by, dims=3)

    rows, truth = torch.cat([woman, moved(4), woman.flip(2)]), woman.expand(3, -1, -1, -1)
    same, shifted, no_face = load("landmark_error")(restoration(rows, truth))[
        "landmark_error"
    ].tolist()
    (portrait,) = portraits(woman)
    eyes = np.linalg.norm(portrait.face.landmarks[36] - portrait.face.landmarks[45])
    assert same == 0
    assert shifted == pytest.approx(8 / eyes, rel=0.2)
    assert math.isnan(no_face)


@pytest.mark.parametrize("name", ["identity", "identity_in_place", "identity_lr", "landmark_error"])
def test_without_the_extra_the_metric_is_missing_with_the_remedy(name, woman, monkeypatch):
    monkeypatch.setattr(faces, "available", lambda: "package dlib-bin is not installed: remedy")
    with pytest.raises(MetricUnavailable, match="remedy"):
        load(name)(restoration(woman, woman))


@needs_faces
def test_faces_are_found_once_for_all_metrics(woman, monkeypatch):
    calls = []
    detect = faces.detect
    monkeypatch.setattr(faces, "detect", lambda pixels: calls.append(1) or detect(pixels))
    batch = restoration(woman, woman)
    for name in METRICS_OF_FACES:
        load(name)(batch)
    assert len(calls) == 3, "result, truth and input"
