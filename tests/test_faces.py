import importlib.util

import numpy as np
import pytest
from PIL import Image
from skimage import data, transform

from pulse_exp import faces
from pulse_exp.errors import UserError

needs_faces = pytest.mark.skipif(faces.available() is not None, reason=str(faces.available()))


@pytest.fixture(scope="module")
def astronaut():
    return data.astronaut()


@needs_faces
def test_one_face_in_the_astronaut(astronaut):
    (face,) = faces.detect(astronaut)
    left, top, right, bottom = face.box
    assert face.landmarks.shape == (68, 2)
    assert face.landmarks.dtype == np.float64
    assert face.score > 1
    assert 160 < left < right < 290
    assert 60 < top < bottom < 200


@needs_faces
def test_faces_come_largest_first(astronaut):
    head = astronaut[40:220, 130:310]
    large = (transform.resize(head, (360, 360)) * 255).astype(np.uint8)
    row = np.zeros((360, 560, 3), np.uint8)
    row[:180, :180], row[:, 200:] = head, large
    sizes = [face.size for face in faces.detect(row)]
    assert len(sizes) == 2
    assert sizes[0] > 1.5 * sizes[1]


@needs_faces
def test_upsampling_finds_a_smaller_face_in_the_pixels_of_the_picture(astronaut):
    small = (transform.resize(astronaut, (220, 220), anti_aliasing=True) * 255).astype(np.uint8)
    assert faces.detect(small) == []
    (face,) = faces.detect(small, upsample=1)
    (truth,) = faces.detect(astronaut)
    np.testing.assert_allclose(face.landmarks * 512 / 220, truth.landmarks, atol=8)


@needs_faces
def test_no_face_in_an_empty_picture():
    assert faces.detect(np.full((64, 64, 3), 128, np.uint8)) == []


@needs_faces
def test_embedding_tells_faces_from_one_another(astronaut):
    (face,) = faces.detect(astronaut)
    vector = faces.embed(astronaut, face)
    assert vector.shape == (128,)
    dimmed = (astronaut * 0.7).astype(np.uint8)
    (dim,) = faces.detect(dimmed)
    assert np.linalg.norm(faces.embed(dimmed, dim) - vector) < 0.3


@needs_faces
@pytest.mark.parametrize("image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3))])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="RGB uint8"):
        faces.detect(image)


@pytest.mark.parametrize(
    ("absent", "package"),
    [("dlib", "dlib-bin"), ("face_recognition_models", "face-recognition-models")],
)
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, absent, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else find_spec(name)
    )
    reason = faces.available()
    if absent == "face_recognition_models" and find_spec("dlib") is None:
        package = "dlib-bin"
    assert package in reason
    assert "pulse-exp[faces]" in reason
    faces._detector.cache_clear()
    with pytest.raises(UserError, match=package):
        faces.detect(np.zeros((8, 8, 3), np.uint8))


@needs_faces
def test_landmarks_of_a_small_face_are_finer_than_a_pixel(astronaut):
    (truth,) = faces.detect(astronaut)
    small = np.asarray(Image.fromarray(astronaut).resize((200, 200), Image.Resampling.LANCZOS))
    (face,) = faces.detect(small, upsample=1)
    expected = (truth.landmarks + 0.5) * 200 / 512 - 0.5
    error = np.hypot(*(face.landmarks - expected).T)
    assert error.mean() < 0.7
