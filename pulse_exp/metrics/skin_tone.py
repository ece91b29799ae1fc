"""Skin tone of a face as its individual typology angle, and how far a result drifts in it.

ITA = arctan((L* − 50) / b*) in degrees (Chardon, Cretois & Hourseau, 1991): above 55 very light,
41 light, 28 intermediate, 10 tan, −30 brown, below dark. It describes the picture, light and
camera included, not the person: compare pictures that were taken alike.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pulse_exp.faces import Face
from pulse_exp.metrics.base import Restoration
from pulse_exp.metrics.portraits import Portrait

Polygons = list[NDArray[np.float64]]

TEMPLATE: Polygons = [
    np.array([(0.330, 0.570), (0.389, 0.572), (0.397, 0.642), (0.342, 0.734), (0.293, 0.644)]),
    np.array([(0.670, 0.570), (0.611, 0.572), (0.603, 0.642), (0.658, 0.734), (0.707, 0.644)]),
    np.array([(0.500, 0.466), (0.465, 0.589), (0.535, 0.589)]),
]
"""The same cheeks and nose in the FFHQ frame, as fractions of its side: the mean of 61 aligned
frontal faces of the Face Research Lab London Set, made symmetric."""

TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.95047, 1.0, 1.08883)
"""Linear sRGB to XYZ (ITU-R BT.709 primaries), and the white point D65 of the 2° observer."""


def lab(colours: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """CIELAB L*, a*, b* of sRGB colours in [0, 1], for D65."""
    linear = torch.where(
        colours <= 0.04045, colours / 12.92, ((colours.clamp(min=0) + 0.055) / 1.055) ** 2.4
    )
    xyz = linear @ linear.new_tensor(TO_XYZ).T / linear.new_tensor(WHITE)
    line = xyz * (29 / 6) ** 2 / 3 + 4 / 29  # continues the cube root towards black
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=0) ** (1 / 3), line)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def typology_angle(colours: Float[Tensor, "N 3"]) -> float:
    """ITA in degrees of the median L* and b* of sRGB colours in [0, 1]; NaN without colours."""
    if not len(colours):
        return float("nan")
    lightness, _, yellow = lab(colours).median(dim=0).values
    return torch.rad2deg(torch.atan2(lightness - 50, yellow)).item()


def skin_polygons(landmarks: NDArray[np.float64]) -> Polygons:
    """Cheeks and bridge of the nose, from landmarks `[68, 2]` and in their pixels.

    No eyes, lips, nostrils or beard, and no forehead, which hair often covers.
    """
    to_nose = landmarks[33] - landmarks[36:48].mean(axis=0)

    def between(start: int, end: int, share: float) -> NDArray[np.float64]:
        return landmarks[start] + share * (landmarks[end] - landmarks[start])

    def cheek(
        eye: tuple[int, int], nostril: int, mouth: int, jaw: tuple[int, int]
    ) -> NDArray[np.float64]:
        corners = (
            landmarks[eye[0]] + 0.5 * to_nose,
            between(*eye, 0.6) + 0.5 * to_nose,
            between(nostril, jaw[0], 0.25),
            between(mouth, jaw[1], 0.4),
            between(jaw[0], nostril, 0.25),
        )
        return np.array(corners)

    nose = np.array([landmarks[27], between(27, 31, 0.7), between(27, 35, 0.7)])
    return [cheek((36, 39), 31, 48, (2, 3)), cheek((45, 42), 35, 54, (14, 13)), nose]


def skin(pixels: NDArray[np.uint8], face: Face | None) -> Float[Tensor, "N 3"]:
    """The sRGB colours in [0, 1] of the skin in a picture `[h, w, 3]`, in float64.

    The skin is where the face's landmarks say; without a face, where it lies in the FFHQ frame.
    """
    from skimage.draw import polygon

    height, width = pixels.shape[:2]
    if face is not None:
        polygons = skin_polygons(face.landmarks)
    else:
        polygons = [corners * (width, height) for corners in TEMPLATE]
    mask = np.zeros((height, width), bool)
    for corners in polygons:
        mask[polygon(corners[:, 1], corners[:, 0], mask.shape)] = True
    return torch.from_numpy(pixels[mask]).double() / 255


def tones(pictures: list[Portrait], *located_by: list[Portrait]) -> Float[Tensor, " B"]:
    """ITA in degrees of each picture's skin, in float64.

    The skin of a row is where the first of `located_by` that shows a face there has it.
    """
    angles = []
    for picture, *locators in zip(pictures, *located_by, strict=True):
        face = next((other.face for other in locators if other.face is not None), None)
        angles.append(typology_angle(skin(picture.pixels, face)))
    return torch.tensor(angles, dtype=torch.float64)


def drift(angles: Float[Tensor, " B"], reference: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Difference of angles in degrees, from -180 to 180."""
    return torch.remainder(angles - reference + 180, 360) - 180


class SkinTone:
    """Tone of the result, and its drift from the enlarged low-res input's.

    The input's skin is taken where the result's is: landmarks of a few pixels mean nothing. Blur
    mixes eyes and shadows into it, so that photos of the London set drift from their own bicubic
    input by 3.1° ± 2.7° at 16×16 pixels, 0.5° ± 1.0° at 32×32 and -0.1° ± 0.4° at 64×64.
    """

    keys: tuple[str, ...] = ("skin_tone", "skin_tone_drift_lr", "skin_tone_drift_lr_abs")
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        results = restoration.sr_portraits
        located_by = [results]
        if restoration.hr is not None:
            located_by.append(restoration.hr_portraits)
        own = tones(results, *located_by)
        drifts = drift(own, tones(restoration.lr_portraits, *located_by))
        return dict(zip(self.keys, (own, drifts, drifts.abs()), strict=True))


class SkinToneDrift:
    """Tone of the truth, and the result's drift from it."""

    keys: tuple[str, ...] = ("skin_tone_hr", "skin_tone_drift", "skin_tone_drift_abs")
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        truths, results = restoration.hr_portraits, restoration.sr_portraits
        true_tones = tones(truths, truths, results)
        drifts = drift(tones(results, results, truths), true_tones)
        return dict(zip(self.keys, (true_tones, drifts, drifts.abs()), strict=True))


class SkinToneDriftInPlace:
    """The same drift with the result's skin taken where the truth's is, whatever it shows there.

    For comparing methods of which some leave images so blurred that landmarks of their own place
    cheeks elsewhere.
    """

    keys: tuple[str, ...] = ("skin_tone_drift_in_place", "skin_tone_drift_in_place_abs")
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        truths = restoration.hr_portraits
        drifts = drift(tones(restoration.sr_portraits, truths), tones(truths, truths))
        return dict(zip(self.keys, (drifts, drifts.abs()), strict=True))
