import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from pulse_exp import faces
from pulse_exp.alignment import crop_quad, quad_from_axis, quad_from_landmarks, quad_side
from tests.compose import job


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


def straight_line_ffhq(image, landmarks, size):
    """FFHQ's published numbers once more, written down in one go."""
    lm = np.asarray(landmarks, float)
    e0, e1, m0, m1 = lm[36:42].mean(0), lm[42:48].mean(0), lm[48], lm[54]
    e, ee, em = (e0 + e1) / 2, e1 - e0, (m0 + m1) / 2 - (e0 + e1) / 2
    x = ee - np.array([-em[1], em[0]])
    x = x / np.sqrt((x**2).sum())
    x = x * max(np.sqrt((ee**2).sum()) * 2.0, np.sqrt((em**2).sum()) * 1.8)
    y = np.array([-x[1], x[0]])
    c = e + em * 0.1
    quad = np.array([c - x - y, c - x + y, c + x + y, c + x - y])
    side = 2 * np.sqrt((x**2).sum())
    picture = Image.fromarray(image)
    if (shrink := int(side / size * 0.5)) > 1:
        picture = picture.resize(
            (int(np.rint(picture.width / shrink)), int(np.rint(picture.height / shrink))),
            Image.Resampling.LANCZOS,
        )
        quad, side = quad / shrink, side / shrink
    border = max(int(np.rint(side * 0.1)), 3)
    x0, y0 = np.floor(quad.min(0)).astype(int)
    x1, y1 = np.ceil(quad.max(0)).astype(int)
    x0, y0 = max(x0 - border, 0), max(y0 - border, 0)
    x1, y1 = min(x1 + border, picture.width), min(y1 + border, picture.height)
    picture, quad = picture.crop((x0, y0, x1, y1)), quad - (x0, y0)
    p = [
        *(border - np.floor(quad.min(0)).astype(int)),
        *(np.ceil(quad.max(0)).astype(int) - picture.size + border),
    ]
    if max(0, *p) > border - 4:
        p = [max(v, int(np.rint(side * 0.3))) for v in p]
        pixels = np.pad(
            np.float32(picture), ((p[1], p[3]), (p[0], p[2]), (0, 0)), mode="reflect"
        ).astype(np.float64)
        h, w, _ = pixels.shape
        v, u, _ = np.ogrid[:h, :w, :1]
        mask = np.maximum(
            1.0 - np.minimum(u / p[0], (w - 1 - u) / p[2]),
            1.0 - np.minimum(v / p[1], (h - 1 - v) / p[3]),
        )
        blurred = ndimage.gaussian_filter(pixels, [side * 0.02, side * 0.02, 0])
        pixels += (blurred - pixels) * np.clip(mask * 3 + 1, 0, 1)
        pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(mask, 0, 1)
        picture = Image.fromarray(np.uint8(np.clip(np.rint(pixels), 0, 255)))
        quad = quad + p[:2]
    picture = picture.transform(
        (4 * size, 4 * size),
        Image.Transform.QUAD,
        (quad + 0.5).flatten().tolist(),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS))


def face_landmarks(center, scale, angle, rng):
    """A made-up face: eyes, mouth corners and noise where the crop does not look."""
    points = rng.normal(size=(68, 2))
    points[36:42] = [-1, -1] + 0.1 * rng.normal(size=(6, 2))
    points[42:48] = [1, -1] + 0.1 * rng.normal(size=(6, 2))
    points[48], points[54] = (-0.8, 1.2), (0.8, 1.2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ rotation.T * scale + center


@pytest.mark.parametrize(
    ("center", "scale", "angle"),
    [
        ((256, 256), 30, 0.0),  # inside
        ((200, 300), 25, 0.7),  # tilted
        ((60, 40), 40, -0.3),  # leaves the top left corner
        ((470, 480), 50, 3.0),  # upside down, leaves the bottom right corner
        ((250, 250), 100, 0.1),  # large: shrunk first, leaves on all sides
    ],
)
def test_the_crop_is_ffhqs(astronaut, center, scale, angle):
    landmarks = face_landmarks(np.array(center), scale, angle, np.random.default_rng(0))
    ours = crop_quad(astronaut, quad_from_landmarks(landmarks), 32)
    reference = straight_line_ffhq(astronaut, landmarks, 32)
    assert ours.shape == (32, 32, 3)
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - reference.astype(int)).max() <= 1


def test_the_quad_turns_and_scales_with_the_face():
    rng = np.random.default_rng
    upright = quad_from_landmarks(face_landmarks((0, 0), 1, 0, rng(3)))
    turned = quad_from_landmarks(face_landmarks((50, 70), 20, np.pi / 2, rng(3)))
    np.testing.assert_allclose(turned, upright[:, ::-1] * [-20, 20] + [50, 70], atol=1e-9)


def test_quad_corners_run_from_top_left_against_the_clock():
    quad = quad_from_axis((10, 20), (5, 0))
    np.testing.assert_array_equal(quad, [[5, 15], [5, 25], [15, 25], [15, 15]])
    assert quad_side(quad) == 10


def test_a_large_crop_is_antialiased():
    checkers = np.indices((512, 512)).sum(axis=0) % 2 * 255
    image = np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8)
    crop = crop_quad(image, quad_from_axis((256, 256), (200, 0)), 16)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_the_photo_continues_without_an_edge_where_the_quad_leaves_it():
    image = np.full((64, 64, 3), (200, 90, 30), np.uint8)
    crop = crop_quad(image, quad_from_axis((60, 60), (40, 10)), 32)
    assert np.abs(crop.astype(int) - [200, 90, 30]).max() <= 1


def test_impossible_landmarks_are_refused(astronaut):
    with pytest.raises(ValueError, match=r"\[68, 2\]"):
        quad_from_landmarks(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="direction"):
        quad_from_landmarks(np.zeros((68, 2)))
    with pytest.raises(ValueError, match="outside the photo"):
        crop_quad(astronaut, quad_from_axis((900, 900), (50, 0)), 32)


@pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))
def test_the_default_portraits_crop_is_what_the_landmarks_give(astronaut):
    portrait = job("data=portrait")[0].data
    (face,) = faces.detect(astronaut)
    np.testing.assert_allclose(
        quad_from_axis(portrait.centre, portrait.axis),
        quad_from_landmarks(face.landmarks),
        atol=1.5,  # pixels of 174: other builds of dlib round landmarks differently
    )


def test_the_crop_needs_neither_dlib_nor_torch():
    program = (
        "import sys, numpy as np; sys.modules['dlib'] = sys.modules['torch'] = None; "
        "from pulse_exp.alignment import crop_quad, quad_from_axis; "
        "crop_quad(np.zeros((32, 32, 3), np.uint8), quad_from_axis((16, 16), (20, 0)), 8)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
