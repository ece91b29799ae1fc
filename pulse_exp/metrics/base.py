"""What every metric is: a small object that turns a batch of results into one value a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Protocol, cast, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError
from pulse_exp.metrics.portraits import Portrait, portraits

METRICS = {
    "niqe": "pulse_exp.metrics.naturalness:Niqe",
    "niqe_hr": "pulse_exp.metrics.naturalness:TruthNiqe",
    "psnr": "pulse_exp.metrics.fidelity:Psnr",
    "ssim": "pulse_exp.metrics.fidelity:Ssim",
    "ms_ssim": "pulse_exp.metrics.fidelity:MsSsim",
    "lr_psnr": "pulse_exp.metrics.fidelity:LrPsnr",
    "lr_ssim": "pulse_exp.metrics.fidelity:LrSsim",
    "lpips": "pulse_exp.metrics.perceptual:Lpips",
    "fid": "pulse_exp.metrics.perceptual:Fid",
    "kid": "pulse_exp.metrics.perceptual:Kid",
    "identity": "pulse_exp.metrics.identity:Identity",
    "identity_lr": "pulse_exp.metrics.identity:InputIdentity",
    "identity_in_place": "pulse_exp.metrics.identity:IdentityInPlace",
    "landmark_error": "pulse_exp.metrics.landmarks:LandmarkError",
    "skin_tone": "pulse_exp.metrics.skin_tone:SkinTone",
    "skin_tone_drift": "pulse_exp.metrics.skin_tone:SkinToneDrift",
    "skin_tone_drift_in_place": "pulse_exp.metrics.skin_tone:SkinToneDriftInPlace",
    "diversity_rmse": "pulse_exp.metrics.diversity:ImageDiversity",
    "diversity_identity": "pulse_exp.metrics.diversity:FaceDiversity",
}
"""Name a user chooses -> `module:class`; imported only when it is chosen."""


class MetricUnavailable(Exception):
    """This metric cannot be measured here at all; the message says why and what would help.

    The records list it as missing with this reason: it never becomes a number.
    """


@dataclass(frozen=True)
class Restoration:
    """A batch of results and what they are compared with; images are RGB in [0, 1].

    Attributes:
        sr: the results `[B, 3, H, W]`, clamped to [0, 1].
        lr: the observed low-res inputs `[B, 3, h, w]`.
        sr_lr: the results as the search's downscaler sees them `[B, 3, h, w]`.
        hr: the truths `[B, 3, H, W]`, or None where there are none.
        images: the id of each row's image, B of them; rows with one id are its restarts.
    """

    sr: Float[Tensor, "B 3 H W"]
    lr: Float[Tensor, "B 3 h w"]
    sr_lr: Float[Tensor, "B 3 h w"]
    hr: Float[Tensor, "B 3 H W"] | None = None
    images: tuple[str, ...] = ()

    @property
    def truth(self) -> Float[Tensor, "B 3 H W"]:
        """The truths; raises MetricUnavailable where there are none."""
        if self.hr is None:
            raise MetricUnavailable("the true image is not known")
        return self.hr

    @cached_property
    def sr_portraits(self) -> list[Portrait]:
        """The results with the faces found in them; found once, for all metrics."""
        return portraits(self.sr)

    @cached_property
    def hr_portraits(self) -> list[Portrait]:
        """The truths with the faces found in them; raises MetricUnavailable without truths."""
        return portraits(self.truth)

    @cached_property
    def lr_portraits(self) -> list[Portrait]:
        """The low-res inputs, enlarged by Pillow's bicubic, with the faces found in them."""
        size = list(self.sr.shape[2:])
        enlarged = F.interpolate(self.lr.float().cpu(), size, mode="bicubic", antialias=True)
        return portraits(enlarged.clamp(0, 1))


class Metric(Protocol):
    """Measures each row by itself: a batch gives what its rows give one by one.

    The diversities alone compare rows: those of one image in the batch.

    Attributes:
        keys: the keys of `CATALOG` that it returns.
        needs_truth: whether it cannot do without `hr`.
    """

    keys: tuple[str, ...]
    needs_truth: bool

    def __call__(self, restoration: Restoration) -> dict[str, Float[Tensor, " B"]]:
        """One value a row for each key; NaN in the rows where it is not defined.

        Raises MetricUnavailable where no row can have a value.
        """
        ...


@runtime_checkable
class RunMetric(Metric, Protocol):
    """Measures the results of a whole run together; called on one batch it is unavailable."""

    def update(self, restoration: Restoration) -> None:
        """Takes in a batch. Raises MetricUnavailable where the metric cannot be measured."""
        ...

    def compute(self) -> dict[str, float]:
        """The value of all results taken in. Raises MetricUnavailable where there is none."""
        ...


def load(name: str) -> Metric:
    """The metric of that name, ready for its first batch."""
    if name not in METRICS:
        raise UserError(f"no metric named {name!r}; choose from: {', '.join(METRICS)}")
    module, _, attribute = METRICS[name].partition(":")
    return cast(Metric, getattr(import_module(module), attribute)())


def measure(
    metrics: Iterable[Metric], restoration: Restoration
) -> tuple[dict[str, Float[Tensor, " B"]], dict[str, str]]:
    """Every key's values, one a row, and the reasons of the keys that are missing."""
    values: dict[str, Tensor] = {}
    missing: dict[str, str] = {}
    for metric in metrics:
        try:
            values |= metric(restoration)
        except MetricUnavailable as unavailable:
            missing |= dict.fromkeys(metric.keys, str(unavailable))
    return values, missing


def measure_run(
    metrics: Iterable[Metric], restorations: Callable[[], Iterable[Restoration]]
) -> tuple[dict[str, float], dict[str, str]]:
    """The values of the metrics of a whole run, and the reasons of those that are missing.

    Args:
        metrics: any; those that measure row by row are passed over.
        restorations: gives all batches of a finished run, once for each such metric.
    """
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for metric in metrics:
        if not isinstance(metric, RunMetric):
            continue
        try:
            for restoration in restorations():
                metric.update(restoration)
            values |= metric.compute()
        except MetricUnavailable as unavailable:
            missing |= dict.fromkeys(metric.keys, str(unavailable))
    return values, missing
