"""Faces in a picture: where they are, their 68 landmarks, and a vector that says who it is.

dlib's frontal face detector (histograms of oriented gradients, King 2015), its 68-landmark
regression trees (Kazemi & Sullivan, CVPR 2014; the very landmarks FFHQ was aligned with) and its
residual network for identity, all on the CPU. They come with the optional extra `faces`.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_exp.errors import UserError

REMEDY = "pip install 'pulse-exp[faces]'"
LANDMARK_MODEL = "shape_predictor_68_face_landmarks.dat"
IDENTITY_MODEL = "dlib_face_recognition_resnet_model_v1.dat"
LANDMARK_SIDE = 160


@dataclass(frozen=True)
class Face:
    """One face found in a picture, in its pixels.

    Attributes:
        box: (left, top, right, bottom), right and bottom excluded; may leave the picture.
        landmarks: `[68, 2]`, x and y of the iBUG 68-point scheme: jaw 0-16, brows 17-26,
            nose 27-35, eyes 36-41 and 42-47 (the picture's left one first), mouth 48-67.
        score: the detector's confidence; 0 is its threshold, clear faces lie between 1 and 3.
    """

    box: tuple[int, int, int, int]
    landmarks: NDArray[np.float64]
    score: float

    @property
    def size(self) -> float:
        """Side in pixels of a square as large as the box."""
        left, top, right, bottom = self.box
        return float(max(0, right - left) * max(0, bottom - top)) ** 0.5


def available() -> str | None:
    """None where faces can be found here; else one line saying what is missing and the remedy."""
    if importlib.util.find_spec("dlib") is None:
        return f"package dlib-bin is not installed: {REMEDY}"
    for name in (LANDMARK_MODEL, IDENTITY_MODEL):
        path = _model_path(name)
        if path is None:
            return f"package face-recognition-models is not installed: {REMEDY}"
        if not path.is_file():
            return f"package face-recognition-models lacks {name}: reinstall with {REMEDY}"
    return None


def detect(image: NDArray[np.uint8], upsample: int = 0) -> list[Face]:
    """The upright faces of an RGB picture `[H, W, 3]` uint8, the largest first.

    The detector sees faces from about 80 pixels; each `upsample` doubles the picture first, which
    halves that and takes four times as long. Raises UserError without the extra `faces`.
    """
    image = _checked(image)
    boxes, scores, _ = _detector().run(image, upsample, 0.0)
    found = []
    for rectangle, score in zip(boxes, scores, strict=True):
        box = (rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)
        found.append(Face(box, _landmarks(image, box), float(score)))
    return sorted(found, key=lambda face: (-face.size, face.box))


def embed(image: NDArray[np.uint8], face: Face) -> NDArray[np.float64]:
    """Identity vector `[128]` of a face found in this picture `[H, W, 3]` uint8.

    Two pictures of one person are usually less than 0.6 apart (Euclidean). Raises UserError
    without the extra `faces`.
    """
    dlib = _dlib()
    left, top, right, bottom = face.box
    points = [dlib.point(round(x), round(y)) for x, y in face.landmarks.tolist()]
    shape = dlib.full_object_detection(dlib.rectangle(left, top, right - 1, bottom - 1), points)
    return np.array(_identity_network().compute_face_descriptor(_checked(image), shape))


def _checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an RGB uint8 image [H, W, 3], got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def _landmarks(image: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """The 68 landmarks of the face in a box.

    dlib rounds them to pixels, so a small face is enlarged for it: on faces of 20 pixels that
    halves the error, from 160 pixels on it changes nothing.
    """
    left, top, right, bottom = box
    side = max(right - left, bottom - top, 1)
    enlarge = math.ceil(LANDMARK_SIDE / side)
    if enlarge == 1:
        return _parts(image, box)
    x, y = left - side // 2, top - side // 2
    around = Image.fromarray(image).crop((x, y, right + side // 2, bottom + side // 2))
    size = (around.width * enlarge, around.height * enlarge)
    large = np.asarray(around.resize(size, Image.Resampling.BICUBIC))
    inside = tuple(enlarge * (edge - o) for edge, o in zip(box, (x, y, x, y), strict=True))
    return (_parts(large, inside) + 0.5) / enlarge - 0.5 + np.array([x, y])


def _parts(image: NDArray[np.uint8], box: tuple[int, ...]) -> NDArray[np.float64]:
    left, top, right, bottom = box
    rectangle = _dlib().rectangle(left, top, right - 1, bottom - 1)
    parts = _landmark_model()(image, rectangle).parts()
    return np.array([(point.x, point.y) for point in parts], dtype=np.float64)


def _model_path(name: str) -> Path | None:
    """A file of face-recognition-models, found without importing it: its code does not run."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "models" / name


def _dlib() -> Any:
    missing = available()
    if missing:
        raise UserError(f"finding faces needs an extra: {missing}")
    import dlib

    return dlib


@lru_cache(maxsize=1)
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@lru_cache(maxsize=1)
def _landmark_model() -> Any:
    return _dlib().shape_predictor(str(_model_path(LANDMARK_MODEL)))


@lru_cache(maxsize=1)
def _identity_network() -> Any:
    return _dlib().face_recognition_model_v1(str(_model_path(IDENTITY_MODEL)))
