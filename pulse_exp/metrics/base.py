"""What every metric is: a small object that turns a batch of results into one value a row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor

from pulse_exp.errors import UserError

METRICS = {
    "niqe": "pulse_exp.metrics.naturalness:Niqe",
    "niqe_hr": "pulse_exp.metrics.naturalness:TruthNiqe",
    "psnr": "pulse_exp.metrics.fidelity:Psnr",
    "ssim": "pulse_exp.metrics.fidelity:Ssim",
    "ms_ssim": "pulse_exp.metrics.fidelity:MsSsim",
    "lr_psnr": "pulse_exp.metrics.fidelity:LrPsnr",
    "lr_ssim": "pulse_exp.metrics.fidelity:LrSsim",
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


class Metric(Protocol):
    """Measures each row by itself: a batch gives what its rows give one by one.

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


def load(name: str) -> Metric:
    """The metric of that name, ready to call."""
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
