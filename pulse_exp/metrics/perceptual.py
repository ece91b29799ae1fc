"""LPIPS, FID and KID: distances in the features of trained networks, through torchmetrics.

Optional: they need the packages of the extra `perceptual`, and weights that these packages
download on first use. Where either is missing the metric says so; it never becomes a number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from pulse_exp.metrics.base import MetricUnavailable, Restoration

REMEDY = "pip install 'pulse-exp[perceptual]', with access to the network for their weights"
WHOLE_RUN = "measured over all results of a finished run: task=measure results=DIR"


class Pretrained:
    """A network that is built, and its weights fetched, on first use: once, also if that fails."""

    def __init__(self, name: str, build: Callable[[], Any]) -> None:
        self.name, self.build = name, build
        self._network: Any = None
        self._reason = ""

    def on(self, device: torch.device) -> Any:
        """The network; raises MetricUnavailable where its package or its weights are missing."""
        if self._network is None and not self._reason:
            try:
                self._network = self.build()
            except (ImportError, OSError, RuntimeError) as error:
                self._reason = next(iter(str(error).splitlines()), repr(error)).rstrip(" .")
        if self._reason:
            raise MetricUnavailable(f"{self.name} cannot be loaded: {self._reason}; {REMEDY}")
        return self._network.to(device)


class Lpips:
    """LPIPS with AlexNet's features against the truth (Zhang et al., CVPR 2018)."""

    keys: tuple[str, ...] = ("lpips",)
    needs_truth: ClassVar[bool] = True

    def __init__(self) -> None:
        def build() -> Any:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)

        self.network = Pretrained("LPIPS", build)

    @torch.no_grad()
    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        truth = restoration.truth
        network = self.network.on(truth.device)
        rows = []
        for image, true_image in zip(restoration.sr, truth, strict=True):
            network.reset()
            network.update(image[None].clamp(0, 1), true_image[None].clamp(0, 1))
            rows.append(network.compute().double())
        return {"lpips": torch.stack(rows)}


class InceptionDistance:
    """Distance between the Inception features of a run's results and of their truths."""

    keys: tuple[str, ...]
    needs_truth: ClassVar[bool] = True

    def __init__(self) -> None:
        self.network = Pretrained(type(self).__name__.upper(), self.build)
        self.rows = 0

    def build(self) -> Any:
        """torchmetrics' metric, which keeps what it has been shown."""
        raise NotImplementedError

    def distance(self, network: Any) -> float:
        """The distance of what the network has been shown."""
        raise NotImplementedError

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        raise MetricUnavailable(WHOLE_RUN)

    @torch.no_grad()
    def update(self, restoration: Restoration) -> None:
        truth = restoration.truth
        network = self.network.on(truth.device)
        for images, real in ((truth, True), (restoration.sr, False)):
            network.update((images.clamp(0, 1) * 255).round().to(torch.uint8), real=real)
        self.rows += len(truth)
        self.device = truth.device

    def compute(self) -> dict[str, float]:
        if self.rows < 2:
            raise MetricUnavailable(f"it needs at least two results; there are {self.rows}")
        return {self.keys[0]: self.distance(self.network.on(self.device))}


class Fid(InceptionDistance):
    """Fréchet distance (Heusel et al. 2017).

    Biased upwards for small sets: compare runs of the same images only.
    """

    keys = ("fid",)

    def build(self) -> Any:
        from torchmetrics.image.fid import FrechetInceptionDistance

        return FrechetInceptionDistance(feature=2048)

    def distance(self, network: Any) -> float:
        return float(network.compute())


class Kid(InceptionDistance):
    """Kernel distance (Bińkowski et al. 2018): unbiased, so it can come out below zero."""

    keys = ("kid",)

    def build(self) -> Any:
        from torchmetrics.image.kid import KernelInceptionDistance

        return KernelInceptionDistance(feature=2048, subsets=1)

    def distance(self, network: Any) -> float:
        network.subset_size = self.rows  # one subset of all: nothing is left to chance
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            mean, _ = network.compute()
        return float(mean)
