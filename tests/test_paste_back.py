import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from pulse_exp.alignment import crop_quad, quad_from_axis
from pulse_exp.paste_back import feathered, paste_face

QUADS = [((224.8, 106.5), (87.3, 4.8)), ((250, 250), (-100, 100)), ((250.3, 260.7), (30, 7))]


@pytest.fixture(scope="module")
def smooth():
    noise = np.random.default_rng(0).normal(size=(512, 512, 3))
    field = ndimage.gaussian_filter(noise, (6, 6, 0))
    return np.uint8(255 * (field - field.min()) / np.ptp(field))


@pytest.mark.parametrize(("center", "axis"), QUADS)
@pytest.mark.parametrize("size", [128, 256])
def test_pasting_the_crop_back_changes_next_to_nothing(smooth, center, axis, size):
    quad = quad_from_axis(center, axis)
    pasted = smooth.copy()
    paste_face(pasted, crop_quad(smooth, quad, size), quad)
    difference = pasted.astype(float) - smooth
    changed = difference != 0
    assert changed.any()
    assert np.abs(difference).max() <= 8
    # No shift: the change has nothing in common with the photo's slopes.
    for slope in np.gradient(smooth.astype(float), axis=(0, 1)):
        shift = (slope[changed] @ difference[changed]) / (slope[changed] @ slope[changed])
        assert abs(shift) < 0.05


def test_a_face_at_the_photos_edge_is_pasted_as_far_as_the_photo_goes(smooth):
    quad = quad_from_axis((20, 500), (60, 25))
    pasted = smooth.copy()
    paste_face(pasted, crop_quad(smooth, quad, 128), quad)
    assert (pasted[460:, :60] != smooth[460:, :60]).any()
    # FFHQ's crop is itself a little blurred there.
    assert np.abs(pasted.astype(int) - smooth).max() <= 20


def test_a_color_cast_does_not_survive_but_detail_does():
    photo = data.astronaut()
    quad = quad_from_axis((224.8, 106.5), (87.3, 4.8))
    face = crop_quad(photo, quad, 175)
    cast = np.clip(face * np.array([1.1, 0.95, 0.8]) + 10, 0, 255).astype(np.uint8)
    pasted, uncast = photo.copy(), photo.copy()
    paste_face(pasted, cast, quad)
    paste_face(uncast, face, quad)
    inside = np.s_[60:160, 180:270]
    assert np.abs(pasted[inside].astype(int) - uncast[inside]).mean() < 6
    sharpness = [ndimage.laplace(p[inside].mean(axis=2)).std() for p in (pasted, uncast)]
    assert sharpness[0] == pytest.approx(sharpness[1], rel=0.15)


def test_outside_the_crop_the_photo_stays_as_it_is():
    photo = data.astronaut()
    pasted = photo.copy()
    paste_face(pasted, np.zeros((64, 64, 3), np.uint8), quad_from_axis((224, 106), (80, 0)))
    outside = np.ones(photo.shape[:2], bool)
    outside[26:187, 144:305] = False
    np.testing.assert_array_equal(pasted[outside], photo[outside])


def test_the_mask_is_whole_in_the_middle_and_gone_at_the_edge():
    u = np.linspace(0, 1, 101)
    line = feathered(u, np.full_like(u, 0.5))
    assert line[50] == 1
    assert line[[0, 1, 99, 100]].max() == 0
    np.testing.assert_allclose(line, line[::-1], atol=1e-12)
    assert (np.diff(line[:51]) >= 0).all()
    assert feathered(np.array([0.02]), np.array([0.02]))[0] == 0
