"""LPIPS, FID and KID: distances in the features of trained networks, through torchmetrics.

Optional: they need the packages of the extra `perceptual`, and weights that these packages
download on first use. Where either is missing the metric says so; it never becomes a number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from pulse_exp.metrics.base import MetricUnavailable, Restoration

REMEDY = "pip install 'pulse-exp[perceptual]', with access to the network for their weights"


class Lpips:
    """LPIPS with AlexNet's features against the truth (Zhang et al., CVPR 2018)."""

    keys: tuple[str, ...] = ("lpips",)
    needs_truth: ClassVar[bool] = True

    @cached_property
    def network(self) -> Any:
        def build() -> Any:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

        return _built("LPIPS", build)

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        truth = restoration.truth
        network = self.network.to(truth.device)
        rows = []
        with torch.no_grad():
            for image, true_image in zip(restoration.sr, truth, strict=True):
                network.reset()
                network.update(image[None].clamp(0, 1), true_image[None].clamp(0, 1))
                rows.append(network.compute().double())
        return {"lpips": torch.stack(rows)}


class Fid:
    """Fréchet distance of Inception features, results against truths (Heusel et al. 2017).

    Biased upwards for small sets: compare runs of the same images only.
    """

    keys: tuple[str, ...] = ("fid",)
    needs_truth: ClassVar[bool] = True

    def __init__(self) -> None:
        self.rows = 0

    @cached_property
    def network(self) -> Any:
        def build() -> Any:
            from torchmetrics.image.fid import FrechetInceptionDistance

            return FrechetInceptionDistance(feature=2048)

        return _built("FID", build)

    def update(self, restoration: Restoration) -> None:
        _show(self.network, restoration)
        self.rows += len(restoration.sr)

    def compute(self) -> dict[str, Tensor]:
        _refuse_single("FID", self.rows)
        return {"fid": self.network.compute().double().expand(self.rows)}


class Kid:
    """Kernel distance of Inception features, results against truths (Bińkowski et al. 2018).

    Unbiased, so it can come out below zero.
    """

    keys: tuple[str, ...] = ("kid",)
    needs_truth: ClassVar[bool] = True

    def __init__(self) -> None:
        self.rows = 0

    @cached_property
    def network(self) -> Any:
        def build() -> Any:
            from torchmetrics.image.kid import KernelInceptionDistance

            return KernelInceptionDistance(feature=2048, subsets=1)

        return _built("KID", build)

    def update(self, restoration: Restoration) -> None:
        _show(self.network, restoration)
        self.rows += len(restoration.sr)

    def compute(self) -> dict[str, Tensor]:
        _refuse_single("KID", self.rows)
        self.network.subset_size = self.rows  # all of them, so nothing is left to chance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            mean, _ = self.network.compute()
        return {"kid": mean.double().expand(self.rows)}


def _built(name: str, build: Callable[[], Any]) -> Any:
    """The network, or MetricUnavailable where its package or its weights are missing."""
    try:
        return build()
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise MetricUnavailable(f"{name} needs packages and weights: {reason}; {REMEDY}") from error


def _show(network: Any, restoration: Restoration) -> None:
    network.to(restoration.truth.device)
    for images, real in ((restoration.truth, True), (restoration.sr, False)):
        with torch.no_grad():
            network.update((images.clamp(0, 1) * 255).round().to(torch.uint8), real=real)


def _refuse_single(name: str, rows: int) -> None:
    if rows < 2:
        raise MetricUnavailable(f"{name} needs at least two results; there are {rows}")
