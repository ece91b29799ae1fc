"""PSNR, SSIM and MS-SSIM of the result against the truth and, downscaled, against the input.

Computed by torchmetrics, one value a row. SSIM counts only windows that lie wholly inside the
image, as published (Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 2004), so it needs 11 pixels a side.
"""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from pulse_exp.metrics.base import MetricUnavailable, Restoration

WINDOW = 11
MS_SSIM_SIDE = 16 * WINDOW
"""Five scales, the last a sixteenth of the image."""

CEILING = 100.0
"""PSNR in dB above which images count as equal: a difference of 1e-5, the 500th of a grey level."""


def psnr(images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Peak signal-to-noise ratio in dB of images in [0, 1], at most 100."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(
        images.double(), truth.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return values.clamp(max=CEILING)


def ssim(images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]) -> Float[Tensor, " B"]:
    """Structural similarity, at most 1: Gaussian window of 11 pixels and deviation 1.5.

    Raises MetricUnavailable below 11 pixels a side.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _refuse_below(WINDOW, images, "SSIM")
    _, similarity = structural_similarity_index_measure(
        images, truth, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    border = WINDOW // 2  # releases of torchmetrics differ in whether their mean includes it
    return similarity[..., border:-border, border:-border].mean(dim=(1, 2, 3))


def ms_ssim(
    images: Float[Tensor, "B 3 H W"], truth: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, " B"]:
    """Structural similarity over five scales (Wang, Simoncelli & Bovik, Asilomar 2003), 0 to 1.

    Raises MetricUnavailable below 176 pixels a side.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    _refuse_below(MS_SSIM_SIDE, images, "MS-SSIM")
    return multiscale_structural_similarity_index_measure(
        images, truth, sigma=1.5, data_range=1.0, reduction="none"
    ).reshape(len(images))


class Psnr:
    """PSNR against the truth."""

    keys: tuple[str, ...] = ("psnr",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"psnr": psnr(restoration.sr, restoration.truth)}


class Ssim:
    """SSIM against the truth."""

    keys: tuple[str, ...] = ("ssim",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"ssim": ssim(restoration.sr, restoration.truth)}


class MsSsim:
    """MS-SSIM against the truth."""

    keys: tuple[str, ...] = ("ms_ssim",)
    needs_truth: ClassVar[bool] = True

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"ms_ssim": ms_ssim(restoration.sr, restoration.truth)}


class LrPsnr:
    """PSNR of the downscaled result against the low-res input: consistency."""

    keys: tuple[str, ...] = ("lr_psnr",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"lr_psnr": psnr(restoration.sr_lr, restoration.lr)}


class LrSsim:
    """SSIM of the downscaled result against the low-res input."""

    keys: tuple[str, ...] = ("lr_ssim",)
    needs_truth: ClassVar[bool] = False

    def __call__(self, restoration: Restoration) -> dict[str, Tensor]:
        return {"lr_ssim": ssim(restoration.sr_lr, restoration.lr)}


def _refuse_below(side: int, images: Tensor, name: str) -> None:
    height, width = images.shape[2:]
    if min(height, width) < side:
        raise MetricUnavailable(f"{name} needs {side} pixels a side; these have {height}×{width}")
