import math

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from pulse_exp import faces
from pulse_exp.metrics import Restoration, load
from pulse_exp.metrics.portraits import portraits
from pulse_exp.metrics.skin_tone import TEMPLATE, drift, lab, skin, skin_polygons, typology_angle

needs_faces = pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))


def painted(lightness, yellow):
    """A flat image `[1, 3, 64, 64]` of one colour, and its typology angle."""
    colour = lab2rgb(np.array([[[lightness, 10.0, yellow]]]))[0, 0]
    image = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    return image, math.degrees(math.atan2(lightness - 50, yellow))


def test_lab_equals_scikit_image():
    steps = torch.linspace(0, 1, 9, dtype=torch.float64)
    colours = torch.cartesian_prod(steps, steps, steps)
    colours = torch.cat([colours, colours * 0.02])
    np.testing.assert_allclose(lab(colours).numpy(), rgb2lab(colours.numpy()), atol=1e-3)


@pytest.mark.parametrize(("lightness", "yellow"), [(70, 15), (50, 20), (30, 12)])
def test_the_angle_is_that_of_the_skins_colour(lightness, yellow):
    image, angle = painted(lightness, yellow)
    assert typology_angle(image[0].flatten(1).T.double()) == pytest.approx(angle, abs=0.05)
    values = load("skin_tone")(Restoration(sr=image, lr=image, sr_lr=image))
    assert values["skin_tone"].item() == pytest.approx(angle, abs=1.5)  # eight bits
    assert values["skin_tone_drift_lr"].item() == 0


def test_no_colour_has_no_angle():
    assert math.isnan(typology_angle(torch.empty(0, 3)))


def test_drift_is_signed_and_its_size_is_not():
    light, light_angle = painted(70, 15)
    dark, dark_angle = painted(35, 15)
    rows, truths = torch.cat([light, dark]), torch.cat([dark, light])
    values = load("skin_tone_drift")(Restoration(sr=rows, lr=rows, sr_lr=rows, hr=truths))
    expected = light_angle - dark_angle
    assert values["skin_tone_drift"].tolist() == pytest.approx([expected, -expected], abs=2)
    assert values["skin_tone_drift_abs"].tolist() == pytest.approx([expected] * 2, abs=2)
    assert values["skin_tone_hr"].tolist() == pytest.approx([dark_angle, light_angle], abs=2)


def test_drift_goes_the_short_way_round():
    turned = drift(torch.tensor([170.0, -170.0, 10.0]), torch.tensor([-170.0, 170.0, 30.0]))
    assert turned.tolist() == [-20, 20, -20]


@needs_faces
def test_the_skin_is_on_the_cheeks_and_nose(woman):
    (portrait,) = portraits(woman)
    points = portrait.face.landmarks
    corners = np.concatenate(skin_polygons(points))
    assert corners[:, 0].min() > points[:17, 0].min()
    assert corners[:, 0].max() < points[:17, 0].max()
    assert corners[:, 1].max() < points[48:68, 1].max()
    value = load("skin_tone")(Restoration(sr=woman, lr=woman, sr_lr=woman))["skin_tone"].item()
    assert 20 < value < 75


@needs_faces
def test_a_picture_without_a_face_is_measured_where_the_other_has_it(woman):
    flat, angle = painted(60, 20)
    flat = torch.nn.functional.interpolate(flat, (256, 256))
    pasted = torch.where(torch.arange(256).view(1, 1, 256, 1) < 20, woman, flat)
    values = load("skin_tone_drift")(Restoration(sr=pasted, lr=woman, sr_lr=woman, hr=woman))
    result = values["skin_tone_hr"] + values["skin_tone_drift"]
    assert result.item() == pytest.approx(angle, abs=1.5)


@needs_faces
def test_drift_in_place_reads_the_result_where_the_truth_has_its_skin(woman):
    """A result whose own face is elsewhere, and a spot of colour where the truth's cheeks are."""
    tinted, angle = painted(60, 20)
    tinted = torch.nn.functional.interpolate(tinted, (256, 256))
    moved = woman.roll(24, dims=3)
    (truth,), (elsewhere,) = portraits(woman), portraits(moved)
    assert np.abs(truth.face.landmarks - elsewhere.face.landmarks).mean() > 20
    rows = torch.cat([woman, moved, tinted])
    truths = woman.expand(3, -1, -1, -1)
    batch = Restoration(sr=rows, lr=rows, sr_lr=rows, hr=truths)
    values = load("skin_tone_drift_in_place")(batch)
    true_angle = load("skin_tone_drift")(batch)["skin_tone_hr"][0].item()
    there = typology_angle(skin(elsewhere.pixels, truth.face))
    expected = [0, there - true_angle, angle - true_angle]
    assert values["skin_tone_drift_in_place"].tolist() == pytest.approx(expected, abs=1.5)
    assert values["skin_tone_drift_in_place"][1].item() == pytest.approx(expected[1])
    sizes = np.abs(values["skin_tone_drift_in_place"])
    np.testing.assert_array_equal(values["skin_tone_drift_in_place_abs"], sizes)


def test_without_the_extra_the_skin_of_the_ffhq_frame_is_taken(woman, monkeypatch):
    monkeypatch.setattr(faces, "available", lambda: "not installed")
    corners = np.concatenate(TEMPLATE)
    assert corners.min() > 0.25
    assert corners.max() < 0.75
    image, angle = painted(65, 18)
    left, right, top, bottom = 16, 48, 28, 50
    surrounded = torch.zeros_like(image)
    surrounded[..., top:bottom, left:right] = image[..., top:bottom, left:right]
    value = load("skin_tone")(Restoration(sr=surrounded, lr=image, sr_lr=image))["skin_tone"]
    assert value.item() == pytest.approx(angle, abs=1.5)
