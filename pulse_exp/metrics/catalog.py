"""What each measured number of a record means: label, unit, range, direction. No torch here.

Tables, figures and the report read this; the modules beside it compute the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Literal


@dataclass(frozen=True)
class MetricInfo:
    """One measured number of a record.

    Attributes:
        key: its key in `records.jsonl`.
        label: heading of a table's column or a figure's axis, without the unit.
        unit: empty for a pure number.
        low, high: the values it can take, ends included; `±inf` where there is no bound.
        lower_is_better: None where neither direction is better.
        decimals: how many to print.
        description: one sentence for a tooltip or a legend.
        needs_truth: only rows with a known truth have it.
        scope: "row" for one value a search; "run" for one value of a set of images, repeated
            on each row of the run, so that it has no spread of its own.
    """

    key: str
    label: str
    unit: str
    low: float
    high: float
    lower_is_better: bool | None
    decimals: int
    description: str
    needs_truth: bool = False
    scope: Literal["row", "run"] = "row"

    @property
    def direction(self) -> str:
        """An arrow towards the better values: "↓", "↑", or "" where there is none."""
        return {True: "↓", False: "↑", None: ""}[self.lower_is_better]


_INFOS = [
    # How the search went.
    MetricInfo(
        "solved", "Success rate", "", 0, 1, False, 2,
        "Share of all searches, failed ones included, whose downscaling error came within eps.",
    ),
    MetricInfo(
        "lr_mse", "Downscaling error", "", 0, 1, True, 5,
        "Mean squared error between the downscaled result and the low-res input.",
    ),
    MetricInfo(
        "lr_mse_refined", "Downscaling error, refined", "", 0, 1, True, 5,
        "The same error of the final image, after the refinements that follow the search.",
    ),
    MetricInfo(
        "lr_psnr", "LR-PSNR", "dB", 0, 100, False, 2,
        "PSNR between the downscaled result and the low-res input (consistency), at most 100 dB.",
    ),
    MetricInfo(
        "lr_ssim", "LR-SSIM", "", -1, 1, False, 3,
        "SSIM between the downscaled result and the low-res input; from 11 pixels a side.",
    ),
    MetricInfo(
        "lr_blur", "Blur of the input", "px", 0, inf, None, 2,
        "Standard deviation of the low-res input's blur in its own pixels, told by the generator's "
        "images; 0 where none is noticed.",
    ),
    MetricInfo(
        "lr_jpeg", "JPEG quality of the input", "", 0, 100, None, 0,
        "The quality with which the low-res input was saved as JPEG, told by its pixels; 0 where "
        "it was not.",
    ),
    # Realism, without a reference.
    MetricInfo(
        "niqe", "NIQE", "", 0, inf, True, 2,
        "Naturalness of the result by the official NIQE model of undistorted photos.",
    ),
    MetricInfo(
        "niqe_hr", "NIQE of the truth", "", 0, inf, True, 2,
        "The same score of the true image, for comparison.", needs_truth=True,
    ),
    # Fidelity to the truth.
    MetricInfo(
        "psnr", "PSNR", "dB", 0, 100, False, 2,
        "Peak signal-to-noise ratio of the result against the truth, at most 100 dB.",
        needs_truth=True,
    ),
    MetricInfo(
        "ssim", "SSIM", "", -1, 1, False, 3,
        "Structural similarity to the truth, 11×11 Gaussian window.", needs_truth=True,
    ),
    MetricInfo(
        "ms_ssim", "MS-SSIM", "", 0, 1, False, 3,
        "Structural similarity to the truth over five scales; from 176 pixels a side.",
        needs_truth=True,
    ),
    MetricInfo(
        "lpips", "LPIPS", "", 0, inf, True, 3,
        "Learned perceptual distance to the truth (AlexNet).", needs_truth=True,
    ),
    MetricInfo(
        "fid", "FID", "", 0, inf, True, 1,
        "Fréchet distance between the Inception features of the run's results and truths.",
        needs_truth=True, scope="run",
    ),
    MetricInfo(
        "kid", "KID", "", -inf, inf, True, 4,
        "Kernel distance between the Inception features of the run's results and truths.",
        needs_truth=True, scope="run",
    ),
    # The person.
    MetricInfo(
        "identity", "Identity distance", "", 0, inf, True, 3,
        "Distance of the face embeddings of result and truth; below 0.6 dlib calls two pictures "
        "one person.",
        needs_truth=True,
    ),
    MetricInfo(
        "identity_in_place", "Identity distance, in place", "", 0, inf, True, 3,
        "The same distance with both pictures cut out where the truth's face is, for images too "
        "blurred for a face to be found in.",
        needs_truth=True,
    ),
    MetricInfo(
        "identity_lr", "Identity distance to input", "", 0, inf, True, 3,
        "Distance of the face embeddings of the result and of the enlarged low-res input.",
    ),
    MetricInfo(
        "landmark_error", "Landmark error", "", 0, inf, True, 4,
        "Mean distance of 68 facial landmarks from the truth's, over its outer eye corners'.",
        needs_truth=True,
    ),
    MetricInfo(
        "skin_tone", "Skin tone (ITA)", "°", -180, 180, None, 1,
        "Individual typology angle of the result's facial skin; larger is lighter.",
    ),
    MetricInfo(
        "skin_tone_hr", "Skin tone of the truth (ITA)", "°", -180, 180, None, 1,
        "Individual typology angle of the truth's facial skin.", needs_truth=True,
    ),
    MetricInfo(
        "skin_tone_drift", "Skin tone drift", "°", -180, 180, None, 1,
        "Result's typology angle minus the truth's; positive means that the skin became lighter.",
        needs_truth=True,
    ),
    MetricInfo(
        "skin_tone_drift_abs", "Skin tone drift, size", "°", 0, 180, True, 1,
        "Size of the difference between the typology angles of result and truth.",
        needs_truth=True,
    ),
    MetricInfo(
        "skin_tone_drift_in_place", "Skin tone drift, in place", "°", -180, 180, None, 1,
        "The same difference with the result's skin taken where the truth's is.",
        needs_truth=True,
    ),
    MetricInfo(
        "skin_tone_drift_in_place_abs", "Skin tone drift in place, size", "°", 0, 180, True, 1,
        "Size of that difference.", needs_truth=True,
    ),
    MetricInfo(
        "skin_tone_drift_lr", "Skin tone drift from input", "°", -180, 180, None, 1,
        "Result's typology angle minus the enlarged low-res input's; positive means lighter.",
    ),
    MetricInfo(
        "skin_tone_drift_lr_abs", "Skin tone drift from input, size", "°", 0, 180, True, 1,
        "Size of the difference between the typology angles of result and enlarged input.",
    ),
    # Several answers to one input.
    MetricInfo(
        "diversity_rmse", "Diversity of images", "", 0, 1, False, 4,
        "Mean root-mean-square difference from the other restarts' results of the same image.",
    ),
    MetricInfo(
        "diversity_identity", "Diversity of faces", "", 0, inf, False, 3,
        "Mean distance of the face embedding from the other restarts' of the same image.",
    ),
    # What it cost.
    MetricInfo(
        "steps_to_solve", "Steps to solve", "", 0, inf, True, 0,
        "First step whose downscaling error is within eps; solved searches only.",
    ),
    MetricInfo(
        "seconds_to_solve", "Time to solve", "s", 0, inf, True, 1,
        "The search's time up to the first step within eps; solved searches only.",
    ),
    MetricInfo(
        "steps", "Steps", "", 0, inf, True, 0, "Optimiser steps that were run."
    ),
    MetricInfo(
        "seconds", "Time", "s", 0, inf, True, 1,
        "Wall time of the search: its batch's time over the batch's rows, without evaluation.",
    ),
    MetricInfo(
        "peak_memory", "Peak memory", "MiB", 0, inf, True, 0,
        "Most memory in use during the batch's search: the GPU's, else the process's.",
    ),
]  # fmt: skip

CATALOG: dict[str, MetricInfo] = {info.key: info for info in _INFOS}
"""Key of a record -> what it means, in the order of display."""


def value_of(record: Mapping[str, Any], key: str) -> float | None:
    """The number that a record holds, or implies, for a key of `CATALOG`; None where it has none.

    Derived keys: `solved` is 1 or 0 by the status; `steps_to_solve` and `seconds_to_solve` are
    the solved step and its share of the search's time.
    """
    if key == "solved":
        return float(record["status"] == "solved") if "status" in record else None
    if key == "steps_to_solve":
        return _number(record.get("solved_step"))
    if key == "seconds_to_solve":
        solved_step, steps = _number(record.get("solved_step")), _number(record.get("steps"))
        seconds = _number(record.get("seconds"))
        if solved_step is None or seconds is None or steps is None:
            return None
        return seconds * solved_step / steps if steps else seconds
    return _number(record.get(key))


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
